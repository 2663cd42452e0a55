"""Real networks are checked in little time, and their results break no rule."""

import time

import pytest

import amct_tensorflow as amct

MODELS = [
    "model/mobilenet_v2_1.0_224_frozen.pb",
    "model/efficientnet_lite0_keras_frozen.pb",
    "networks/basic_pitch.pb",
    "networks/centernet.pb",
    "networks/movenet_lightning.pb",
    "networks/posenet.pb",
]
OUTPUT = "MobilenetV2/Predictions/Reshape_1"
MOST_SECONDS = 2.0


def checked_in_time(path, *outputs):
    """Returns a check, and that it took less than it may of processor time."""
    start = time.process_time()
    told = amct.check(path, outputs)
    assert time.process_time() - start < MOST_SECONDS
    return told


@pytest.mark.parametrize("name", MODELS)
def test_float_networks(shared, name):
    if not (shared / name).is_file():
        pytest.skip(f"{name} is not there")
    told = checked_in_time(shared / name)
    assert told.errors == () and told.remarks == () and 0 < told.int8_share < 1


def test_mobilenet_v2(shared, workdir):
    record = shared / "records" / "mobilenet_v2_record.txt"
    if not record.is_file():
        pytest.skip("there is no record of the original toolkit")
    amct.convert_model(str(shared / MODELS[0]), [OUTPUT], str(record), "net")
    told = checked_in_time("net_quantized.pb", OUTPUT)
    assert (told.chains, told.matched, told.errors) == (53, 53, ())
    assert [(each.level, each.node) for each in told.findings] == [
        ("note", "MobilenetV2/Conv/Conv2D"),
        ("note", "MobilenetV2/expanded_conv_1/expand/Conv2D"),
        ("note", "MobilenetV2/Logits/AvgPool"),
    ]
    # 112 * 112 * 3 * 3 * 3 * 32 and 112 * 112 * 16 * 96 of 300.8 million products.
    undone = 112 * 112 * (3 * 3 * 3 * 32 + 16 * 96)
    assert told.int8_share == pytest.approx(1 - undone / 300_774_272, abs=1e-6)
    assert told.command.startswith('atc --framework=3 --model=net_quantized.pb --input_shape="input:1,224,224,3"')
