import keras
import numpy as np
import pytest

from models.heads import EmbeddingOutput, as_class_embeddings, l2_normalize


def test_l2_normalize_and_its_gradient(gradient):
    """Against float64, with a zero vector and vectors of very different lengths."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 4)) * np.array([[1.0], [1e-3], [1e4], [0.0], [3.0]])
    targets = rng.normal(size=(5, 4))
    squared_norm = np.maximum((features**2).sum(1, keepdims=True), 1e-12)
    expected = features / np.sqrt(squared_norm)
    # d/dx <t, x/‖x‖> = (t − ψ <ψ, t>) / ‖x‖; for a zero vector only the first term is left.
    projected = targets - expected * (expected * targets).sum(1, keepdims=True)
    expected_gradient = projected / np.sqrt(squared_norm)

    features, targets = features.astype("float32"), targets.astype("float32")
    result = keras.ops.convert_to_numpy(l2_normalize(features))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-7)
    assert not result[3].any()
    result = gradient(lambda x: keras.ops.sum(l2_normalize(x) * targets), features)
    scale = np.abs(expected_gradient).max(1, keepdims=True)
    np.testing.assert_allclose(result / scale, expected_gradient / scale, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_l2_normalize_is_float32(dtype):
    features = keras.ops.cast(np.full((1, 4), 300.0), dtype)  # its square overflows a float16
    result = l2_normalize(features)
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(keras.ops.convert_to_numpy(result), 0.5, rtol=1e-6)


@pytest.mark.parametrize("transform", ["l2norm", "softmax", "linear"])
@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_outputs_and_class_scores(transform, metric):
    rng = np.random.default_rng(0)
    features, class_embeddings = rng.normal(size=(6, 4)), rng.normal(size=(3, 4))
    expected = {
        "l2norm": features / np.linalg.norm(features, axis=1, keepdims=True),
        "softmax": np.exp(features) / np.exp(features).sum(1, keepdims=True),
        "linear": features,
    }[transform]
    expected_scores = expected @ class_embeddings.T
    if metric == "euclidean":
        expected_scores = -((expected[:, None] - class_embeddings) ** 2).sum(-1)

    layer = EmbeddingOutput(3, transform, metric)
    outputs = layer(features)
    layer.class_embeddings.assign(class_embeddings)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(outputs), expected, rtol=1e-5)
    scores = keras.ops.convert_to_numpy(layer.class_scores(outputs))
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-6)
    copy = EmbeddingOutput.from_config(layer.get_config())
    assert (copy.num_classes, copy.transform, copy.metric) == (3, transform, metric)


def test_class_embeddings_do_not_train():
    layer = EmbeddingOutput(3)
    layer.build((None, 4))
    assert layer.trainable_variables == []


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.eye(3), r"shape \(3, 3\) for 4 classes"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((4, 0)), r"shape \(4, 0\)"),
        (np.full((4, 2), np.nan), "not finite"),
    ],
)
def test_unusable_class_embeddings(array, message):
    with pytest.raises(ValueError, match=message):
        as_class_embeddings(array, 4)


def test_unknown_forms():
    with pytest.raises(ValueError, match="transform"):
        EmbeddingOutput(3, transform="l1norm")
    with pytest.raises(ValueError, match="metric"):
        EmbeddingOutput(3, metric="cosine")
