"""`learn_classifier.py`, all of it, with the small network in place of the architecture's.

python -m tests.training.small_command FLAGS

pauses before every step, for `PAUSE` seconds, a variable of the environment.
"""

import os
import sys
import time

import learn_classifier
from utils import run_script


def build_classifier(args, dataset):
    import models
    from training.learning import losses
    from training.resuming import saving

    from .small_run import small_model

    pause, begin = float(os.environ.get("PAUSE", 0)), saving.Snapshots.on_train_batch_begin

    def pausing(self, batch, logs=None):
        time.sleep(pause)
        begin(self, batch, logs)

    saving.Snapshots.on_train_batch_begin = pausing
    model = small_model(args)
    models.set_batch_norm_groups(model, args.bn_groups // models.num_replicas())
    losses.compile_model(args, model)
    return model


if __name__ == "__main__":
    learn_classifier.build_classifier = build_classifier
    sys.argv[0] = "learn_classifier.py"
    run_script(learn_classifier.main)
