"""What follows from a flag's declaration, and the files that arguments may stand in."""

from argparse import Namespace
from pathlib import Path

import pytest

from training.flags import __main__ as documentation
from training.flags import arguments
from training.flags.declaration import (
    Flag,
    FlagGroup,
    add_groups,
    allowed_on_resume,
    free_on_resume,
    markdown,
)
from training.flags.parser import Parser
from utils import UsageError

ROOT = Path(__file__).parents[3]


def test_the_documentation_has_the_flags_as_they_are_declared():
    assert (ROOT / "docs/flags.md").read_text() == documentation.page(), (
        "make it again: python -m training.flags > docs/flags.md"
    )


def test_what_follows_from_a_declaration():
    flags = (
        Flag("--rate", help="a|b 5 %", type=float, default=0.0, on_resume="allowed"),
        Flag(
            "--length",
            help="n",
            default_text="the whole",
            on_resume="free",
            same_if=lambda args: args.rate > 0,
        ),
        Flag("--loud", help="l", action="store_true"),
    )
    group = FlagGroup("speed", flags, "all of it")
    parser = Parser()
    add_groups(parser, [group])
    assert vars(parser.parse_args([])) == {"rate": 0.0, "length": None, "loud": False}
    assert "a|b 5 % (default: 0.0)" in parser.format_help()
    assert "(default: the whole)" in parser.format_help()
    assert allowed_on_resume(flags) == ["rate"]
    assert free_on_resume(flags, Namespace(rate=0)) == {"length"}
    assert free_on_resume(flags, Namespace(rate=1)) == set()
    assert markdown([group]).splitlines() == [
        "## Speed",
        "",
        "All of it.",
        "",
        "| flag | default | meaning | on resuming |",
        "|---|---|---|---|",
        r"| `--rate` | 0.0 | a\|b 5 % | `--snapshot_allow` |",
        "| `--length` | the whole | n | may change |",
        "| `--loud` |  | l | the same |",
    ]


def test_rates_may_be_allowed_to_change_and_data_may_not():
    changeable = allowed_on_resume(arguments.FLAGS)
    assert {"sgdr_max_lr", "clipgrad", "sgd_schedule"} <= set(changeable)
    args = arguments.training_parser().parse_args(["--snapshot_allow", "clipgrad"])
    free = arguments.free_arguments(args)
    assert {"epochs", "read_workers", "log_dir", "gpus", "clipgrad"} <= free
    assert not free & {"dataset", "seed", "batch_size", "architecture", "sgdr_max_lr"}


def test_arguments_from_a_file(tmp_path):
    (tmp_path / "run.args").write_text(
        "# CIFAR-100, 5 minutes: it isn't long\n"
        "\n"
        "--dataset digits-sub10  # ten per class\n"
        "  --epochs 3 --nesterov\n"
        '--log_dir "my #1 run"\n'
        "--snapshot_best=val_acc\n"
        "--model_dump run#2.keras\n"
    )
    args = arguments.training_parser().parse_args(
        ["--epochs", "1", f"@{tmp_path}/run.args", "--dataset", "folder"]
    )
    assert (args.dataset, args.epochs, args.nesterov) == ("folder", 3, True)
    assert (args.log_dir, args.snapshot_best) == ("my #1 run", "val_acc")
    assert args.model_dump == "run#2.keras"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'--log_dir "open\n', r"bad\.args: line 1: no closing quotation$"),
        (b"--epochs 3\n@more.args", r"bad\.args: line 2: @more\.args: a file cannot name another"),
        (b"\xff\xfe\0", r"bad\.args: expected a text file with arguments$"),
        (b"#" * (2**20 + 1), r"bad\.args: expected arguments, at most 1048576 characters"),
        (b"--epoch 3", "^--epoch: no such flag; did you mean --epochs"),
        (None, r"bad\.args: No such file or directory; @FILE reads arguments from a file"),
    ],
)
def test_argument_files_that_cannot_be_read(tmp_path, content, message):
    if content is not None:
        (tmp_path / "bad.args").write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        arguments.training_parser().parse_args([f"@{tmp_path}/bad.args"])
    assert "\n" not in str(caught.value)
