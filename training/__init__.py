"""What happens between a model and a data set: losses, metrics, callbacks, evaluation, reports."""

import os

from training import lean_start, quiet_start

quiet_start.install()
lean_start.install()
# A user's keras.json is for other programs: its precision, layout of images or backend would make
# this one fail. Keras finds no file there, and can make none.
os.environ["KERAS_HOME"] = os.path.join(os.devnull, "keras")
