import keras
import numpy as np
import pytest

import models
from reports.attention import grad_cam
from tests.programs import run
from tests.reports.made_run import tiny_model

IMAGES = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), "uint8")
CLASSES = np.array([0, 3, 2, 1, 3])


def slow_grad_cam(model, score_of_features):
    """The definition, image by image, with gradients by finite differences in float64."""
    to_maps = keras.Model(model.inputs, model.get_layer("pool").input)
    found = []
    for maps, c in zip(to_maps.predict(IMAGES, verbose=0).astype("float64"), CLASSES, strict=True):
        weights = np.zeros(maps.shape[-1])
        for place in np.ndindex(maps.shape):
            scores = []
            for step in (1e-6, -1e-6):
                moved = maps.copy()
                moved[place] += step
                scores.append(score_of_features(moved.max(axis=(0, 1)), c))
            weights[place[2]] += (scores[0] - scores[1]) / 2e-6
        cam = np.maximum(maps @ (weights / maps[..., 0].size), 0)
        found.append(cam / max(cam.max(), 1e-300))
    return np.array(found)


@pytest.mark.parametrize("embedding", [False, True])
def test_grad_cam_is_its_definition(embedding, tmp_path):
    keras.utils.set_random_seed(1)
    model = tiny_model(list("abcd"), embedding)
    dense = model.get_layer("embedding" if embedding else "prob")
    kernel, bias = (np.asarray(weight, "float64") for weight in dense.get_weights())

    def score(features, c):
        values = features @ kernel + bias
        return values[c] / np.linalg.norm(values) if embedding else values[c]

    expected = slow_grad_cam(model, score)
    assert expected.max() == 1
    np.testing.assert_allclose(grad_cam(model, IMAGES, CLASSES), expected, atol=2e-4)
    if not embedding:
        # On JAX it is the same.
        models.save_model(model, tmp_path / "m.keras")
        np.save(tmp_path / "images.npy", IMAGES)
        script = (
            "import numpy as np, models; from reports.attention import grad_cam; "
            "model = models.load_model('m.keras'); images = np.load('images.npy'); "
            f"np.save('cam.npy', grad_cam(model, images, np.array({CLASSES.tolist()})))"
        )
        run("-c", script, backend="jax", directory=tmp_path)
        np.testing.assert_allclose(np.load(tmp_path / "cam.npy"), expected, atol=2e-4)


@pytest.mark.parametrize(
    "head",
    [
        models.CosineHead("t-vmf", 16.0),
        models.EmbeddingHead(np.eye(3), "linear", "euclidean", classifier_branch=True),
    ],
)
def test_other_heads_have_places_too_image_by_image(head):
    model = models.build_model("fast-cnn", list("abc"), head=head)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), "uint8")

    maps = grad_cam(model, images, np.array([0, 1, 2]))

    assert maps.shape[0] == 3
    assert min(maps.shape[1:]) > 1
    assert np.all((maps >= 0) & (maps <= 1))
    alone = grad_cam(model, images[1:2], np.array([1]))
    np.testing.assert_allclose(maps[1], alone[0], atol=1e-4)
