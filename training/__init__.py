"""What happens between a model and a data set: losses, metrics, callbacks, evaluation, reports."""

import os

# TensorFlow's notes on the CPU's instructions and absent drivers would bury the one line that a
# user's mistake gets. It reads this when it is first imported; whoever wants them sets it to 0.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
