"""What happens between a model and a data set: losses, metrics, callbacks, evaluation, reports."""

import os

from training import lean_start, quiet_start
from utils import user_cache_dir

quiet_start.install()
lean_start.install()
# A user's keras.json is for other programs: its precision, layout of images or backend would make
# this one fail. Keras finds no file there, and can make none.
os.environ["KERAS_HOME"] = os.path.join(os.devnull, "keras")
# The faster convolutions, which TensorFlow takes by itself only on some Intel processors: on an AMD
# one (Zen 3) a step takes 0.6 to 0.8 of the time, see docs/results.md.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# JAX compiles a program of the same shapes and flags once, and later starts read it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(user_cache_dir() / "jax"))
