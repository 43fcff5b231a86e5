"""`learn_classifier.py`, all of it, with the small network in place of the architecture's.

python -m tests.training.small_command FLAGS
"""

import learn_classifier
from utils import run_script


def build_classifier(args, dataset):
    import models
    from training.learning import losses

    from .small_run import small_model

    model = small_model(args)
    models.set_batch_norm_groups(model, args.bn_groups // models.num_replicas())
    losses.compile_model(args, model)
    return model


if __name__ == "__main__":
    learn_classifier.build_classifier = build_classifier
    run_script(learn_classifier.main)
