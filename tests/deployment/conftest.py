"""Tiny models as files, and images of several sizes."""

import numpy as np
import pytest
from PIL import Image

import models

from ..datasets.conftest import photo

CLASSES = ("cat", "dog", "cow\x1b[31m")
SIDE, RESIZE = 24, 28


def build(head=None, classes=CLASSES, seed=0, **options):
    """A network of which no two photographs get the same scores."""
    model = models.build_model(
        "fast-cnn",
        classes,
        head=head,
        preprocessing=models.Preprocessing(
            (120.0,) * 3, (60.0,) * 3, image_size=SIDE, test_resize=RESIZE, exif_rotation=True
        ),
        info={"loss": "inv_corr", "dataset": "photographs"},
        **options,
    )
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:  # kernels, of whose initial values none is left
            scale = 1 / np.sqrt(np.prod(variable.shape[:-1]))
            variable.assign(random.normal(0, scale, variable.shape))
    return model


@pytest.fixture(scope="session")
def dumps(tmp_path_factory):
    """Paths of models by name.

    `softmax`, `cosine` with a temperature, `similarities` without, and `pigs` of other classes.
    """
    directory = tmp_path_factory.mktemp("dumps")
    cosine = build(models.EmbeddingHead(np.eye(3)[[1, 2, 0]]), seed=2)
    cosine.temperature = 0.25
    made = {
        "softmax": build(),
        "cosine": cosine,
        "similarities": build(models.EmbeddingHead(np.eye(3))),
        "pigs": build(classes=("cat", "dog", "pig")),
    }
    for name, model in made.items():
        models.save_model(model, directory / f"{name}.keras")
    return {name: directory / f"{name}.keras" for name in made}


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Image files of several sizes, in a folder; one of them lies on its side."""
    folder = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif[0x0112] = 6
    tints = np.array([[1, 0.3, 0.1], [0.1, 1, 0.2], [0.2, 0.3, 1], [1, 1, 1]])
    for i, size in enumerate([(60, 40), (37, 90), (24, 24), (20, 31)]):
        image = Image.fromarray((photo(*size, seed=i) * tints[i]).astype("uint8"))
        image.save(folder / f"{i}.png", **({"exif": exif} if i == 1 else {}))
    return sorted(folder.iterdir())
