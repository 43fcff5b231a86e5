import subprocess
import sys
from pathlib import Path

import pytest

from architectures import ARCHITECTURES, check_image_size, get_architecture
from utils import UsageError


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match=r"--architecture resnet110: .*did you mean resnet-110"):
        get_architecture("resnet110")


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet-32", 32), ("resnet-110-wfc", 4), ("simple", 8), ("simple", 33), ("resnet-50", 97)],
)
def test_admitted_sizes(name, size):
    check_image_size(name, size)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet-32-fc", 30, "--image_size 30: resnet-32-fc needs .* by 4; use 28 or 32"),
        ("resnet-110", 3, "use 4$"),
        ("simple", 7, "at least 8 x 8 pixels"),
        ("resnet-50", 0, "at least 1 x 1 pixels"),
    ],
)
def test_refused_sizes(name, size, message):
    with pytest.raises(UsageError, match=message):
        check_image_size(name, size)


def test_table_loads_without_keras():
    root = Path(__file__).parents[1]
    code = "import sys, architectures; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_plain_forms_have_a_form_with_a_dense_layer():
    for name, architecture in ARCHITECTURES.items():
        if architecture.embedding_dim is not None:
            assert ARCHITECTURES[f"{name}-fc"].embedding_dim is None
