"""The flags that say what is learned: the network and its loss.

Nothing here imports Keras: `--help` and a wrong argument answer at once.
"""

import argparse

import architectures
import embeddings
from training.flags.declaration import Flag, FlagGroup
from training.flags.parser import number
from utils import UsageError

EMBEDDING_LOSS_NAMES = ("inv_corr", "mse", "unnorm_corr", "softmax_corr")

CLASSIFICATION_LOSS_NAMES = ("normface", "t-vmf")
HARMONIC = ("none", "first", "all")

_OTHER_LOSSES = {
    **dict.fromkeys(("cosine", "cosine_loss", "cos"), "write inv_corr, the cosine loss"),
    **dict.fromkeys(
        ("cross_entropy", "xent", "softmax", "categorical_crossentropy"),
        "cross entropy is the loss without --embedding and --loss",
    ),
}

NETWORK = FlagGroup(
    "network and loss",
    (
        Flag(
            "--architecture",
            default="simple",
            metavar="NAME",
            help=f"network: {', '.join(architectures.ARCHITECTURES)}",
            synonyms=("--arch", "--network", "--model"),
        ),
        Flag(
            "--harmonic",
            choices=HARMONIC,
            default="none",
            help="which convolutions are learned sums of the filters of a cosine transform: the "
            "first one, or all larger than 1 x 1; --plain_dump makes plain ones of them",
        ),
        Flag(
            "--embedding",
            metavar="onehot|FILE",
            help="learn class embeddings with --loss; without it, cross entropy",
        ),
        Flag(
            "--loss",
            choices=(*EMBEDDING_LOSS_NAMES, *CLASSIFICATION_LOSS_NAMES),
            help="embedding loss: inv_corr is the cosine loss; or, without --embedding, cross "
            "entropy of the angles to learned class vectors: normface of their cosines, t-vmf of "
            "similarities that fall faster, both with a learned scale",
            instead=_OTHER_LOSSES,
            default_text="inv_corr with --embedding",
        ),
        Flag(
            "--tvmf_kappa",
            type=number(above=-0.5),
            metavar="K",
            help="of --loss t-vmf: similarity (1 + c) / (1 + K (1 - c)) - 1 for cosine c",
            default_text="16",
        ),
        Flag(
            "--cls_weight",
            type=number(least=0),
            default=0.0,
            metavar="W",
            help="adds a softmax classifier on top of the embedding, its cross entropy weighted "
            "by W",
        ),
        Flag(
            "--cls_base",
            metavar="NAME|INDEX",
            help="layer that classifier sits on",
            default_text="the embedding",
        ),
        Flag(
            "--label_smoothing",
            type=number(least=0, below=1),
            default=0.0,
            metavar="E",
            help="cross entropy aims at 1-E for the true class and E/(C-1) for each of the C-1 "
            "others",
        ),
    ),
)


def check_network_arguments(args: argparse.Namespace, num_classes: int | None) -> None:
    """Resolves the loss, and refuses networks, images and losses that do not go together.

    Args:
        args: With `image_size` resolved; changed in place.
        num_classes: Classes of the data set; `None` where only loading it tells.

    Raises:
        UsageError: An argument, or a combination of arguments, is wrong.
    """
    architectures.check_image_size(args.architecture, args.image_size)
    if args.finish_size:
        architectures.check_image_size(args.architecture, args.finish_size, "--finish_size")
        if args.finish_size == args.image_size:
            raise UsageError(
                f"--finish_size {args.finish_size}: all images have this size; give another one"
            )
    _check_loss(args)
    if num_classes is not None and args.embedding == "onehot":
        architectures.check_embedding_dim(args.architecture, num_classes)


def _check_loss(args: argparse.Namespace) -> None:
    if args.loss in CLASSIFICATION_LOSS_NAMES and args.embedding is not None:
        raise UsageError(
            f"--loss {args.loss} learns the vectors of the classes: leave --embedding out"
        )
    if args.loss == "t-vmf":
        args.tvmf_kappa = 16.0 if args.tvmf_kappa is None else args.tvmf_kappa
    elif args.tvmf_kappa is not None:
        raise UsageError("--tvmf_kappa belongs to --loss t-vmf and does nothing without it")
    if args.embedding is None:
        for flag, given in (
            ("--loss", args.loss in EMBEDDING_LOSS_NAMES),
            ("--cls_weight", args.cls_weight > 0),
        ):
            if given:
                raise UsageError(
                    f"{flag} needs class embeddings: add --embedding onehot, or leave {flag} out"
                )
    else:
        embeddings.check_embedding(args.embedding)
        args.loss = args.loss or "inv_corr"
        if args.label_smoothing and not args.cls_weight:
            raise UsageError(
                "--label_smoothing smooths the targets of the cross entropy, which an embedding "
                "loss has only with --cls_weight: add that, or leave --label_smoothing out"
            )
    if args.cls_base is not None and not args.cls_weight:
        raise UsageError("--cls_base places the classifier that --cls_weight adds: give both")
