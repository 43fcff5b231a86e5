"""The numbers of a run, with their uncertainty."""

import csv
import re
from argparse import Namespace

import numpy as np
import pytest
from scipy.stats import binomtest

from experiments.runs import read_predictions
from training.reporting import report
from training.reporting.evaluation import Evaluation, Member, ensemble, wilson_interval
from utils import UserError


@pytest.mark.parametrize(("hits", "images"), [(0, 20), (7, 10), (558, 797), (50, 50)])
def test_wilson_interval(hits, images):
    expected = binomtest(hits, images).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, images) == pytest.approx(tuple(expected), rel=1e-12)


def test_predictions_have_the_best_five_classes(tmp_path):
    scores = np.array([[0.1, 0.2, 0.3, 0.15, 0.05, 0.2], [1, 0, 0, 0, 0, 0]], "float32")
    result = Evaluation({"acc": 0.5, "average_acc": 0.5}, scores, np.array([1, 0]), None)
    classes = ["a", "b, c", 'd"e', "line\nbreak", "f", "g"]
    names = ["x.jpg", "caf\udce9.jpg"]  # one is not UTF-8
    report.write_predictions(tmp_path / "predictions.csv", names, result, classes)
    assert read_predictions(tmp_path) == dict(zip(names, [False, True], strict=True))
    with open(tmp_path / "predictions.csv", newline="", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0].values()) == [
        *("x.jpg", "b, c", 'd"e', "0.300000", "b, c", "0.200000", "g", "0.200000"),
        *("line\nbreak", "0.150000", "a", "0.100000"),
    ]
    assert rows[1]["predicted"] == rows[1]["true"] == "a"


def test_what_cannot_be_written_keeps_nothing_else_from_being_so(tmp_path):
    def write_all(snapshot=None):
        with report.all_written(snapshot) as written:
            for flag, name in (("--first", "none/a"), ("--second", "b"), ("--third", "none/c")):
                with written(flag):
                    (tmp_path / name).write_text("x")

    with pytest.raises(UserError, match=r"--first .*none/a: No such file .*; --third .*none/c: No"):
        write_all()
    assert (tmp_path / "b").read_text() == "x"
    with pytest.raises(UserError, match=r"asked for is$"):
        write_all(tmp_path / "no snapshot")
    with pytest.raises(UserError, match=r"repeat the command: it goes on from --snapshot .*/b and"):
        write_all(tmp_path / "b")


@pytest.mark.parametrize(
    ("flags", "images", "line"),
    [
        ({}, 81, "only 36 steps in all, where .* more --epochs, or a smaller --batch_size, makes"),
        ({"images_seen": 300}, 5, "only 4 steps in all, where .*: more --images_seen, or"),
        ({"finetune": "w.h5"}, 81, None),
        ({"epochs": 20}, 500, None),
    ],
)
def test_a_training_of_few_steps_is_advised_to_take_more(flags, images, line):
    args = Namespace(
        **{"epochs": 4, "batch_size": 10, "finetune": None, "images_seen": None, **flags}
    )
    said = report.few_steps(args, images)
    assert re.match(line, said) if line else said is None


class TwoClasses:
    class_ids = class_names = ("a", "b")
    output_names = ("prob",)


def member(*scores, images=("x", "y"), model=TwoClasses):
    scores = np.array(scores)
    return Member(model, list(images), Evaluation({}, scores, np.array([0, 1]), None))


def test_an_ensemble_is_the_mean_of_the_scores():
    together = ensemble([member([0.9, 0.1], [0.6, 0.4]), member([0.4, 0.6], [0.3, 0.7])])
    np.testing.assert_allclose(together.result.class_scores, [[0.65, 0.35], [0.45, 0.55]])
    assert together.result.scores == {"acc": 1.0, "average_acc": 1.0}
    assert together.result.uncertainty()["n"] == 2


def test_models_of_other_images_classes_or_kinds_make_no_ensemble(caplog):
    class OtherClasses(TwoClasses):
        class_ids = ("a", "c")

    class Similarities(TwoClasses):
        output_names = ("embedding",)

    one = member([1, 0], [0, 1])
    for other, what in (
        (member([1, 0], [0, 1], images=("x", "z")), "test images"),
        (member([1, 0], [0, 1], model=OtherClasses), "classes"),
        (member([1, 0], [0, 1], model=Similarities), "kinds of scores"),
    ):
        assert ensemble([one, other]) is None
        assert f"different {what}" in caplog.text
        caplog.clear()
