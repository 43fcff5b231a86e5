"""From the lists a data set's file reads to a `Dataset`: checks, classes, subset, cache."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from datasets import checks, validation
from datasets.batches import cache, rng
from datasets.batches.split import Split
from datasets.dataset import Dataset
from datasets.info import ClassId, DatasetSpec, Samples
from utils import UserError, counted, user_cache_dir

logger = logging.getLogger(__name__)


def load(
    spec: DatasetSpec,
    *,
    cache_mode: str,
    cache_dir: Path | None,
    skip_bad_images: bool,
    check_files: bool,
    splits: Sequence[str],
    train_repeats: int | None = None,
) -> Dataset:
    """Loads what `spec` describes; see `datasets.load_dataset`."""
    content = spec.info.load(spec)
    train, test = content.train, content.test
    for samples in (train, test):
        checks.check_within(spec.name, spec.root, samples)
    if spec.class_list is None:
        ids = sorted(_ids(train) | _ids(test))
        if spec.info.num_classes not in (None, len(ids)):
            logger.warning(
                "%s: the files name %s instead of %d; are they all there?",
                *(spec.name, counted(len(ids), "class", "classes"), spec.info.num_classes),
            )
    else:
        ids = _listed_ids(spec, train, test)
        train, test = _of_classes(train, ids), _of_classes(test, ids)
    by_split = {"train": train, "test": test}
    checks.check_lists(spec.name, {split: by_split[split] for split in splits})
    for split, samples in by_split.items():
        if not len(samples.images) and split not in splits:
            continue  # a folder to test on only
        checks.warn_of_absent(spec.name, set(ids) - _ids(samples), split)
    if "train" in splits:
        checks.check_classes(spec.name, _ids(train))
    dataset = Dataset(
        spec=spec,
        class_names=[str(content.names.get(class_id, class_id)) for class_id in ids],
        class_ids=ids,
        train=_index(train, ids, spec.exif_rotation),
        test=_index(test, ids, spec.exif_rotation),
        train_repeats=content.repeats or 1,
        cache_dir=cache_dir or user_cache_dir(),
    )
    if spec.samples_per_class is not None and content.repeats is None:
        _draw_subset(dataset)
    dataset.train_repeats = train_repeats or dataset.train_repeats
    if spec.validation:
        dataset.train, dataset.validation = validation.draw(spec, dataset.train)
        checks.warn_of_absent(
            spec.name, _absent(dataset, dataset.train, dataset.validation), "validation"
        )
    if isinstance(dataset.train.images, np.ndarray):
        for split in filter(None, (dataset.train, dataset.validation, dataset.test)):
            split.images = _resize_arrays(split.images, spec.image_size)
    elif check_files:
        read = [*splits, "validation"] if dataset.validation and "train" in splits else splits
        _leave_out(
            dataset, read, lambda split: checks.find_no_images(split.images), skip_bad_images
        )
        fill_cache(dataset, read, cache_mode, skip_bad_images)
        if "train" in splits:
            # Where they are computed, that reads all images; better now than amid a training.
            _ = dataset.mean
    return dataset


def _ids(samples: Samples) -> set[ClassId]:
    return set(np.unique(samples.labels).tolist())


def _listed_ids(spec: DatasetSpec, train: Samples, test: Samples) -> list[ClassId]:
    """The ids of `--class_list`, in its order, as the data set has them."""
    known = {str(class_id): class_id for class_id in sorted(_ids(train) | _ids(test))}
    try:
        return list(spec.class_list.match(known, spec.name))
    except UserError as error:
        raise UserError(f"--class_list {error}") from None


def _of_classes(samples: Samples, ids: list[ClassId]) -> Samples:
    labels = np.asarray(samples.labels)
    chosen = np.flatnonzero(np.isin(labels, ids))
    if isinstance(samples.images, np.ndarray):
        return Samples(samples.images[chosen], labels[chosen])
    return Samples([samples.images[i] for i in chosen], labels[chosen])


def _index(samples: Samples, ids: list[ClassId], exif_rotation: bool) -> Split:
    index = {class_id: i for i, class_id in enumerate(ids)}
    labels = [index[class_id] for class_id in np.asarray(samples.labels).tolist()]
    return Split(samples.images, np.array(labels, np.int64), exif_rotation=exif_rotation)


def _absent(dataset: Dataset, among: Split, split: Split) -> set[ClassId]:
    """The classes of one split that another has no image of."""
    missing = set(among.labels.tolist()) - set(split.labels.tolist())
    return {dataset.class_ids[label] for label in missing}


def _draw_subset(dataset: Dataset) -> None:
    """Takes the images of a `-subN` name and repeats them.

    The draw of N images contains those of fewer, with the same seed.
    """
    spec, train = dataset.spec, dataset.train
    wanted = spec.samples_per_class
    chosen, smallest = [], wanted
    for label in np.unique(train.labels):
        members = np.flatnonzero(train.labels == label)
        order = rng.generator(spec.split_seed, rng.SUBSET, position=int(label)).permutation(members)
        chosen.append(order[:wanted])
        smallest = min(smallest, len(members))
    if smallest < wanted:
        logger.warning("%s: some classes have as few as %d training images", spec.name, smallest)
    dataset.train = train.take(np.sort(np.concatenate(chosen)))
    dataset.train_repeats = max(1, round(len(train) / len(dataset.train)))


def _resize_arrays(images: np.ndarray, side: int) -> np.ndarray:
    if images.shape[1:3] == (side, side):
        return images
    resized = (
        Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR) for image in images
    )
    return np.stack([np.asarray(image) for image in resized])


def fill_cache(dataset: Dataset, splits: Sequence[str], mode: str, skip_bad_images: bool) -> None:
    """Decodes all images into the cache, or, to find the bad ones, only for the check."""
    spec = dataset.spec
    smallest, largest = spec.resize
    # Where the size is drawn anew each time, only the decoded image serves all of them.
    sides = {"train": smallest if smallest == largest else None, "test": spec.test_resize}
    policy = spec.augmentation
    if policy:
        cropped = policy.name != "none"
        sides["train"] = policy.source_side(spec.image_size) if cropped else spec.test_resize
    if dataset.validation and "train" in splits:
        sides["validation"] = sides["test"]
        del sides["test"]  # which is read once only, at the end
    sides = {part: sides[part] for part in splits if part in sides}

    def where(part: str, side: int | None) -> tuple:
        images = getattr(dataset, part).images
        return images, side, dataset.cache_dir, f"{spec.info.name}-{part}"

    def form(part: str) -> dict[str, bool]:
        # A small photo is enlarged when it is cropped, as it would be without a cache.
        only_shrink = part == "train" and policy is not None and policy.name != "none"
        return {"exif_rotation": spec.exif_rotation, "only_shrink": only_shrink}

    if mode == "auto" and all(
        cache.is_on_disk(*where(part, side), **form(part)) for part, side in sides.items()
    ):
        mode = "disk"
        logger.info("cache: disk, since the decoded images are in %s", dataset.cache_dir)
    elif mode == "auto":
        mode = cache.choose_mode(
            [(*where(part, side)[:2], form(part)["only_shrink"]) for part, side in sides.items()]
        )
    dataset.cache = mode
    if mode == "none":
        if skip_bad_images:
            _leave_out(dataset, splits, lambda split: checks.find_unreadable(split.images), True)
        return

    for part, side in sides.items():
        store = cache.build_store(*where(part, side), mode=mode, **form(part))
        getattr(dataset, part).store = store

    _leave_out(dataset, list(sides), _find_undecoded, skip_bad_images)
    if skip_bad_images and (uncached := [part for part in splits if part not in sides]):
        _leave_out(dataset, uncached, lambda split: checks.find_unreadable(split.images), True)


def _find_undecoded(split: Split) -> dict[int, str]:
    """The images that could not be decoded into the cache, with the reason read again."""
    return {
        i: checks.unreadable_image(split.images[i])
        or f"{split.images[i]}: could not be decoded when the cache was filled; start again"
        for i in split.store.bad()
    }


def _leave_out(
    dataset: Dataset,
    parts: Sequence[str],
    find_bad: Callable[[Split], dict[int, str]],
    skip: bool,
) -> None:
    """Removes the images that `find_bad` finds, or refuses them, those of all splits at once."""
    splits = [getattr(dataset, part) for part in parts]
    bad = [find_bad(split) for split in splits]
    reasons = [reason for found in bad for reason in found.values()]
    checks.report(dataset.name, reasons, sum(map(len, splits)), skip=skip)
    for part, split, found in zip(parts, splits, bad, strict=True):
        if not found:
            continue
        if len(found) == len(split):
            raise UserError(f"{dataset.name}: no usable {checks.ROLES[part]} images are left")
        good = split.take(np.setdiff1d(np.arange(len(split)), list(found)))
        setattr(dataset, part, good)
        checks.warn_of_absent(dataset.name, _absent(dataset, split, good), part)
        if part == "train":
            left = {dataset.class_ids[label] for label in good.labels.tolist()}
            checks.check_classes(dataset.name, left)
    dataset.skipped += reasons
