"""The flags that say how a network learns: optimisation, schedule, fine-tuning.

Nothing here imports Keras: `--help` and a wrong argument answer at once.
"""

import argparse

import sgdr
from training.flags import paths
from training.flags.declaration import Flag, FlagGroup
from training.flags.parser import number
from training.learning import network_flags
from utils import UsageError

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
OPTIMIZERS = ("sgd", "adamw", "muon")
_DECOUPLED_DECAY = 0.005
_WEIGHT_FILES = (".keras", ".h5", ".hdf5")


def _length_matters(args: argparse.Namespace) -> bool:
    """Whether the rate, or the images' size, of an epoch depends on how many there are."""
    if args.images_seen:
        return False  # which is to be the same, and has the epochs follow from it
    return bool(args.max_decay or args.finish_size) or args.lr_schedule == "cosine"


OPTIMISATION = FlagGroup(
    "optimisation",
    (
        Flag(
            "--epochs",
            type=number(int, least=1),
            metavar="N",
            help="epochs",
            default_text="the whole schedule",
            synonyms=("--num_epochs",),
            on_resume="free",
            same_if=_length_matters,
        ),
        Flag(
            "--images_seen",
            type=number(int, least=1),
            metavar="N",
            help="instead of --epochs: train on about N images, as many whole epochs as come "
            "nearest; recipes for data sets of any size are budgets of images",
        ),
        Flag(
            "--batch_size",
            type=number(int, least=1),
            default=100,
            metavar="N",
            help="images per step",
            synonyms=("--bs", "--batch"),
        ),
        Flag(
            "--accumulate_steps",
            type=number(int, least=1),
            default=1,
            metavar="K",
            help="compute each batch in K parts, for devices with little memory: the same "
            "gradients, but batch normalisation takes its statistics from a part, and averages K "
            "times as often",
        ),
        Flag(
            "--val_batch_size",
            type=number(int, least=1),
            metavar="N",
            help="batch size of the evaluation",
            default_text="the batch size",
        ),
        Flag(
            "--val_every",
            type=number(int, least=0),
            default=1,
            metavar="N",
            help="evaluate after every N epochs, and always at the ends of the schedule's cycles "
            "and of the training; 0: only at the end of the training",
        ),
        Flag(
            "--clipgrad",
            type=number(least=0),
            default=10.0,
            metavar="NORM",
            help="scales gradients down to this global norm; 0 does not clip",
            synonyms=("--clip_grad", "--clipnorm"),
            on_resume="allowed",
        ),
        Flag(
            "--weight_decay",
            type=number(least=0),
            metavar="L",
            help="adds L * |w|^2 of every convolution and dense kernel to the loss, in place of "
            "the network's own: gradient 2*L*w. PyTorch's weight_decay is 2*L; Keras' "
            "SGD(weight_decay=) and AdamW are decoupled from the momentum and are not this",
            default_text="the network's own, none for resnet-50",
            synonyms=("--wd", "--l2"),
        ),
        Flag(
            "--weight_decay_on",
            choices=("kernels", "all"),
            default="kernels",
            help="all: --weight_decay also of biases and of batch normalisation's scales and "
            "shifts, as PyTorch's optimisers have it",
        ),
        Flag(
            "--max_decay",
            type=number(least=0, most=1),
            default=0.0,
            metavar="D",
            help="1/t decay per step that ends at D times the scheduled rate; 0 does not decay",
            on_resume="allowed",
        ),
        Flag(
            "--optimizer",
            choices=OPTIMIZERS,
            default="sgd",
            help="sgd: with momentum 0.9; adamw: its decay is apart from the gradients, w shrinks "
            "by rate*2*L*w each step, with L of --weight_decay (0.005 where none is given); rates "
            "around 0.001 suit it; muon: the kernels of convolutions take steps that are "
            "orthogonal matrices, all else is as with adamw",
        ),
        Flag("--nesterov", action="store_true", help="Nesterov momentum", on_resume="allowed"),
        Flag(
            "--ema",
            type=number(int, least=1),
            metavar="IMAGES",
            help="the final network has averages of the weights over the steps, of which the past "
            "counts half after each so many images; both it and the last weights are evaluated at "
            "the end. What epochs are judged by, val_…, is of the last weights",
            synonyms=("--model_ema", "--ema_decay"),
        ),
        Flag(
            "--precision",
            choices=PRECISIONS,
            default="float32",
            help="mixed: half-precision layers; normalisation, losses and weights stay float32",
        ),
        Flag(
            "--seed",
            type=number(int, least=0, below=2**31),
            default=0,
            metavar="N",
            help="everything random of a training follows from it: weights, order, augmentation",
        ),
    ),
)

_LR_SCHEDULES = {name.lower(): name for name in sgdr.SCHEDULES}
_RATE = {"type": number(above=0), "metavar": "RATE", "on_resume": "allowed"}
_LR = {"synonyms": ("--lr", "--learning_rate", "--base_lr")}
_EPOCHS = {"type": number(int, least=1), "metavar": "EPOCHS"}
_SGDR = {"only_with": ("lr_schedule", "SGDR")}
_SGD = {"only_with": ("lr_schedule", "SGD")}
_CLR = {"only_with": ("lr_schedule", "CLR")}
_COSINE = {"only_with": ("lr_schedule", "cosine")}

SCHEDULE = FlagGroup(
    "learning-rate schedule",
    (
        Flag(
            "--lr_schedule",
            type=lambda text: _LR_SCHEDULES.get(text.lower(), text),
            choices=sgdr.SCHEDULES,
            default="SGDR",
            help="SGDR: cosine with warm restarts; SGD: falls on a plateau or by --sgd_schedule; "
            "CLR: triangular; ResNet-Schedule: 0.01, 0.1, 0.01, 0.001 over 164 epochs; cosine: one "
            "cosine to 0 over the whole training, step by step",
        ),
        Flag("--sgdr_max_lr", default=0.1, help="rate after a restart", **_LR, **_RATE, **_SGDR),
        Flag("--sgdr_base_len", default=12, help="length of the first cycle", **_EPOCHS, **_SGDR),
        Flag(
            "--sgdr_mul",
            type=number(int, least=1),
            default=2,
            metavar="N",
            help="factor between the lengths of two cycles",
            **_SGDR,
        ),
        Flag("--sgd_lr", default=0.1, help="first rate", **_LR, **_RATE, **_SGD),
        Flag(
            "--sgd_patience",
            default=10,
            help="epochs without a better val_loss before the rate falls to a tenth",
            on_resume="allowed",
            **_EPOCHS,
            **_SGD,
        ),
        Flag("--sgd_min_lr", default=1e-4, help="rate that it never falls below", **_RATE, **_SGD),
        Flag(
            "--sgd_schedule",
            metavar="LIST",
            help="fixed steps FIRST_EPOCH:RATE,…,LAST_EPOCH, as in 1:0.1,31:0.01,41:0.001,50",
            on_resume="allowed",
            **_SGD,
        ),
        Flag("--clr_step_len", default=12, help="from lowest to highest rate", **_EPOCHS, **_CLR),
        Flag("--clr_min_lr", default=1e-5, help="lowest rate", **_RATE, **_CLR),
        Flag("--clr_max_lr", default=0.1, help="highest rate", **_LR, **_RATE, **_CLR),
        Flag("--max_lr", default=0.1, help="highest rate", **_LR, **_RATE, **_COSINE),
        Flag(
            "--warmup",
            type=number(least=0, below=1),
            default=0.0,
            metavar="SHARE",
            help="of the training, in which the rate climbs to the highest",
            **_COSINE,
        ),
    ),
)

FINETUNING = FlagGroup(
    "fine-tuning",
    (
        Flag(
            "--finetune",
            metavar="FILE",
            help="begin with the weights of this file, by layer name: a --model_dump, a "
            "--weight_dump or an HDF5 file of Keras 2",
            synonyms=("--pretrained", "--weights", "--init_from"),
        ),
        Flag(
            "--finetune_init",
            type=number(int, least=0),
            metavar="N",
            help="first train the new layers alone for N epochs, at --sgd_lr",
            default_text="8 with --embedding, otherwise 3",
        ),
    ),
)


def check_learning_arguments(args: argparse.Namespace, num_classes: int | None) -> None:
    """Resolves what is learned and how, and refuses what cannot work or does nothing.

    Args:
        args: With `image_size` resolved; changed in place.
        num_classes: Classes of the data set; `None` where only loading it tells.

    Raises:
        UsageError: An argument, or a combination of arguments, is wrong.
    """
    network_flags.check_network_arguments(args, num_classes)
    _check_finetuning(args)
    _check_schedule(args)
    _check_optimizer(args)
    if args.weight_decay_on == "all" and not args.weight_decay:
        raise UsageError("--weight_decay_on all: needs --weight_decay L, above 0")
    if args.accumulate_steps > args.batch_size:
        raise UsageError(
            f"--accumulate_steps {args.accumulate_steps}: a batch has {args.batch_size} images "
            "only; use fewer parts"
        )
    args.val_batch_size = args.val_batch_size or args.batch_size


def _check_optimizer(args: argparse.Namespace) -> None:
    several = args.gpus > 1 or (args.num_processes or 1) > 1
    for flag, given in (
        ("--ema", args.ema),
        (f"--optimizer {args.optimizer}", args.optimizer != "sgd"),
    ):
        if given and several:
            raise UsageError(f"{flag}: works on one device only; leave it out, or the others")
    if args.optimizer == "adamw" and args.nesterov:
        raise UsageError("--nesterov: does nothing with --optimizer adamw; leave one of them out")
    if args.optimizer != "sgd" and args.weight_decay is None:
        args.weight_decay = _DECOUPLED_DECAY


def _check_finetuning(args: argparse.Namespace) -> None:
    if args.finetune is None:
        if args.finetune_init is not None:
            raise UsageError("--finetune_init: needs --finetune FILE, to which layers can be new")
        return
    paths.check_input_file("--finetune", args.finetune, _WEIGHT_FILES)
    if args.finetune_init is None:
        args.finetune_init = 8 if args.embedding else 3


def _check_schedule(args: argparse.Namespace) -> None:
    given = {flag.dest for flag in SCHEDULE.flags if getattr(args, flag.dest) != flag.unset}
    if args.finetune_init:
        given.discard("sgd_lr")  # the rate of the new layers
    for flag in SCHEDULE.flags:
        if flag.dest in given and flag.only_with not in (None, ("lr_schedule", args.lr_schedule)):
            raise UsageError(
                f"{flag.name} belongs to --lr_schedule {flag.only_with[1]} and does nothing with "
                f"{args.lr_schedule}"
            )
    if args.sgd_schedule:
        for flag in ("sgd_lr", "sgd_patience", "sgd_min_lr"):
            if flag in given:
                raise UsageError(f"--{flag} does nothing beside --sgd_schedule, which has it all")
    for low, high in (("clr_min_lr", "clr_max_lr"), ("sgd_min_lr", "sgd_lr")):
        if getattr(args, low) > getattr(args, high):
            raise UsageError(
                f"--{low} {getattr(args, low):g} is above --{high} {getattr(args, high):g}"
            )
    # Made also where --epochs is given, as it reads --sgd_schedule.
    schedule = sgdr.make_schedule(args)
    if schedule.follows_loss and args.val_every != 1:
        raise UsageError(
            f"--val_every {args.val_every}: --lr_schedule SGD watches the val_loss of every epoch; "
            "leave it out, or give --sgd_schedule"
        )
    if args.images_seen is None:
        args.epochs = args.epochs or schedule.epochs
    elif args.epochs is not None:
        raise UsageError(
            "--images_seen: says how long to train, as --epochs does; give one of them"
        )
