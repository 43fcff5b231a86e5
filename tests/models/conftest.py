import keras
import numpy as np
import pytest

_ON_JAX = keras.backend.backend() == "jax"


@pytest.fixture(scope="session")
def gradient():
    """`gradient(function, array)`: the gradient of a scalar function, on the backend in use."""

    def gradient(function, array: np.ndarray) -> np.ndarray:
        if _ON_JAX:
            import jax

            return np.asarray(jax.grad(function)(array))
        import tensorflow as tf

        tensor = tf.constant(array)
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            value = function(tensor)
        return tape.gradient(value, tensor).numpy()

    return gradient
