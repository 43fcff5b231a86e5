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


@pytest.fixture(params=["float32", "mixed_bfloat16", "mixed_float16"])
def policy(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


@pytest.fixture(params=["backend's path", "keras.ops"])
def path(request, monkeypatch):
    """Batch normalisation of images as the backend in use does it, and as the others do it."""
    if request.param == "keras.ops":
        monkeypatch.setattr(keras.backend, "backend", lambda: "another")
