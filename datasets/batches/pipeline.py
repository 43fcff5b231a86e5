"""From a split's images to the pixels of a batch: which sample comes when, and how it is drawn."""

import contextlib
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

import resizing
from datasets.augmentation import Policy
from datasets.batches import crops, rng, transforms
from datasets.batches.split import Split
from datasets.batches.trivial_augment import trivial_augment
from datasets.batches.trivial_augment_batch import trivial_augment_batch
from datasets.info import Augmentation
from foreign_files import image_files

# An image, with its width and height.
_Sized = tuple[Image.Image | np.ndarray, tuple[int, int]]


class Pipeline:
    """The images of one split, as the network gets them.

    Attributes:
        image_size: Side of the images given.
        labels: int32 class index of every image of the split.
        seed: Determines what is drawn.
        images_per_task: How many images a worker thread makes at a time.
    """

    images_per_task: int

    def __init__(
        self,
        split: Split,
        image_size: int,
        *,
        seed: int,
        train: bool,
        repeats: int = 1,
        policy: Policy | None = None,
    ):
        self.image_size = image_size
        self.labels = split.labels.astype(np.int32)
        self._images = split.images
        self.seed = seed
        self._train = train
        self._repeats = repeats
        self._policy = policy
        self._unchanged = not train or (policy is not None and policy.name == "none")
        if policy and policy.flip == "alternating":
            draws = rng.uniforms(seed, rng.FLIP, 0, 0, len(split), count=1)
            self._mirrored_at_first = draws[:, 0] < 0.5
        self._cached_order = functools.lru_cache(maxsize=2)(self._draw_order)

    def __len__(self) -> int:
        return len(self.labels) * self._repeats

    def order(self, epoch: int) -> np.ndarray:
        """Which image of the split comes at each position of the epoch, `(positions,)`."""
        return self._cached_order(epoch if self._train else 0)[0]

    def _draw_order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The images of an epoch, and for the how manieth time in it each of them comes."""
        order = np.arange(len(self))
        if self._train:
            order = rng.generator(self.seed, rng.SHUFFLE, epoch).permutation(len(self))
        repeats, images = np.divmod(order, len(self.labels))
        return images, repeats

    def _mirrored(
        self, samples: np.ndarray, epoch: int, start: int, draws: np.ndarray
    ) -> np.ndarray:
        """Which images the policy mirrors, bool `(count,)`; `draws` are uniform in [0, 1)."""
        if self._policy.flip != "alternating":
            return draws < (0.5 if self._policy.flip == "random" else 0)
        repeats = self._cached_order(epoch)[1][start : start + len(samples)]
        seen = epoch * self._repeats + repeats
        return (self._mirrored_at_first[samples] + seen) % 2 == 1

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

    def __init__(
        self,
        split: Split,
        image_size: int,
        augmentation: Augmentation,
        mean: Sequence[float] = (0, 0, 0),
        **options,
    ):
        super().__init__(split, image_size, **options)
        self._augmentation = augmentation
        self._mean = np.rint(mean).astype(np.uint8)

    def fill(self, out: np.ndarray, samples: np.ndarray, epoch: int, start: int) -> None:
        images = self._images[samples]
        if self._unchanged:
            out[...] = images
            return
        if self._policy:
            self._fill_by_policy(out, images, samples, epoch, start)
            return
        draws = rng.uniforms(
            self.seed, rng.AUGMENTATION, epoch, start, start + len(samples), count=5
        )
        flip = draws[:, 0] < (0.5 if self._augmentation.flip else 0)
        # Centred at 0, in -1 to 1.
        spread = 2 * draws[:, 1:] - 1
        shift = spread[:, :2] * self._augmentation.shift * self.image_size
        zoom = 1 + spread[:, 2:] * self._augmentation.zoom
        out[...] = transforms.warp_batch(images, flip, shift, zoom)

    def _fill_by_policy(self, out, images, samples, epoch, start) -> None:
        policy = self._policy
        draws = rng.uniforms(
            self.seed, rng.AUGMENTATION, epoch, start, start + len(samples), count=8
        )
        shift = (draws[:, :2] * (2 * policy.crop_shift + 1)).astype(int) - policy.crop_shift
        flip = self._mirrored(samples, epoch, start, draws[:, 2])
        out[...] = crops.shift_batch(images, shift, flip)
        if policy.trivial_augment:
            trivial_augment_batch(out, *draws[:, 3:6].T)
        if policy.cutout:
            center = (draws[:, 6:] * self.image_size).astype(int)
            crops.cut_out(out, center, policy.cutout, self._mean)


class FilePipeline(Pipeline):
    """Images in files, or decoded ones in a cache; one after the other."""

    images_per_task = 4

    def __init__(self, split: Split, image_size: int, resize: tuple[int, int], **options):
        super().__init__(split, image_size, **options)
        self._store = split.store
        self._exif_rotation = split.exif_rotation
        self._resize = resize

    def fill(self, out: np.ndarray, samples: np.ndarray, epoch: int, start: int) -> None:
        if self._policy and not self._unchanged:
            self._fill_by_policy(out, samples, epoch, start)
            return
        for i, sample in enumerate(samples):
            with self._read(sample) as (image, size):
                if not self._unchanged:
                    draw = rng.generator(self.seed, rng.AUGMENTATION, epoch, start + i)
                    view = transforms.draw_view(draw, *size, self._resize, self.image_size)
                    out[i] = transforms.render_view(image, view, self.image_size, draw)
                else:
                    size = resizing.resized_size(*size, self._resize[0])
                    out[i] = resizing.center_view(image, size, self.image_size)

    def _fill_by_policy(self, out, samples, epoch, start) -> None:
        policy, side = self._policy, self.image_size
        for i, sample in enumerate(samples):
            draw = rng.generator(self.seed, rng.AUGMENTATION, epoch, start + i)
            numbers = draw.random(5)
            with self._read_source(sample) as (image, size):
                box = crops.draw_resized_crop(draw, *size, policy.crop_scale)
                view = crops.resized_crop(image, box, side)
            if self._mirrored(samples[i : i + 1], epoch, start + i, numbers[:1])[0]:
                view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if policy.trivial_augment:
                view = trivial_augment(view, *numbers[1:4])
            out[i] = view
            if numbers[4] < policy.erase:
                left, top, width, height = transforms.draw_rectangle(draw, side, side)
                transforms.fill_noise(out[i, top : top + height, left : left + width], draw)

    @contextlib.contextmanager
    def _read_source(self, sample: int) -> Iterator[_Sized]:
        """What a policy crops, of the size that a cache holds, with its width and height."""
        if self._store is not None:
            pixels = self._store[sample]
            yield pixels, (pixels.shape[1], pixels.shape[0])
            return
        with self._decoded(sample) as image:
            size = resizing.shrunk_size(*image.size, self._policy.source_side(self.image_size))
            if size != image.size:
                image = resizing.resize_region(image, size, 0, 0, *size)
            yield image, size

    @contextlib.contextmanager
    def _read(self, sample: int) -> Iterator[_Sized]:
        """The image and its width and height; an array if it has its final size already."""
        if self._store is None:
            with self._decoded(sample) as image:
                yield image, image.size
            return
        pixels = self._store[sample]
        if self._store.smaller_side is None:
            image = Image.fromarray(pixels)
            yield image, image.size
        else:
            yield pixels, (pixels.shape[1], pixels.shape[0])

    def _decoded(self, sample: int) -> contextlib.AbstractContextManager[Image.Image]:
        return image_files.decoded_rgb(self._images[sample], exif_rotation=self._exif_rotation)
