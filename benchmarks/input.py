"""Speed and memory of the input pipeline, beside a plain one in the original's order.

    python benchmarks/input.py Flowers --data_root DIR
    python benchmarks/input.py Flowers --data_root DIR --batch_size 96 --queue_size 32 --workers 16
    python benchmarks/input.py Flowers --data_root DIR --augmentations paper light strong

Prints images per second by the clock, and per second of one core's time ("per core"), which other
programs on the machine disturb less. "Plain" decodes, resizes the whole image, normalises it to
float32, flips, erases and crops, one image after the other, with the same draws. Memory is what
the process grows by, at its peak, while the queue runs full; decoded images in a cache are there
before. With `--augmentations` it measures these instead, in turn, and says each one's speed per
core beside the first one's.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import PIL
from PIL import Image

import datasets
import resizing
from datasets import loading
from datasets.augmentation import AUGMENTATIONS, Policy
from datasets.batches import cache, parallel, rng, transforms
from datasets.batches.sequence import BatchSequence
from datasets.dataset import Dataset
from foreign_files import image_files
from training import quiet_start  # noqa: F401
from utils import run_script


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(make: Callable[[], int], repeats: int) -> tuple[float, float]:
    """Medians of images per second and per second of a core's time.

    Args:
        make: Makes images and returns how many.
        repeats: How often it is measured.
    """
    speeds, per_core = [], []
    for _ in range(repeats):
        wall, core = time.perf_counter(), time.process_time()
        count = make()
        speeds.append(count / (time.perf_counter() - wall))
        per_core.append(count / max(time.process_time() - core, 1e-9))
    return statistics.median(speeds), statistics.median(per_core)


def print_row(name: str, speeds: tuple[float, float], memory: float | str = "") -> None:
    if memory != "":
        memory = f"{memory / 1e6:,.0f}"
    print(f"{name:42}{speeds[0]:12,.0f}{speeds[1]:12,.0f}{memory:>12}", flush=True)


def plain_image(path: str, dataset: Dataset, view: transforms.View, noise) -> np.ndarray:
    """One training image the original's way, with a view drawn before."""
    spec = dataset.spec
    mean, std = np.float32(dataset.mean), np.float32(dataset.std)
    image = Image.open(path, formats=image_files.FORMATS).convert("RGB")
    image = image.resize(view.size, Image.Resampling.BILINEAR)
    pixels = (np.asarray(image, np.float32) - mean) / std
    if view.flip:
        pixels = pixels[:, ::-1]
    if view.erase:
        left, top, width, height = view.erase
        pixels = np.array(pixels)
        values = noise.uniform(0, 255, (height, width, 3)).astype(np.float32)
        pixels[top : top + height, left : left + width] = (values - mean) / std
    left, top = view.crop
    return pixels[top : top + spec.image_size, left : left + spec.image_size]


def measure_stages(dataset: Dataset, repeats: int) -> None:
    """One image after the other, in one thread."""
    spec, side = dataset.spec, dataset.image_size
    paths = dataset.train.images
    numbers = range(len(paths))
    images = [image_files.load_rgb(path) for path in paths]
    random = [rng.generator(0, rng.AUGMENTATION, 0, i) for i in numbers]
    views = [
        transforms.draw_view(draw, *image.size, spec.resize, side)
        for draw, image in zip(random, images, strict=True)
    ]
    resized = [
        np.array(resizing.resize_region(image, view.size, 0, 0, *view.size))
        for image, view in zip(images, views, strict=True)
    ]
    without = [transforms.View(view.size, view.flip, None, view.crop) for view in views]
    batch = np.empty((len(paths), side, side, 3), np.uint8)

    def decode() -> int:
        for path in paths:
            image_files.load_rgb(path)
        return len(paths)

    def resize() -> int:
        for image, view in zip(images, views, strict=True):
            resizing.resize_region(image, view.size, *view.crop, side, side)
        return len(paths)

    def crop_and_flip() -> int:
        for i in numbers:
            transforms.render_view(resized[i], without[i], side, random[i])
        return len(paths)

    def erase() -> int:
        for i in numbers:
            if views[i].erase:
                transforms.fill_noise(
                    resized[i][: views[i].erase[3], : views[i].erase[2]], random[i]
                )
        return len(paths)

    def copy_to_batch() -> int:
        for i in numbers:
            batch[i] = resized[i][:side, :side]
        return len(paths)

    print_row("decode", measure(decode, repeats))
    print_row("resize (of the crop only)", measure(resize, repeats))
    print_row("crop + flip (of a resized image)", measure(crop_and_flip, repeats))
    print_row("erase (half of the images)", measure(erase, repeats))
    print_row("batch (copy)", measure(copy_to_batch, repeats))


def measure_plain(dataset: Dataset, batch_size: int, repeats: int) -> tuple[float, float]:
    """The original's way, in one thread."""
    spec, paths = dataset.spec, dataset.train.images
    sizes = [image_files.image_size(path) for path in paths]
    random = [rng.generator(0, rng.AUGMENTATION, 0, i) for i in range(len(paths))]
    views = [
        transforms.draw_view(draw, *size, spec.resize, spec.image_size)
        for draw, size in zip(random, sizes, strict=True)
    ]

    def make() -> int:
        for start in range(0, len(paths), batch_size):
            chosen = range(start, min(start + batch_size, len(paths)))
            np.stack([plain_image(paths[i], dataset, views[i], random[i]) for i in chosen])
        return len(paths)

    return measure(make, repeats)


def measure_batches(
    dataset: Dataset, args: argparse.Namespace, workers: int
) -> tuple[BatchSequence, tuple[float, float]]:
    """Whole epochs of training batches."""
    batches = dataset.train_batches(
        args.batch_size, seed=0, workers=workers, queue_size=args.queue_size
    )

    def make() -> int:
        count = sum(len(images) for images, _ in batches)
        batches.epoch += 1
        return count

    return batches, measure(make, args.repeats)


def measure_augmentations(dataset: Dataset, args: argparse.Namespace) -> None:
    """Whole epochs with one augmentation and another in turn, without and with a cache."""
    in_files = not isinstance(dataset.train.images, np.ndarray)
    options = {"image_size": args.image_size, "test_fraction": args.test_fraction}
    for form in ("none", "ram") if in_files else ("none",):
        makers = {}
        for name in args.augmentations:
            own = datasets.load_dataset(
                args.dataset, args.data_root, augmentation=Policy(name), cache="none", **options
            )
            own.train = dataset.train.take(np.arange(len(dataset.train)))
            if form == "ram":
                loading.fill_cache(own, ["train"], "ram", skip_bad_images=False)
            batches = own.train_batches(
                args.batch_size, seed=0, workers=args.workers[0], queue_size=args.queue_size
            )

            def make(batches=batches) -> int:
                count = sum(len(images) for images, _ in batches)
                batches.epoch += 1
                return count

            makers[name] = make
        speeds = {name: [] for name in makers}
        for _ in range(args.repeats):  # in turn, as the machine's speed changes with time
            for name, make in makers.items():
                speeds[name].append(measure(make, 1))
        for name, found in speeds.items():
            print_row(
                f"{name}, cache {form}", tuple(map(statistics.median, zip(*found, strict=True)))
            )
            first = next(iter(speeds.values()))
            shares = [one[1] / other[1] for one, other in zip(found, first, strict=True)]
            print(f"    per core {statistics.median(shares):.2f} times {args.augmentations[0]}")


def measure_memory(dataset: Dataset, args: argparse.Namespace, workers: int, speed: float) -> int:
    """Peak growth of the resident memory while a network too slow lets the queue run full."""
    batches = dataset.train_batches(
        args.batch_size, seed=0, workers=workers, queue_size=args.queue_size
    )
    before, peak = resident_bytes(), 0
    batches[0]
    end = time.monotonic() + 1.5 * (batches.queue_size + 1) * args.batch_size / speed
    while time.monotonic() < end:
        time.sleep(0.01)
        peak = max(peak, resident_bytes() - before)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="name of the data set")
    parser.add_argument("--data_root", help="directory of its files")
    parser.add_argument("--image_size", type=int, help="side of the crop (default: its own)")
    parser.add_argument("--test_fraction", type=float, help="for a folder without a split")
    parser.add_argument("--images", type=int, default=480, help="training images used (480)")
    parser.add_argument("--batch_size", type=int, default=96)
    parser.add_argument("--queue_size", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--augmentations", nargs="+", choices=AUGMENTATIONS, metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3, help="the median is printed (3)")
    args = parser.parse_args()

    dataset = datasets.load_dataset(
        args.dataset,
        args.data_root,
        image_size=args.image_size,
        test_fraction=args.test_fraction,
        cache="none",
    )
    in_files = not isinstance(dataset.train.images, np.ndarray)
    count = min(args.images, len(dataset.train)) if in_files else len(dataset.train)
    dataset.train = dataset.train.take(np.linspace(0, len(dataset.train) - 1, count).astype(int))
    print(
        f"{dataset.name}, crop {dataset.image_size}, {count} images, batch {args.batch_size}, "
        f"queue {args.queue_size}; {parallel.num_cores()} cores, load {os.getloadavg()[0]:.1f}; "
        f"Pillow {PIL.__version__}, NumPy {np.__version__}\n"
    )
    print(f"{'':42}{'images/s':>12}{'per core':>12}{'peak MB':>12}")

    if args.augmentations:
        measure_augmentations(dataset, args)
        return
    plain = None
    for form in ("no cache", "cached in memory") if in_files else ("arrays",):
        if form == "cached in memory":
            side = dataset.spec.test_resize if len(set(dataset.spec.resize)) == 1 else None
            dataset.train.store = cache.build_store(
                dataset.train.images, side, Path(), dataset.name, mode="ram"
            )
        by_workers = {}
        for workers in args.workers:
            batches, speeds = measure_batches(dataset, args, workers)
            # More repeats than the queue is long, for a queue that can run full.
            dataset.train_repeats = 2 + args.batch_size * args.queue_size // count
            memory = measure_memory(dataset, args, workers, speeds[0])
            dataset.train_repeats = 1
            print_row(f"{form}, {workers} workers, queue {batches.queue_size}", speeds, memory)
            by_workers[workers] = speeds
        fewest, first = next(iter(by_workers.items()))
        if in_files and plain is None:
            plain = measure_plain(dataset, args.batch_size, args.repeats)
            print_row("plain, 1 worker", plain)
        if plain:
            print(f"    per core {first[1] / plain[1]:.1f} times plain")
        for workers, speeds in list(by_workers.items())[1:]:
            print(f"    {workers} against {fewest} workers: {speeds[0] / first[0]:.2f} times")
    if in_files:
        measure_stages(dataset, args.repeats)


if __name__ == "__main__":
    run_script(main)
