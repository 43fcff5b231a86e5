import numpy as np
import pytest
from PIL import Image

import resizing

from .datasets.conftest import photo


def center_view(image, smaller, crop):
    return resizing.center_view(image, resizing.resized_size(*image.size, smaller), crop)


def reference_resize(image, smaller_side):
    """The original's order: the whole image is resized first.

    Columns first: until version 13 Pillow always did so, now not with tall images.
    """
    width, height = image.size
    if width < height:
        size = (smaller_side, round(height * smaller_side / width))
    else:
        size = (round(width * smaller_side / height), smaller_side)
    columns_done = image.resize((size[0], image.height), Image.Resampling.BILINEAR)
    return np.asarray(columns_done.resize(size, Image.Resampling.BILINEAR))


def test_longer_side_is_rounded_half_to_even():
    assert resizing.resized_size(100, 250, 5) == (5, 12)
    assert resizing.resized_size(350, 100, 5) == (18, 5)


@pytest.mark.parametrize("size", [(700, 500), (500, 701), (333, 1000), (90, 70), (1500, 1999)])
@pytest.mark.parametrize(("smaller", "crop"), [(512, 448), (256, 224), (73, 64)])
def test_test_view_is_resize_then_centre_crop(size, smaller, crop):
    image = Image.fromarray(photo(*size))
    whole = reference_resize(image, smaller)
    top, left = (whole.shape[0] - crop) // 2, (whole.shape[1] - crop) // 2
    expected = whole[top : top + crop, left : left + crop].astype(int)
    difference = np.abs(center_view(image, smaller, crop) - expected)
    assert difference.max() <= 1
    assert difference.mean() <= 0.1


@pytest.mark.parametrize("size", [(640, 512), (512, 700), (300, 300)])
def test_test_view_agrees_with_the_installed_pillow(size):
    image = Image.fromarray(photo(*size))
    width, height = resizing.resized_size(*size, 256)
    left, top = (width - 224) // 2, (height - 224) // 2
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224)), int)
    difference = np.abs(center_view(image, 256, 224) - expected)
    assert difference.max() <= 1
    assert difference.mean() <= 0.1
