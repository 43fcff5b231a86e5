import keras
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

import models
from models import calibration
from utils import UserError


def _drawn(temperature, n=4000, classes=7, seed=0):
    """Logits whose softmax over a temperature says how often each class is right."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, classes)) * 3
    shares = scipy.special.softmax(logits / temperature, axis=1)
    labels = np.array([random.choice(classes, p=row) for row in shares])
    return logits, labels


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_is_found_again_and_minimises_the_loss(true):
    logits, labels = _drawn(true)

    found = calibration.fit_temperature(logits, labels)

    assert found == pytest.approx(true, rel=0.06)

    def loss(temperature):
        shares = scipy.special.softmax(logits / temperature, axis=1)
        return sklearn.metrics.log_loss(labels, shares)

    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01), loss(true) + 1e-12)


@pytest.mark.parametrize("scale", [0.02, 30.0])
def test_the_temperature_of_scaled_similarities_is_scaled(scale):
    logits, labels = _drawn(1.0, n=500)

    assert calibration.fit_temperature(logits * scale, labels) == pytest.approx(
        scale * calibration.fit_temperature(logits, labels), rel=1e-5
    )


def test_no_temperature_where_none_is_the_best():
    logits, labels = _drawn(1.0, n=200)

    with pytest.raises(UserError, match="at least 100 validation images, but there are 99"):
        calibration.fit_temperature(logits[:99], labels[:99])
    with pytest.raises(UserError, match="every validation image is classified rightly"):
        calibration.fit_temperature(logits, logits.argmax(axis=1))
    with pytest.raises(UserError, match="no more than chance"):
        calibration.fit_temperature(logits, logits.argmin(axis=1))


def test_scores_of_probabilities_are_those_of_scikit_learn():
    logits, labels = _drawn(1.0, n=300)
    shares = scipy.special.softmax(logits / 1.7, axis=1)

    ours = calibration.softmax(logits, 1.7)
    np.testing.assert_allclose(ours, shares, rtol=1e-12)
    assert calibration.negative_log_likelihood(ours, labels) == pytest.approx(
        sklearn.metrics.log_loss(labels, shares), rel=1e-12
    )
    assert calibration.brier_score(ours, labels) == pytest.approx(
        sklearn.metrics.brier_score_loss(labels, shares, scale_by_half=False), rel=1e-12
    )


def test_reliability_of_two_bins_by_hand():
    confidences = np.array([0.9, 0.3] * 20)
    hits = np.array([True, False] * 10 + [True, True] * 5 + [False, False] * 5)

    found = calibration.reliability(confidences, hits, bins=10)

    assert found.images.tolist() == [20, 20]
    np.testing.assert_allclose(found.confidence, [0.3, 0.9])
    np.testing.assert_allclose(found.accuracy, [0.25, 0.75])
    assert found.error == pytest.approx((0.05 + 0.15) / 2)
    # The quantiles of the binomial distribution.
    np.testing.assert_allclose(found.low, scipy.stats.binom.ppf(0.05, 20, [0.3, 0.9]) / 20)
    np.testing.assert_allclose(found.high, scipy.stats.binom.ppf(0.95, 20, [0.3, 0.9]) / 20)


def test_a_perfect_model_stays_within_its_band_and_a_confident_one_leaves_it():
    inside, errors = [], []
    for seed in range(20):
        logits, labels = _drawn(1.0, n=400, seed=seed)
        shares = scipy.special.softmax(logits, axis=1)
        hits = shares.argmax(axis=1) == labels
        found = calibration.reliability(shares.max(axis=1), hits, draws=200)
        inside.append(np.mean((found.accuracy >= found.low) & (found.accuracy <= found.high)))
        errors.append(found.error <= found.error_if_perfect)
    assert 0.85 < np.mean(inside) < 0.97
    assert np.mean(errors) >= 0.85
    sharp = scipy.special.softmax(logits * 3, axis=1)
    wrong = calibration.reliability(sharp.max(axis=1), hits, draws=200)
    assert wrong.error > 2 * wrong.error_if_perfect


def _model(embedding):
    images = keras.Input((None, None, 3), name="image")
    x = models.Standardize((127,) * 3, (60,) * 3, name="standardize")(images)
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if embedding:
        x = models.EmbeddingOutput(3, name="head")(x)
    else:
        x = keras.layers.Dense(3, activation="softmax", name="prob")(x)
    return models.ImageClassifier(images, x, class_names=list("abc"), info={"seed": 1})


def test_a_temperature_is_saved_and_makes_probabilities(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), "uint8")
    for embedding in (False, True):
        model = _model(embedding)
        _, scores = model.classify(images)
        assert model.temperature is None
        if embedding:
            with pytest.raises(ValueError, match="similarities"):
                model.probabilities(scores)
        else:
            np.testing.assert_allclose(model.probabilities(scores), scores, atol=1e-6)

        model.temperature = 0.3
        models.save_model(model, tmp_path / "m.keras")
        loaded = models.load_model(tmp_path / "m.keras")

        assert loaded.temperature == 0.3
        assert loaded.info["seed"] == 1
        logits = scores if embedding else np.log(scores.astype("float64"))
        expected = scipy.special.softmax(logits / 0.3, axis=1)
        np.testing.assert_allclose(loaded.probabilities(scores), expected, rtol=1e-5)
        # A run that is started again keeps it, and another model does not get it.
        again = _model(embedding)
        for same in (False, True):
            again.set_weights([w if same else 2 * w + 1 for w in loaded.get_weights()])
            models.keep_temperature(again, tmp_path / "m.keras")
            assert again.temperature == (0.3 if same else None)
        loaded.temperature = None
        assert "temperature" not in loaded.info
        models.keep_temperature(loaded, tmp_path / "missing.keras")
        assert loaded.temperature is None


def test_no_other_value_is_a_temperature(tmp_path):
    model = _model(False)
    for value in ("1", 0, -1.0, float("nan"), float("inf"), True, [1.0]):
        with pytest.raises(ValueError, match="a temperature must be a number"):
            model.temperature = value
    model.info = {"temperature": -1.0}
    models.save_model(model, tmp_path / "m.keras")
    with pytest.raises(UserError, match=r"its temperature is -1\.0"):
        models.load_model(tmp_path / "m.keras")
