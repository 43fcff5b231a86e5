"""The networks by name, and the image sizes they take.

This table is apart from `models`, whose import loads Keras and its backend, so that a script can
check `--architecture` and `--image_size` at once. `models` builds what stands here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from utils import UsageError, nearest_names


@dataclass(frozen=True)
class Architecture:
    """A network's entry in the table.

    Attributes:
        family: The module of `models` that builds it, with a function `backbone(**options)`.
        options: What tells this network from the others of its family.
        embedding_dim: Dimensions of the embedding where they are fixed because the pooled features
            are used as they are; `None` where a dense layer gives any number of dimensions.
        size_multiple: Image sides must be divisible by this.
        min_size: Smallest image side.
    """

    family: str
    options: Mapping[str, Any] = field(default_factory=dict)
    embedding_dim: int | None = None
    size_multiple: int = 1
    min_size: int = 1


def _cifar_resnet(blocks: int, channels: tuple[int, ...] = (16, 32, 64), **kwargs) -> Architecture:
    # Convolution rounds odd sides up and the shortcut's pooling rounds them down, so both stages
    # that halve the image need an even side.
    return Architecture(
        "cifar_resnet", {"blocks": blocks, "channels": channels}, size_multiple=4, **kwargs
    )


def _wide_resnet(blocks: int, width: int) -> Architecture:
    channels = (16 * width, 32 * width, 64 * width)
    return Architecture("wide_resnet", {"blocks": blocks, "channels": channels})


def _torchvision_resnet(*blocks: int, bottleneck: bool) -> Architecture:
    return Architecture("torchvision_resnet", {"blocks": blocks, "bottleneck": bottleneck})


ARCHITECTURES: dict[str, Architecture] = {
    "simple": Architecture("plain", min_size=8),
    "resnet-32": _cifar_resnet(5, embedding_dim=64),
    "resnet-32-fc": _cifar_resnet(5),
    "resnet-110": _cifar_resnet(18, embedding_dim=64),
    "resnet-110-fc": _cifar_resnet(18),
    "resnet-110-wfc": _cifar_resnet(18, (32, 64, 128)),
    "resnet-50": Architecture("resnet"),
    "wrn-16-8": _wide_resnet(blocks=2, width=8),
    "wrn-28-10": _wide_resnet(blocks=4, width=10),
    "resnet-18": _torchvision_resnet(2, 2, 2, 2, bottleneck=False),
    "resnet-34": _torchvision_resnet(3, 4, 6, 3, bottleneck=False),
    "resnet-50-v1.5": _torchvision_resnet(3, 4, 6, 3, bottleneck=True),
    "fast-cnn": Architecture("fast_cnn", min_size=8),
}


def get_architecture(name: str) -> Architecture:
    """The entry of `name`.

    Raises:
        UsageError: There is no such network.
    """
    if name not in ARCHITECTURES:
        raise UsageError(
            f"--architecture {name}: unknown network; {nearest_names(name, ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


def check_image_size(name: str, size: int, flag: str = "--image_size") -> None:
    """Refuses images that the network `name` cannot take.

    Args:
        name: The network.
        size: Side of the square images, in pixels.
        flag: Which says so.

    Raises:
        UsageError: The side is too small, or not divisible as the network needs it.
    """
    architecture = get_architecture(name)
    if size < architecture.min_size:
        raise UsageError(
            f"{flag} {size}: {name} needs images of at least "
            f"{architecture.min_size} x {architecture.min_size} pixels"
        )
    multiple = architecture.size_multiple
    if size % multiple:
        below, above = size // multiple * multiple, (size // multiple + 1) * multiple
        raise UsageError(
            f"{flag} {size}: {name} needs a side divisible by {multiple}; "
            f"use {f'{below} or ' if below else ''}{above}"
        )


def check_embedding_dim(name: str, dim: int) -> None:
    """Refuses class embeddings whose number of dimensions the network `name` cannot give.

    Args:
        name: The network.
        dim: Dimensions of the class embeddings (for one-hot ones, the number of classes).

    Raises:
        UsageError: The pooled features are the embedding and have another number of dimensions.
    """
    fixed = get_architecture(name).embedding_dim
    if fixed is not None and dim != fixed:
        raise UsageError(
            f"--architecture {name}: its pooled features are the embedding and have {fixed} "
            f"dimensions, but the class embeddings have {dim}; use {name}-fc"
        )
