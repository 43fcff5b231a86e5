"""A run with all its files, of a network whose training takes a second."""

import keras
import numpy as np

import models
from training import data
from training.devices import distribution
from training.flags import arguments
from training.learning import losses
from training.reporting import epochs, evaluation, report

FLAGS = "--dataset digits-sub30 --architecture fast-cnn --epochs 2 --batch_size 20".split()


def tiny_model(names, embedding=False):
    """A network with maps that are pooled."""
    images = keras.Input((None, None, 3), name="image")
    x = models.Standardize((80,) * 3, (90,) * 3, name="standardize")(images)
    x = keras.layers.Conv2D(12, 3, activation="relu", name="conv")(x)
    x = keras.layers.GlobalMaxPooling2D(name="pool")(x)
    if embedding:
        x = keras.layers.Dense(len(names), name="embedding")(x)
        head = models.EmbeddingOutput(len(names), name="head")
        x = head(x)
        head.class_embeddings.assign(np.eye(len(names)))
    else:
        x = keras.layers.Dense(len(names), activation="softmax", name="prob")(x)
    info = {
        "dataset": "digits", "image_size": 8, "test_resize": 8, "seed": 0, "cls_weight": 0.0,
        "label_smoothing": 0.0, "loss": "inv_corr" if embedding else "cross_entropy",
    }  # fmt: skip
    return models.ImageClassifier(images, x, class_names=names, info=info)


def make_run(directory, *flags, embedding=False):
    """Trains, and writes what `learn_classifier.py` writes.

    Returns:
        Arguments, model, data set and evaluation.
    """
    given = [*FLAGS, *flags, "--seed", "1", "--output", str(directory)]
    given += ["--embedding", "onehot"] if embedding else []
    args = arguments.check_training_arguments(arguments.training_parser().parse_args(given))
    keras.utils.set_random_seed(1)
    dataset = data.load_dataset(args)
    model = tiny_model(dataset.class_names, embedding)
    losses.compile_model(args, model)
    model.optimizer.learning_rate = 0.1
    batches = data.make_batches(args, dataset)
    history = epochs.EpochReport(batches.images_per_epoch, args.epochs, str(directory), False)
    model.fit(
        batches.train, validation_data=batches.validation, epochs=2, callbacks=[history], verbose=0
    )
    result = evaluation.evaluate(model, batches.test, dataset.test.labels)
    models.save_model(model, args.model_dump)
    names = dataset.image_names(dataset.test)
    report.write_predictions(directory / "predictions.csv", names, result, dataset.class_names)
    devices = distribution.Distribution(("cpu:0",), "none")
    best = history.best_epoch("val_acc")
    report.write_result(args, model, dataset, result, best, 3.0, devices)
    return args, model, dataset, result
