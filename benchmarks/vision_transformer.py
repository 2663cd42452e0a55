"""ViT-Tiny (Dosovitskiy et al. 2021, with the width of Touvron et al. 2021), as Keras programs write it."""

from typing import Any

import tensorflow as tf

PATCH, WIDTH, BLOCKS, HEADS, CLASSES = 16, 192, 12, 3, 1000


class Tokens(tf.keras.layers.Layer):  # type: ignore[misc] # Keras has no types
    """Puts a learned token in front of the patches, and adds learned positions to all of them."""

    def build(self, shape: Any) -> None:
        """Makes the weights, of patches [n, count, width]."""
        normal = tf.keras.initializers.RandomNormal(stddev=0.5)
        self.token = self.add_weight(shape=(1, 1, shape[2]), initializer=normal, name="token")
        self.positions = self.add_weight(shape=(1, shape[1] + 1, shape[2]), initializer=normal, name="positions")

    def call(self, patches: tf.Tensor) -> tf.Tensor:
        """Returns tokens [n, count + 1, width]."""
        token = tf.repeat(self.token, tf.shape(patches)[0], axis=0)
        return tf.concat([token, patches], 1) + self.positions


def vit_tiny(size: int) -> tf.keras.Model:
    """Returns the network with random weights, of images [n, size, size, 3]; it ends in logits."""
    layers = tf.keras.layers
    images = layers.Input((size, size, 3))
    patches = layers.Conv2D(WIDTH, PATCH, PATCH)(images)
    x = Tokens()(layers.Reshape((-1, WIDTH))(patches))
    for _ in range(BLOCKS):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(y, y)])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.Dense(WIDTH)(layers.Dense(4 * WIDTH, activation="gelu")(y))
        x = layers.Add()([x, y])
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return tf.keras.Model(images, layers.Dense(CLASSES)(x[:, 0]))
