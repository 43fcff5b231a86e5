"""What happens between a model and a data set: losses, metrics, callbacks, evaluation, reports."""

from training import quiet_start

quiet_start.install()
