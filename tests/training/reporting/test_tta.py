"""Scores of images together with their mirror images."""

from argparse import Namespace

import keras
import numpy as np
import pytest
from PIL import Image

import datasets
from training.reporting import evaluation, report

from ..small_run import small_model

KINDS = {
    "cross entropy": {"embedding": None, "cls_weight": 0},
    "cosine": {"embedding": "onehot", "cls_weight": 0},
    "both": {"embedding": "onehot", "cls_weight": 0.5},
}


@pytest.fixture(scope="module")
def digits():
    dataset = datasets.load_dataset("digits")
    dataset.test = dataset.test.take(np.arange(60))
    return dataset


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_losses_are_means_of_both_views(kind, digits):
    keras.utils.set_random_seed(0)
    model = small_model(Namespace(**KINDS[kind]))
    model.info |= {"image_size": 8, "test_resize": 8}
    labels = digits.test.labels

    def evaluate(**options):
        batches = digits.test_batches(25)
        return evaluation.evaluate(model, batches, labels, top_k=[3], **options)

    both = evaluate(tta="flip", features=kind == "cosine")
    plain, images = evaluate(features=kind == "cosine"), digits.test.images
    digits.test.images = images[:, :, ::-1]
    mirrored = evaluate()
    digits.test.images = images
    expected = (plain.class_scores + mirrored.class_scores) / 2
    np.testing.assert_allclose(both.class_scores, expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(plain.class_scores, expected, atol=1e-3)
    assert both.scores.keys() == plain.scores.keys()
    assert both.scores["acc"] == evaluation.accuracy(expected, labels)
    for name in plain.scores:
        if name.endswith("loss"):
            mean = (plain.scores[name] + mirrored.scores[name]) / 2
            assert both.scores[name] == pytest.approx(mean, rel=1e-5)
    if kind == "cosine":
        np.testing.assert_allclose(both.features, plain.features, atol=1e-6)


def test_files_have_the_same_scores(digits, tmp_path):
    keras.utils.set_random_seed(0)
    model = small_model(Namespace(**KINDS["both"]))
    model.info |= {"image_size": 8, "test_resize": 8}
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, digits.test.images, strict=False):
        Image.fromarray(image).save(path)
    scores = [scores for _, scores in model.score_files(paths, 2, mirrored=True)]
    both = evaluation.evaluate(model, digits.test_batches(60), digits.test.labels, tta="flip")
    np.testing.assert_allclose(scores, both.class_scores[:5], rtol=1e-5, atol=1e-6)


def test_the_last_lines_say_both():
    labels = np.array([0, 1])

    def result(second):
        scores = np.array([[0.9, 0.1], second])
        return evaluation.Evaluation(
            evaluation.accuracies(scores, labels, []), scores, labels, None
        )

    right, wrong = result([0.2, 0.8]), result([0.8, 0.2])
    lines = report.final_lines(
        right, {"epoch": 1, "val_acc": 0.5}, "test", {"without_tta": wrong}
    ).splitlines()
    assert [line.partition(" (")[0] for line in lines if line.startswith("Test")] == [
        "Test without tta: test_acc: 0.5000",
        "Test: test_acc: 1.0000",
    ]
