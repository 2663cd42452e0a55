"""Writing TFRecords from folders and lists of images, and reading them with the sample."""

import os

import numpy as np
import pytest
import tensorflow as tf
from conftest import load_script

from amct_tensorflow.data import find_files, scan_records

writer = load_script("src/images_to_tfrecords.py")
sample = load_script("src/mobilenet_v2_accuracy_based_auto_calibration.py")


def write_image(path, level, encode=tf.io.encode_jpeg):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(np.full((8, 6, 3), level, np.uint8)).numpy())


@pytest.fixture
def folders(tmp_path):
    for label, name in enumerate(["ant", "bee", "cat"]):
        for index in range(4):
            write_image(tmp_path / "images" / name / f"{index}.jpg", 80 * label)
    return tmp_path / "images"


def read(folder):
    """Returns (level, label) of every record, file by file."""
    result = []
    for file in find_files(folder):
        examples = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(file)]
        result.append([decode(example) for example in examples])
    return result


def decode(example):
    feature = example.features.feature
    image = tf.io.decode_image(feature["image/encoded"].bytes_list.value[0]).numpy()
    return int(image.mean()), feature["image/class/label"].int64_list.value[0]


def test_folders_become_records_that_the_sample_reads(folders, tmp_path, capsys):
    assert writer.main(["--images", str(folders), "--output", str(tmp_path / "out"), "--shards", "2"]) == 0
    shards = read(tmp_path / "out")
    assert [sorted(shard) for shard in shards] == [[(0, 0)] * 2 + [(80, 1)] * 2 + [(160, 2)] * 2] * 2
    dataset = scan_records(find_files(tmp_path / "out"), sample.FEATURES)
    assert dataset.num_records == 12 and dataset.largest[sample.LABEL_KEY] == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "validation-00000-of-00002", "validation-00001-of-00002",
    ]  # fmt: skip
    assert "12 of 12 images written to 2 files" in capsys.readouterr().out


def test_the_whole_schema_is_there(folders, tmp_path):
    writer.main(["--images", str(folders), "--output", str(tmp_path / "out")])
    (file,) = find_files(tmp_path / "out")
    record = next(iter(tf.data.TFRecordDataset(file))).numpy()
    feature = tf.train.Example.FromString(record).features.feature
    assert feature["image/format"].bytes_list.value == [b"JPEG"]
    assert [feature[f"image/{key}"].int64_list.value[0] for key in ("height", "width", "channels")] == [8, 6, 3]
    assert feature["image/class/text"].bytes_list.value == [b"ant"]
    assert feature["image/filename"].bytes_list.value == [b"0.jpg"]


def test_a_class_list_gives_the_labels(folders, tmp_path):
    (tmp_path / "classes.txt").write_text("cat\nant\n")
    arguments = ["--images", str(folders), "--classes", str(tmp_path / "classes.txt"), "--first_label", "1"]
    assert writer.main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert sorted(read(tmp_path / "out")[0]) == [(0, 2)] * 4 + [(160, 1)] * 4


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
def test_a_list_of_images_and_labels(folders, tmp_path, separator):
    (tmp_path / "list.txt").write_text(f"bee/0.jpg{separator}7\ncat/1.jpg{separator}9\n\n")
    arguments = ["--list", str(tmp_path / "list.txt"), "--images", str(folders), "--output", str(tmp_path / "out")]
    assert writer.main(arguments) == 0
    assert read(tmp_path / "out") == [[(80, 7), (160, 9)]]


def test_paths_of_a_list_start_where_it_is(folders, tmp_path):
    (folders / "list.txt").write_text("bee/0.jpg 7\n")
    assert writer.main(["--list", str(folders / "list.txt"), "--output", str(tmp_path / "out")]) == 0


def test_unreadable_images_are_left_out_and_named(folders, tmp_path, capsys):
    (folders / "ant" / "0.jpg").write_bytes(b"no image")
    (folders / "bee" / "1.jpg").write_bytes((folders / "bee" / "1.jpg").read_bytes()[:100])
    (folders / "cat" / "notes.txt").write_text("not asked for")
    assert writer.main(["--images", str(folders), "--output", str(tmp_path / "out")]) == 3
    captured = capsys.readouterr()
    assert captured.err.count("left out: ") == 2 and "ant/0.jpg: it cannot be decoded" in captured.err
    assert "10 of 12 images written" in captured.out
    assert len(read(tmp_path / "out")[0]) == 10


@pytest.mark.parametrize("kind", ["no folder", "no classes", "no images", "unknown class", "bad list", "no list"])
def test_bad_input_gets_one_line(folders, tmp_path, capsys, kind):
    arguments = {"--images": str(folders), "--output": str(tmp_path / "out")}
    if kind == "no folder":
        arguments["--images"] = str(tmp_path / "nowhere")
    elif kind == "no classes":
        (tmp_path / "empty").mkdir()
        arguments["--images"] = str(tmp_path / "empty")
    elif kind == "no images":
        (tmp_path / "empty" / "ant").mkdir(parents=True)
        arguments["--images"] = str(tmp_path / "empty")
    elif kind == "unknown class":
        (tmp_path / "classes.txt").write_text("ant\nwasp\n")
        arguments["--classes"] = str(tmp_path / "classes.txt")
    else:
        if kind == "bad list":
            (tmp_path / "list.txt").write_text("ant/0.jpg\n")
        arguments["--list"] = str(tmp_path / "list.txt")
    assert writer.main([word for pair in arguments.items() for word in pair]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["--output", "out"], ["--images", "x", "--output", "y", "--shards", "0"]])
def test_wrong_arguments(arguments):
    with pytest.raises(SystemExit) as caught:
        writer.main(arguments)
    assert caught.value.code == 2


def test_other_formats_and_more_shards_than_images(tmp_path):
    write_image(tmp_path / "images" / "one" / "a.png", 10, tf.io.encode_png)
    write_image(tmp_path / "images" / "two" / "b.PNG", 20, tf.io.encode_png)
    arguments = ["--images", str(tmp_path / "images"), "--output", str(tmp_path / "out"), "--shards", "9"]
    assert writer.main(arguments) == 0
    assert read(tmp_path / "out") == [[(10, 0)], [(20, 1)]]


@pytest.mark.parametrize("name", ["a/b", "../a", "/a", ".hidden", ""])
def test_a_name_that_the_files_cannot_have(folders, tmp_path, capsys, name):
    with pytest.raises(SystemExit) as error:
        writer.main(["--images", str(folders), "--output", str(tmp_path / "out"), f"--name={name}"])
    assert error.value.code == 2
    assert "--name" in capsys.readouterr().err.splitlines()[-1]


def one_line(capsys):
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_what_tensorflow_cannot_write_is_one_line(folders, tmp_path, capsys, monkeypatch):
    def refuse(_):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left\non device")

    monkeypatch.setattr(tf.io, "TFRecordWriter", refuse)
    assert writer.main(["--images", str(folders), "--output", str(tmp_path / "out")]) == 1
    assert "No space left" in one_line(capsys)


@pytest.mark.parametrize("label", ["9" * 19, "9" * 5000, "-1", "1.5"])
def test_a_label_that_is_no_number_of_a_class(folders, tmp_path, capsys, label):
    (tmp_path / "list").write_text(f"ant/0.jpg {label}\n")
    arguments = ["--list", str(tmp_path / "list"), "--images", str(folders), "--output", str(tmp_path / "out")]
    assert writer.main(arguments) == 1
    assert "list, line 1" in one_line(capsys)


def test_a_path_that_no_file_can_have_is_left_out(folders, tmp_path, capsys):
    (tmp_path / "list").write_text("ant/0\0.jpg 1\nant/0.jpg 2\n")
    arguments = ["--list", str(tmp_path / "list"), "--images", str(folders), "--output", str(tmp_path / "out")]
    assert writer.main(arguments) == 3
    assert "left out" in capsys.readouterr().err


def test_names_that_are_no_text(tmp_path, capsys):
    """Of an image, its class, and the folder that is written to."""
    odd = os.fsdecode(b"odd\xff")
    write_image(tmp_path / "images" / odd / f"{odd}.jpg", 80)
    assert writer.main(["--images", str(tmp_path / "images"), "--output", str(tmp_path / odd)]) == 0
    assert capsys.readouterr().out.encode()
    (file,) = (tmp_path / odd).iterdir()
    record = next(iter(tf.data.TFRecordDataset(os.fsencode(file)))).numpy()
    feature = tf.train.Example.FromString(record).features.feature
    assert feature["image/class/text"].bytes_list.value == [b"odd\xff"]
    assert feature["image/filename"].bytes_list.value == [b"odd\xff.jpg"]
