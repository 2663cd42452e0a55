"""The batches that models are compared on."""

import numpy as np
import pytest

from amct_tensorflow.errors import DatasetError
from amct_tensorflow.model.endpoints import Endpoint
from amct_tensorflow.model.input_batches import RandomInputs, checked_batch, read_batches

IMAGES = Endpoint("images", "float32", (None, 4, 4, 3))
IDS = Endpoint("ids", "int32", (2, 7))
FLAG = Endpoint("flag", "bool", (), has_default=True)


def test_random_values():
    (batch,) = RandomInputs().draw([IMAGES, FLAG], {})
    assert batch.keys() == {"images"} and batch["images"].dtype == np.float32
    assert batch["images"].shape == (4, 4, 4, 3) and -1 <= batch["images"].min() < 0 < batch["images"].max() <= 1


def test_random_values_are_the_same_for_the_same_seed():
    one, again, other = (
        next(RandomInputs(seed=seed).draw([IMAGES], {"images": (2, 4, 4, 3)}))["images"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert one.shape == (2, 4, 4, 3) and (one != other).any()


def test_a_range_that_was_said_is_that_of_integers_too():
    batches = list(RandomInputs(0, 3, of_integers=True, batches=2).draw([IMAGES, IDS], {}))
    assert len(batches) == 2 and batches[0]["ids"].dtype == np.int32
    assert {int(value) for each in batches for value in each["ids"].flat} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("endpoint", "shapes", "words"),
    [
        (IDS, {}, "takes int32, of which not every value makes sense"),
        (Endpoint("x", "float32", None), {}, "Say of what shape"),
        (Endpoint("x", "float32", (None, None, 3)), {}, "Say of what shape"),
        (IMAGES, {"images": (1, 5, 4, 3)}, r"has the shape \(None, 4, 4, 3\); \[1, 5, 4, 3\] does not fit"),
        (IMAGES, {"imgs": (1, 4, 4, 3)}, "has no input 'imgs'. Its inputs are images"),
    ],
)
def test_random_values_that_nobody_can_guess(endpoint, shapes, words):
    with pytest.raises(DatasetError, match=words):
        next(RandomInputs().draw([endpoint], shapes))


def test_files(workdir):
    np.save("a.npy", np.ones((2, 4, 4, 3)))
    np.savez("b.npz", **{"images:0": np.zeros((1, 4, 4, 3), np.uint8)})
    one, other = read_batches(["a.npy", "b.npz"], [IMAGES, FLAG])
    assert one["images"].dtype == other["images"].dtype == np.float32 and len(one["images"]) == 2


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda file: None, "cannot be read .No such file"),
        (lambda file: file.write(b"nothing"), "cannot be read"),
        (lambda file: np.save(file, np.array([{}]), allow_pickle=True), "cannot be read"),
        (lambda file: np.save(file, np.ones(3)), r"holds one array, but the model has the inputs images, ids"),
        (lambda file: np.savez(file, images=np.ones((1, 4, 4, 3))), "holds no array for input 'ids'; it has images"),
    ],
)
def test_files_that_hold_no_batch(workdir, write, words):
    file = workdir / "x"
    if "No such" not in words:
        with file.open("wb") as stream:
            write(stream)
    with pytest.raises(DatasetError, match=words):
        list(read_batches([file], [IMAGES, IDS]))


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"images": np.ones((1, 4, 4, 3)), "other": np.ones(1)}, "has no input 'other'"),
        ({"images": np.ones((4, 4, 3))}, r"has the shape \(None, 4, 4, 3\), not \[4, 4, 3\]"),
        ({"images": np.ones((1, 4, 4, 3), complex)}, "takes float32, not complex128"),
    ],
)
def test_batches_that_do_not_fit(batch, words):
    with pytest.raises(DatasetError, match=words):
        checked_batch(batch, [IMAGES, FLAG], "x.npz")


TEXT = Endpoint("text", "string", (None,))


@pytest.mark.parametrize("values", [np.array(["a", "bc"]), np.array([b"a", b"bc"]), np.array(["a", b"bc"], object)])
def test_text_is_an_input_like_others(values):
    found = checked_batch({"text": values}, [TEXT], "x.npz")["text"]
    assert found.dtype == object and list(found) == list(values)


def test_numbers_are_no_text():
    with pytest.raises(DatasetError, match="input 'text' takes string, not int64"):
        checked_batch({"text": np.ones(2, np.int64)}, [TEXT], "x.npz")


def test_nobody_can_guess_text():
    with pytest.raises(DatasetError, match="Input 'text' takes string, of which not every value makes sense"):
        list(RandomInputs().draw([TEXT], {}))
