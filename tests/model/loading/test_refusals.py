"""What is no model, or none that can be frozen, gets one line that says what and what to do."""

import json
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf
from graphs import build, save, small_net
from saved_models import Module, network, save_as_tensorflow_1

from amct_tensorflow.errors import ModelError, ModelNotFoundError
from amct_tensorflow.model.float_model import FloatModel
from amct_tensorflow.model.loading.load import load_frozen

keras = tf.keras
layers = keras.layers
VARIABLES = "variables/variables.data-00000-of-00001"


def refusal(path, words, error=ModelError):
    """Loads what cannot be loaded; returns what is said, which holds ``words``."""
    with pytest.raises(error) as caught:
        load_frozen(path)
    message = str(caught.value)
    assert str(path) in message and len(message.splitlines()) == 1 and len(message) < 600
    for word in words:
        assert word in message
    return message


# ------------------------------------------------------------------------------------------------------- Paths


def test_nothing_and_a_directory_of_something_else(tmp_path):
    refusal(tmp_path / "net.pb", ["does not exist", ".keras", "SavedModel"], ModelNotFoundError)
    refusal(tmp_path, ["holds no saved_model.pb", "Give a frozen model"])


def test_the_inside_of_a_saved_model(tmp_path):
    save_as_tensorflow_1(tmp_path / "model", True)
    refusal(tmp_path / "model" / "saved_model.pb", ["Give the directory that it is in"])
    assert load_frozen(save(build(small_net), tmp_path / "saved_model.pb")).graph_def.node


# -------------------------------------------------------------------------------------------------- SavedModels


@pytest.fixture
def export(tmp_path):
    """Saves signatures of ``Module``; returns the directory."""

    def save_signatures(**signatures):
        module = Module()
        functions = {key: getattr(module, name) for key, name in signatures.items()}
        tf.saved_model.save(module, tmp_path / "model", signatures=functions or None)
        return tmp_path / "model"

    return save_signatures


def test_several_signatures_and_none_of_them_is_the_default(export):
    refusal(export(one="convolve", two="count"), ["'one', 'two'", "signatures={'serving_default'"])


def test_the_default_among_several_signatures(export):
    assert load_frozen(export(serving_default="convolve", another="look_up")).outputs == {"Identity": "features"}


def test_no_signature(export):
    refusal(export(), ["has no signature", "tf.saved_model.save("])


def test_a_lookup_table(export):
    refusal(export(serving_default="look_up"), ["LookupTableFindV2", "cannot become a constant", "Export"])


def test_a_variable_that_is_written_to(export):
    refusal(export(serving_default="count"), ["writes to a variable", "AssignAddVariableOp"])


def test_a_generator_of_random_numbers(export):
    refusal(export(serving_default="draw"), ["writes to a variable", "RngReadAndSkip"])


def test_python_code_that_stays_behind(export):
    refusal(export(serving_default="call_python"), ["calls Python code that is not in it", "EagerPyFunc"])


@pytest.mark.parametrize("missing", ["variables", VARIABLES])
def test_variables_that_are_missing(export, missing):
    path = export(serving_default="convolve")
    (shutil.rmtree if (path / missing).is_dir() else Path.unlink)(path / missing)
    refusal(path, ["cannot be loaded as a SavedModel", "Freeze it in the program that made it"])


@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.index", VARIABLES])
def test_a_damaged_saved_model(export, file):
    path = export(serving_default="convolve")
    (path / file).write_bytes((path / file).read_bytes()[:100])
    refusal(path, ["cannot be loaded as a SavedModel"])


def test_graphs_for_several_purposes(tmp_path):
    builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "model"))
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("x", [1])
        session.run(tf.compat.v1.global_variables_initializer())
        builder.add_meta_graph_and_variables(session, ["train"])
        builder.add_meta_graph(["eval"])
    builder.save()
    refusal(tmp_path / "model", ["['train'] and ['eval']", "Export it for serving"])


# --------------------------------------------------------------------------------------------------- Keras files


@pytest.fixture(params=["keras", "h5"])
def keras_file(tmp_path, request):
    """Saves a model of a few layers; returns the file."""

    def save_layers(*more, file=f"model.{request.param}"):
        keras.Sequential([layers.Input((4,)), *more]).save(tmp_path / file)
        return tmp_path / file

    return save_layers


def describe(path, version, setting):
    """Makes a Keras file of another version of Keras, in which a Dense layer has one more setting."""

    def change(text):
        return text.replace('"units"', f'{setting}, "units"')

    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as file:
            contents = {name: file.read(name) for name in file.namelist()}
        contents["config.json"] = change(contents["config.json"].decode()).encode()
        contents["metadata.json"] = json.dumps({"keras_version": version}).encode()
        with zipfile.ZipFile(path, "w") as file:
            for name, content in contents.items():
                file.writestr(name, content)
    else:
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = change(file.attrs["model_config"])
            file.attrs["keras_version"] = version
    return path


class Doubled(layers.Layer):
    def call(self, x):
        return x * 2


def tripled(x):
    return x * 3


def test_a_layer_of_the_users(keras_file):
    refusal(keras_file(Doubled()), ["Doubled", "cannot be loaded", "docs/guide/own_model.md"])


def test_a_function_of_the_users(keras_file):
    model = keras_file(layers.Dense(2, activation=tripled))
    refusal(model, ["It needs tripled, not part of Keras", "docs/guide/own_model.md"])


def test_what_the_program_has_registered_is_loaded(keras_file):
    path = keras_file(Doubled(), layers.Dense(2, activation=tripled))
    with keras.utils.custom_object_scope({"Doubled": Doubled, "tripled": tripled}):
        frozen = load_frozen(path)
    assert {"Mul", "MatMul"} <= {node.op for node in frozen.graph_def.node}


def test_a_loss_of_the_users_does_not_matter(keras_file):
    model = keras.Sequential([layers.Input((4,)), layers.Dense(2)])
    model.compile("sgd", loss=lambda expected, found: expected - found)
    path = keras_file()
    model.save(path)
    assert load_frozen(path).outputs.keys() == {"Identity"}


def test_code_in_a_file_is_not_run(keras_file, workdir):
    path = keras_file(layers.Lambda(lambda x: Path("was_run").touch() or x, output_shape=(4,)))
    Path("was_run").unlink(missing_ok=True)  # the program that made the model may have run it
    refusal(path, ["Lambda", "docs/guide/own_model.md"])
    assert not (workdir / "was_run").exists()


def test_code_as_keras_2_describes_it(keras_file):
    refusal(describe(keras_file(layers.Dense(2)), "2.11.0", '"function_type": "lambda"'), ["Python code"])


def test_a_newer_keras(keras_file):
    path = describe(keras_file(layers.Dense(2)), "99.1.0", '"unheard_of": 1')
    refusal(path, ["unheard_of", "Keras 99.1.0, which is newer", "install that"])


def test_keras_2(keras_file):
    path = describe(keras_file(layers.Dense(2)), "2.15.0", '"unheard_of": 1')
    refusal(path, ["Keras 2.15.0", "TF_USE_LEGACY_KERAS=1"])


def test_inputs_that_are_not_known(tmp_path):
    keras.Sequential([layers.Dense(2)]).save(tmp_path / "model.keras")
    refusal(tmp_path / "model.keras", ["inputs", "tf.keras.Input"])


def test_a_lookup_in_a_keras_model(tmp_path):
    words = layers.Input((1,), dtype=tf.string)
    keras.Model(words, layers.StringLookup(vocabulary=["a", "b"])(words)).save(tmp_path / "model.keras")
    refusal(tmp_path / "model.keras", ["Lookup", "cannot become a constant"])


def test_a_layer_that_cannot_be_called(tmp_path):
    """Keras builds it, and says when it is called what is wrong."""
    keras.Sequential([layers.Input((4,)), layers.RandomFlip()]).save(tmp_path / "model.keras")
    refusal(tmp_path / "model.keras", ["Expected image tensor to have rank 3"])


def test_weights_alone(tmp_path):
    model = network()
    model.save_weights(tmp_path / "model.weights.h5")
    refusal(tmp_path / "model.weights.h5", ["no model_config", "model.save()"])


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9, 0.99])
def test_a_truncated_keras_file(keras_file, share):
    path = keras_file(layers.Dense(2), layers.Dense(3))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refusal(path, ["damaged"])


@pytest.mark.parametrize("seed", range(3))
def test_a_keras_file_with_flipped_bytes(keras_file, seed):
    """Either nothing of what is needed was hit, or one line says what is wrong."""
    path = keras_file(layers.Dense(2))
    data, generator = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for position in generator.integers(0, len(data), 20):
        data[position] ^= 0xFF
    path.write_bytes(data)
    try:
        load_frozen(path)
    except ModelError as error:
        assert len(str(error).splitlines()) == 1


# -------------------------------------------------------------------------------------------------------- Outputs


def test_an_output_that_is_not_there(keras_file):
    path = keras_file(layers.Dense(2, name="scores"))
    with pytest.raises(ModelError, match=r"'scores' is not a node of .*Its outputs are 'Identity' \(scores\)\."):
        FloatModel.load(path, ["scores"])
    with pytest.raises(ModelError, match="give the operator 'Identity'"):
        FloatModel.load(path, ["Identity:0"])
