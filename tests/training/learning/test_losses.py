"""Losses and metrics against independent float64 NumPy, on the backend that runs the tests."""

import keras
import numpy as np
import pytest
from keras import ops

import models
from models.heads import EmbeddingOutput
from training.flags import arguments
from training.learning import losses, metrics
from training.learning.network_flags import EMBEDDING_LOSS_NAMES

CLASSES, DIM, BATCH = 5, 7, 6


def numpy_loss(kind, features, targets):
    """The losses of the paper, from features before the head, in float64."""
    if kind == "inv_corr":
        norm = np.linalg.norm(features, axis=1, keepdims=True)
        unit = np.divide(features, norm, out=np.zeros_like(features), where=norm > 0)
        return 1 - np.sum(targets * unit, axis=1)
    if kind == "softmax_corr":
        e = np.exp(features - features.max(axis=1, keepdims=True))
        return 1 - np.sum(targets * e / e.sum(axis=1, keepdims=True), axis=1)
    if kind == "unnorm_corr":
        return 1 - np.sum(targets * features, axis=1)
    return np.sum((targets - features) ** 2, axis=1)


def numpy_cross_entropy(logits, labels, smoothing):
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_prob = shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))
    targets = np.full(logits.shape, smoothing / (logits.shape[1] - 1))
    targets[np.arange(len(labels)), labels] = 1 - smoothing
    return -np.sum(targets * log_prob, axis=1)


def numeric_gradient(function, x, step=1e-6):
    """Central differences of the mean of `function` in float64."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (function(ahead).mean() - function(behind).mean()) / (2 * step)
    return gradient


def value_and_gradient(function, x):
    """The mean of `function` and its gradient at x, by the backend."""
    x = np.asarray(x, "float32")
    if keras.backend.backend() == "jax":
        import jax

        value, gradient = jax.value_and_grad(lambda v: ops.mean(function(v)))(x)
        return float(value), np.asarray(gradient)
    import tensorflow as tf

    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        value = ops.mean(function(variable))
    return float(value), tape.gradient(value, variable).numpy()


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.mark.parametrize("kind", losses.EMBEDDING_LOSSES)
@pytest.mark.parametrize("one_hot", [True, False])
def test_embedding_loss_and_gradient(kind, one_hot, rng):
    phi = np.eye(CLASSES, DIM) if one_hot else rng.normal(size=(CLASSES, DIM))
    features = rng.normal(size=(BATCH, DIM))
    labels = rng.integers(CLASSES, size=BATCH)
    head = EmbeddingOutput(CLASSES, losses.EMBEDDING_LOSSES[kind].output)
    head.build((None, DIM))
    loss = losses.EmbeddingLoss(kind, phi)
    np.testing.assert_allclose(
        loss.call(labels, head(features)), numpy_loss(kind, features, phi[labels]), atol=2e-6
    )
    _, gradient = value_and_gradient(lambda x: loss.call(labels, head(x)), features)
    wanted = numeric_gradient(lambda x: numpy_loss(kind, x, phi[labels]), features)
    np.testing.assert_allclose(gradient, wanted, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", losses.EMBEDDING_LOSSES)
def test_a_zero_feature_vector_has_a_finite_loss_and_gradient(kind):
    head = EmbeddingOutput(DIM, losses.EMBEDDING_LOSSES[kind].output)
    head.build((None, DIM))
    loss = losses.EmbeddingLoss(kind, np.eye(DIM))
    labels = np.array([3])
    value, gradient = value_and_gradient(lambda x: loss.call(labels, head(x)), np.zeros((1, DIM)))
    assert value == pytest.approx(numpy_loss(kind, np.zeros((1, DIM)), np.eye(DIM)[labels])[0])
    assert np.isfinite(gradient).all()


def test_the_cosine_loss_is_between_0_and_2(rng):
    loss = losses.EmbeddingLoss("inv_corr", np.eye(DIM))
    head = EmbeddingOutput(DIM, "l2norm")
    head.build((None, DIM))
    features = np.concatenate([np.eye(DIM) * 3, -np.eye(DIM) * 0.1, rng.normal(size=(50, DIM))])
    labels = np.concatenate([np.arange(DIM), np.arange(DIM), rng.integers(DIM, size=50)])
    values = np.asarray(loss.call(labels, head(features)))
    np.testing.assert_allclose(values[:DIM], 0, atol=1e-6)
    np.testing.assert_allclose(values[DIM : 2 * DIM], 2, atol=1e-6)
    assert (values >= -1e-6).all()
    assert (values <= 2 + 1e-6).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("scale", [1.0, 15.0])
def test_cross_entropy_and_gradient(smoothing, scale, rng):
    logits = scale * rng.normal(size=(BATCH, CLASSES))
    labels = rng.integers(CLASSES, size=BATCH)
    loss = losses.CrossEntropy(smoothing)
    np.testing.assert_allclose(
        loss.call(labels, ops.softmax(ops.convert_to_tensor(logits, "float32"))),
        numpy_cross_entropy(logits, labels, smoothing),
        rtol=1e-5,
        atol=1e-5,
    )
    _, gradient = value_and_gradient(lambda x: loss.call(labels, ops.softmax(x)), logits)
    wanted = numeric_gradient(lambda x: numpy_cross_entropy(x, labels, smoothing), logits)
    np.testing.assert_allclose(gradient, wanted, atol=1e-5)


def test_cross_entropy_of_a_hopeless_prediction_is_finite_and_still_learns():
    loss = losses.CrossEntropy()
    # p(true) is about 3e-22, where Keras' own clipping at 1e-7 has no gradient left.
    logits = np.array([[0.0, 50.0]])
    labels = np.array([0])
    value, gradient = value_and_gradient(lambda x: loss.call(labels, ops.softmax(x)), logits)
    assert value == pytest.approx(50)
    np.testing.assert_allclose(gradient, [[-1, 1]], atol=1e-6)
    assert np.isfinite(np.asarray(loss.call(labels, np.array([[0.0, 1.0]], "float32")))).all()


def test_label_smoothing_is_not_that_of_keras():
    prob = np.array([[0.7, 0.2, 0.1]], "float32")
    value = float(np.asarray(losses.CrossEntropy(0.3).call(np.array([0]), prob))[0])
    assert value == pytest.approx(-(0.7 * np.log(0.7) + 0.15 * np.log(0.2) + 0.15 * np.log(0.1)))


def test_accuracy_counts_the_first_of_equal_scores():
    metric = metrics.ClassAccuracy()
    metric.update_state(np.array([0, 1, 1]), np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9]]))
    assert float(metric.result()) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
@pytest.mark.parametrize("k", [1, 3])
def test_accuracy_by_class_embedding(metric, k, rng):
    phi = rng.normal(size=(20, DIM)) * rng.uniform(0.5, 3, size=(20, 1))
    outputs = rng.normal(size=(200, DIM))
    labels = rng.integers(20, size=200)
    if metric == "dot":
        scores = outputs @ phi.T
    else:
        scores = -((outputs[:, None] - phi[None]) ** 2).sum(axis=2)
    best = np.argsort(-scores, axis=1)[:, :k]
    accuracy = metrics.ClassAccuracy(k, phi, metric)
    accuracy.update_state(labels[:90], outputs[:90])
    accuracy.update_state(labels[90:], outputs[90:])
    assert float(accuracy.result()) == pytest.approx(np.mean(best == labels[:, None]) * k)


@pytest.mark.parametrize(
    ("flags", "clip"), [("", 10.0), ("--clipgrad 0.5", 0.5), ("--clipgrad 0", 0)]
)
def test_gradients_are_clipped_by_their_global_norm(flags, clip):
    """As in Keras 2: the norm of all gradients together, not of each variable."""
    optimizer = optimizer_of(flags)
    optimizer.learning_rate = 1.0
    variables = [
        keras.Variable(np.zeros(3, "float32")),
        keras.Variable(np.zeros((2, 2), "float32")),
    ]
    gradients = [np.full(3, 30.0, "float32"), np.full((2, 2), -40.0, "float32")]
    norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients))
    optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        wanted = -gradient * (clip / norm if clip else 1)
        np.testing.assert_allclose(ops.convert_to_numpy(variable), wanted, rtol=1e-5)


def test_momentum():
    assert optimizer_of("").momentum == 0.9
    assert not optimizer_of("").nesterov
    assert optimizer_of("--nesterov").nesterov


def optimizer_of(flags):
    """The optimiser of a training with these flags."""
    args = arguments.training_parser().parse_args(flags.split())
    info = {"loss": "cross_entropy", "cls_weight": 0, "label_smoothing": 0}
    model = models.build_model("resnet-32-fc", ["a", "b"], info=info)
    losses.compile_model(args, model)
    return model.optimizer


def test_losses_of_mixed_images_are_weighted_means():
    rng = np.random.default_rng(0)
    outputs = rng.dirichlet(np.ones(4), 5).astype("float32")
    first, second = np.array([0, 1, 2, 3, -1]), np.array([3, 3, 2, 0, -1])
    weight = np.array([0.5, 0.7, 0.9, 1, 1])
    targets = np.stack([first, second, weight], axis=1).astype("float32")
    embedding = losses.EmbeddingLoss("inv_corr", np.eye(4))
    for loss in (losses.CrossEntropy(0.1), embedding, losses.EmbeddingLoss("mse", np.eye(4))):
        both = [ops.convert_to_numpy(loss.call(labels, outputs)) for labels in (first, second)]
        expected = weight * both[0] + (1 - weight) * both[1]
        actual = ops.convert_to_numpy(loss.call(ops.convert_to_tensor(targets), outputs))
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
        assert actual[-1] == 0
    accuracy = losses.ClassAccuracy()
    accuracy.update_state(
        ops.convert_to_tensor(targets), np.eye(4, dtype="float32")[[0, 3, 2, 3, 0]]
    )
    assert float(accuracy.result()) == 0.75  # the first labels', of four images that count


def test_the_names_of_the_losses_are_those_of_the_command_line():
    assert set(losses.EMBEDDING_LOSSES) == set(EMBEDDING_LOSS_NAMES)


@pytest.mark.parametrize("name", ["inv_corr", "cross_entropy"])
def test_the_label_minus_1_does_not_count(rng, name):
    outputs = rng.normal(size=(BATCH, CLASSES)).astype("float32")
    if name == "inv_corr":
        loss = losses.EmbeddingLoss(name, np.eye(CLASSES))
    else:
        loss = losses.CrossEntropy(label_smoothing=0.1)
        outputs = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    labels = np.array([3, 0, -1, 4, -1, 1])
    counts = labels >= 0
    values = ops.convert_to_numpy(loss.call(labels, outputs))
    alone = ops.convert_to_numpy(loss.call(labels[counts], outputs[counts]))
    np.testing.assert_array_equal(values[~counts], 0)
    np.testing.assert_allclose(values[counts], alone)
    mean, accuracy = metrics.MeanLoss(loss), metrics.ClassAccuracy()
    mean.update_state(labels, outputs)
    accuracy.update_state(labels, outputs)
    assert float(mean.result()) == pytest.approx(alone.mean(), rel=1e-6)
    hits = outputs.argmax(axis=1) == labels
    assert float(accuracy.result()) == pytest.approx(hits[counts].mean())


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(rng):
    """Of batches of 6 and, filled up to 4, of 3 images, with a weight decay that counts too."""
    images = keras.Input((4,))
    outputs = keras.layers.Dense(CLASSES, "softmax", kernel_regularizer="l2")(images)
    names = [str(i) for i in range(CLASSES)]
    info = {"loss": "cross_entropy", "cls_weight": 0, "label_smoothing": 0}
    model = models.ImageClassifier(images, outputs, class_names=names, info=info)
    losses.compile_classifier(model, keras.optimizers.SGD(0.0))
    x, y = rng.normal(size=(9, 4)).astype("float32"), rng.integers(CLASSES, size=9)

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            if index == 0:
                return x[:6], y[:6], np.ones(6, "float32")
            filled = [6, 7, 8, 6]
            labels = np.where(np.arange(4) < 3, y[filled], -1)
            return x[filled], labels, np.full(4, 4 / 3, "float32")

    scores = model.evaluate(Batches(), return_dict=True, verbose=0)
    logits = x.astype("float64") @ ops.convert_to_numpy(model.layers[-1].kernel).astype("float64")
    wanted = numpy_cross_entropy(logits, y, 0.0).mean() + float(sum(model.losses))
    assert scores["mean_loss"] == pytest.approx(wanted, rel=1e-6)
    assert scores["acc"] == pytest.approx(np.mean(logits.argmax(axis=1) == y))
