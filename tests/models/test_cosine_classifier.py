"""Classification by learned class vectors, against float64 NumPy and its finite differences."""

import keras
import numpy as np
import pytest
from keras import ops

from models import CosineClassifier, CosineHead, build_model, load_model, save_model
from models.heads import CLASSIFICATION_LOSSES
from training.learning.losses import CrossEntropy, output_losses
from training.learning.network_flags import CLASSIFICATION_LOSS_NAMES

CLASSES, DIM, BATCH = 4, 6, 5


def numpy_loss(loss, kappa, features, kernel, raw_scale, labels):
    """The mean cross entropy, from the formulas of the papers."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = unit @ (kernel / np.linalg.norm(kernel, axis=0))
    if loss == "t-vmf":
        cosine = (1 + cosine) / (1 + kappa * (1 - cosine)) - 1
    logits = cosine * (1 + np.log1p(np.exp(raw_scale)))
    return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels])


@pytest.mark.parametrize(
    ("loss", "kappa"), [("normface", 16.0), ("t-vmf", 16.0), ("t-vmf", 0.0), ("t-vmf", -0.3)]
)
def test_loss_and_gradients(loss, kappa, gradient):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(BATCH, DIM)), rng.normal(size=(DIM, CLASSES)), np.array(0.7)]
    labels = rng.integers(CLASSES, size=BATCH)
    layer = CosineClassifier(CLASSES, loss, kappa)
    layer.build((None, DIM))
    cross_entropy = CrossEntropy()

    def function(index, value):
        given = [ops.convert_to_tensor(v, "float32") for v in values]
        given[index] = value
        outputs, _ = layer.stateless_call(given[1:], [], given[0])
        return ops.mean(cross_entropy.call(labels, outputs))

    expected = numpy_loss(loss, kappa, *values, labels)
    assert float(function(2, np.float32(0.7))) == pytest.approx(expected, rel=1e-5)
    for index, value in enumerate(values):
        wanted = np.zeros_like(value)
        for place in np.ndindex(*value.shape):
            moved = [[v.copy() for v in values] for _ in range(2)]
            moved[0][index][place] += 1e-6
            moved[1][index][place] -= 1e-6
            ahead, behind = (numpy_loss(loss, kappa, *m, labels) for m in moved)
            wanted[place] = (ahead - behind) / 2e-6
        found = gradient(lambda v, index=index: function(index, v), value.astype("float32"))
        np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=1e-3)


def test_the_losses_by_name():
    assert tuple(CLASSIFICATION_LOSSES) == CLASSIFICATION_LOSS_NAMES


def test_similarities_at_the_ends():
    """Both agree for vectors in the same and in opposite directions; between, t-vMF is below."""
    cosines = np.array([1.0, 0.5, 0.0, -1.0])
    assert CLASSIFICATION_LOSSES["normface"].similarity(cosines, 16.0) is cosines
    found = CLASSIFICATION_LOSSES["t-vmf"].similarity(cosines, 16.0)
    np.testing.assert_allclose(found, [1.0, 1.5 / 9 - 1, 1 / 17 - 1, -1.0])


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_first_scales(classes):
    t_vmf, normface = (CosineClassifier(classes, loss) for loss in ("t-vmf", "normface"))
    t_vmf.build((None, DIM))
    assert float(t_vmf.raw_scale) == pytest.approx(0, abs=1e-6)
    assert float(t_vmf.scale) == pytest.approx(1 + np.log(2))
    # Features at their class vector, and class vectors that are as far apart as they can be.
    normface.build((None, classes))
    simplex = np.eye(classes) - 1 / classes
    normface.kernel.assign(simplex)
    found = np.diag(ops.convert_to_numpy(normface(simplex.astype("float32"))))
    np.testing.assert_allclose(found, 0.99, rtol=1e-5)


@pytest.mark.parametrize("zero", ["features", "class vectors"])
def test_vectors_of_length_0_have_finite_gradients(zero, gradient):
    layer = CosineClassifier(CLASSES, "t-vmf")
    layer.build((None, DIM))
    features = np.ones((1, DIM), "float32")
    if zero == "features":
        features *= 0
    else:
        layer.kernel.assign(np.zeros((DIM, CLASSES)))
    found = gradient(lambda x: ops.log(layer(x)[0, 0]), features)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("arguments", [("arcface",), ("t-vmf", -0.5), ("t-vmf", float("nan"))])
def test_what_is_no_loss(arguments):
    with pytest.raises(ValueError, match=r"loss must be one of|kappa must be a number above"):
        CosineClassifier(3, *arguments)


def test_a_network_with_a_cosine_classifier(tmp_path):
    model = build_model(
        "resnet-32",
        ["a", "b", "c"],
        head=CosineHead("t-vmf", 8.0),
        weight_decay=0.5,
        info={"loss": "t-vmf", "cls_weight": 0.0, "label_smoothing": 0.1},
    )
    layer = model.get_layer("prob")
    assert [tuple(weight.shape) for weight in layer.weights] == [(64, 3), ()]
    assert layer.kernel.regularizer.l2 == 0.5
    assert layer.raw_scale.regularizer is None
    [(name, (loss, weight))] = output_losses(model).items()
    assert (name, loss.label_smoothing, weight) == ("prob", 0.1, 1.0)

    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype("uint8")
    save_model(model, tmp_path / "m.keras")
    again = load_model(tmp_path / "m.keras")
    assert again.get_layer("prob").kappa == 8.0
    classes, scores = again.classify(images)
    np.testing.assert_array_equal(scores, model.classify(images)[1])
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(classes, scores.argmax(1))
    assert keras.ops.dtype(again(images)) == "float32"
