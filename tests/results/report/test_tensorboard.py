"""Event files hold the search, numbers of the layers, and their histograms."""

import numpy as np
import pytest
import tensorflow as tf
from reports import make_report

from amct_tensorflow.errors import OutputError
from amct_tensorflow.results.report.tensorboard import write_events


def events(folder):
    """Returns what an event file holds: per tag, its plugin and its values by step."""
    (file,) = folder.glob("events.out.tfevents.*")
    found = {}
    for record in tf.data.TFRecordDataset(str(file)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            _, values = found.setdefault(value.tag, (value.metadata.plugin_data.plugin_name, {}))
            values[event.step] = tf.make_ndarray(value.tensor)
    return found


def test_they_are_read_back(workdir):
    write_events(make_report(), workdir / "events")
    found = events(workdir / "events")
    plugin, losses = found["search/loss"]
    assert plugin == "scalars" and losses == {2: np.float32(1.15), 3: np.float32(0.1)}
    assert found["layers/damage"][1] == {1: np.float32(0.1), 2: np.float32(0.01), 3: np.float32(0.001)}
    assert found["layers/int8"][1] == {1: 1.0, 2: 0.0, 3: 1.0, 4: 0.0, 5: 0.0}
    plugin, histograms = found["activations/block/conv"]
    assert plugin == "histograms"
    np.testing.assert_allclose(histograms[0][:2], [[-0.5, 0.0, 1.0], [0.0, 0.5, 8.0]])
    assert histograms[0].shape == (5, 3) and "activations/add:1" in found


def test_a_folder_that_cannot_be_written(workdir):
    (workdir / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_events(make_report(), workdir / "file")
