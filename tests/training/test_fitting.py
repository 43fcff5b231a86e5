"""Which epochs are evaluated, and that an evaluation is the one a run ends with."""

import numpy as np
import pytest

from training import fitting

from .small_run import Run


@pytest.fixture(scope="module")
def run():
    return Run("--epochs 4 --val_every 3 --embedding onehot --cls_weight 0.1 --top_k_acc 2".split())


def test_epochs_that_are_not_due_have_empty_columns(run):
    judged = [row["epoch"] for row in run.rows if row["val_loss"] is not None]
    assert judged == [3, 4]
    assert all(row.keys() == run.rows[0].keys() for row in run.rows)
    assert {f"val_{name}" for name in run.rows[0] if f"val_{name}" in run.rows[0]} == {
        name for name in run.rows[0] if name.startswith("val_")
    }
    assert run.history.best_epoch("val_prob_acc")["epoch"] in judged


def test_scores_are_those_of_keras_where_both_average_images(run):
    """The classes' accuracies of Keras' own evaluation, of the same weights."""
    batches, _ = run.test
    scores = run.model.evaluate(batches, return_dict=True, verbose=0)
    for name in ("embedding_acc", "prob_acc", "embedding_top2_acc", "prob_top2_acc"):
        assert run.rows[-1][f"val_{name}"] == pytest.approx(scores[name], abs=1e-6)
    assert run.rows[-1]["val_prob_loss"] == pytest.approx(scores["prob_mean_loss"], rel=1e-5)


def test_when_an_evaluation_is_due():
    validation = fitting.Validation(None, np.zeros(1), every=10, also_after=[12, 36, 50])
    assert [n for n in range(1, 51) if validation.is_due(n)] == [10, 12, 20, 30, 36, 40, 50]
    at_the_end = fitting.Validation(None, np.zeros(1), every=0, also_after=[50])
    assert [n for n in range(1, 51) if at_the_end.is_due(n)] == [50]
