"""What happens between a model and a data set: losses, metrics, callbacks, evaluation, reports."""

from training import lean_start, quiet_start

quiet_start.install()
lean_start.install()
