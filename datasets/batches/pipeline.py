"""From a split's images to the pixels of a batch: which sample comes when, and how it is drawn."""

import functools

import numpy as np
from PIL import Image

import resizing
from datasets.batches import rng, transforms
from datasets.batches.split import Split
from datasets.info import Augmentation
from foreign_files import image_files


class Pipeline:
    """The images of one split, as the network gets them.

    Attributes:
        image_size: Side of the images given.
        labels: int32 class index of every image of the split.
        images_per_task: How many images a worker thread makes at a time.
    """

    images_per_task: int

    def __init__(self, split: Split, image_size: int, *, seed: int, train: bool, repeats: int = 1):
        self.image_size = image_size
        self.labels = split.labels.astype(np.int32)
        self._images = split.images
        self._seed = seed
        self._train = train
        self._repeats = repeats
        self._cached_order = functools.lru_cache(maxsize=2)(self._draw_order)

    def __len__(self) -> int:
        return len(self.labels) * self._repeats

    def order(self, epoch: int) -> np.ndarray:
        """Which image of the split comes at each position of the epoch, `(positions,)`."""
        return self._cached_order(epoch if self._train else 0)

    def _draw_order(self, epoch: int) -> np.ndarray:
        if not self._train:
            return np.arange(len(self))
        order = rng.generator(self._seed, rng.SHUFFLE, epoch).permutation(len(self))
        return order % len(self.labels)

    def fill(self, out: np.ndarray, samples: np.ndarray, epoch: int, start: int) -> None:
        """Writes images to `out`.

        Args:
            out: uint8 `(count, side, side, 3)`.
            samples: Which images of the split, `(count,)`.
            epoch: The epoch, which with the position determines what is drawn.
            start: Position of the first of them in the epoch.
        """
        raise NotImplementedError


class ArrayPipeline(Pipeline):
    """Small images in memory; a whole batch is transformed at once."""

    images_per_task = 256

    def __init__(self, split: Split, image_size: int, augmentation: Augmentation, **options):
        super().__init__(split, image_size, **options)
        self._augmentation = augmentation

    def fill(self, out: np.ndarray, samples: np.ndarray, epoch: int, start: int) -> None:
        images = self._images[samples]
        if not self._train:
            out[...] = images
            return
        draws = rng.uniforms(
            self._seed, rng.AUGMENTATION, epoch, start, start + len(samples), count=5
        )
        flip = draws[:, 0] < (0.5 if self._augmentation.flip else 0)
        # Centred at 0, in -1 to 1.
        spread = 2 * draws[:, 1:] - 1
        shift = spread[:, :2] * self._augmentation.shift * self.image_size
        zoom = 1 + spread[:, 2:] * self._augmentation.zoom
        out[...] = transforms.warp_batch(images, flip, shift, zoom)


class FilePipeline(Pipeline):
    """Images in files, or decoded ones in a cache; one after the other."""

    images_per_task = 4

    def __init__(self, split: Split, image_size: int, resize: tuple[int, int], **options):
        super().__init__(split, image_size, **options)
        self._store = split.store
        self._exif_rotation = split.exif_rotation
        self._resize = resize

    def fill(self, out: np.ndarray, samples: np.ndarray, epoch: int, start: int) -> None:
        for i, sample in enumerate(samples):
            image, size = self._read(sample)
            if self._train:
                draw = rng.generator(self._seed, rng.AUGMENTATION, epoch, start + i)
                view = transforms.draw_view(draw, *size, self._resize, self.image_size)
                out[i] = transforms.render_view(image, view, self.image_size, draw)
            else:
                size = resizing.resized_size(*size, self._resize[0])
                out[i] = resizing.center_view(image, size, self.image_size)

    def _read(self, sample: int) -> tuple[Image.Image | np.ndarray, tuple[int, int]]:
        """The image and its width and height; an array if it has its final size already."""
        if self._store is None:
            image = image_files.load_rgb(self._images[sample], exif_rotation=self._exif_rotation)
            return image, image.size
        pixels = self._store[sample]
        if self._store.smaller_side is None:
            image = Image.fromarray(pixels)
            return image, image.size
        return pixels, (pixels.shape[1], pixels.shape[0])
