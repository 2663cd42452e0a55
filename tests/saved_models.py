"""Small models in every form, as programs of today and of TensorFlow 1 save them."""

import numpy as np
import tensorflow as tf
from graphs import normal, tf1

from amct_tensorflow.model.model_file import import_graph

IMAGES = normal((4, 8, 8, 4), 1)


def network():
    """Convolutions of every kind, BatchNorm with statistics of its own, and a name for what goes in."""
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            layers.Input((8, 8, 4), name="images"),
            layers.Conv2D(8, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(8, 1, groups=2),  # which Keras puts into a function that it numbers
            layers.DepthwiseConv2D(3),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(5, activation="softmax", name="scores"),
        ],
        name="network",
    )
    batch_norm = model.layers[1]
    batch_norm.set_weights([np.abs(normal(weights.shape, 2)) + 0.5 for weights in batch_norm.get_weights()])
    return model


def two_ways():
    """Two inputs and two outputs, in dicts whose order is not that of the layers."""
    layers = tf.keras.layers
    side, image = layers.Input((3,), name="side"), layers.Input((4, 4, 2), name="image")
    features = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3)(image)), side])
    boxes, scores = layers.Dense(4, name="boxes")(features), layers.Dense(2, name="scores")(features)
    return tf.keras.Model({"side": side, "image": image}, {"scores": scores, "boxes": boxes})


def loop():
    """A recurrent layer, that is a while loop."""
    layers = tf.keras.layers
    series = layers.Input((6, 3), name="series")
    return tf.keras.Model(series, layers.Dense(2)(layers.LSTM(4)(series)))


def save_as_tensorflow_1(folder, use_resource):
    """Writes a SavedModel with reference or resource variables; returns the scores for ``IMAGES``."""
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        images = tf1.placeholder(tf.float32, [None, 8, 8, 4], name="input")
        weights = tf1.get_variable("conv/weights", initializer=normal((3, 3, 4, 2), 3), use_resource=use_resource)
        features = tf.nn.relu(tf.nn.conv2d(images, weights, 1, "SAME", name="conv/Conv2D"), name="conv/Relu")
        scores = tf.reduce_mean(features, [1, 2], name="Predictions/Mean")
        tf1.train.get_or_create_global_step()
        session.run(tf1.global_variables_initializer())
        tf1.saved_model.simple_save(session, str(folder), {"images": images}, {"scores": scores, "features": features})
        return session.run(scores, {images: IMAGES})


class Module(tf.Module):
    """Functions to be exported as signatures."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable(normal((3, 3, 4, 2), 3))
        self.calls = tf.Variable(0)
        initializer = tf.lookup.KeyValueTensorInitializer([1, 2], [3.0, 4.0])
        self.table = tf.lookup.StaticHashTable(initializer, 0.0)
        self.generator = tf.random.Generator.from_seed(1)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 4], tf.float32, name="images")])
    def convolve(self, images):
        return {"features": tf.nn.conv2d(images, self.weights, 1, "SAME")}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="keys")])
    def look_up(self, keys):
        return {"values": self.table[keys]}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 4], tf.float32, name="images")])
    def count(self, images):
        self.calls.assign_add(1)
        return {"features": tf.nn.conv2d(images, self.weights, 1, "SAME"), "calls": self.calls}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 4], tf.float32, name="images")])
    def draw(self, images):
        return {"features": images + self.generator.normal([4])}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 4], tf.float32, name="images")])
    def call_python(self, images):
        return {"features": tf.py_function(lambda values: values * 2, [images], tf.float32)}


def compute(frozen, output, feeds):
    """Runs a FrozenModel."""
    with tf1.Session(graph=import_graph(frozen.graph_def, "frozen")) as session:
        return session.run(f"{output}:0", {f"{name}:0": value for name, value in feeds.items()})
