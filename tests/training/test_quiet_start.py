import contextlib
import os
import subprocess
import sys

import pytest

from training import quiet_start


def test_only_the_noise_of_a_start_is_dropped(capfd):
    with quiet_start._without_noise():
        os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are ...\n")
        os.write(2, b"I0000 00:00:1795 1 cudart_stub.cc:31] Could not find cuda drivers\n")
        os.write(2, b"E0000 00:00:1795 1 cuda_dnn.cc:8310] Unable to register cuDNN factory\n")
        os.write(2, b"F0000 00:00:1795 1 cpu.cc:8] needs AVX\n")
        os.write(2, b"a warning of Python\n")
    os.write(2, b"I0000 after it\n")
    kept = "F0000 00:00:1795 1 cpu.cc:8] needs AVX\na warning of Python\nI0000 after it\n"
    assert capfd.readouterr().err == kept


def test_what_was_written_before_an_error_is_kept(capfd):
    with contextlib.suppress(ImportError), quiet_start._without_noise():
        os.write(2, b"the reason\n")
        raise ImportError
    assert capfd.readouterr().err == "the reason\n"


@pytest.mark.parametrize(("level", "quiet"), [(None, True), ("3", True), ("0", False)])
def test_a_package_named_tensorflow_starts_quietly(tmp_path, level, quiet):
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'I0000 of TensorFlow\\n')\n"
        "level = os.environ['TF_CPP_MIN_LOG_LEVEL']\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": level} if level else {}
    done = subprocess.run(
        [sys.executable, "-c", "import training, tensorflow; print(tensorflow.level)"],
        env=environment | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.getcwd()}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == (level or "3")
    assert done.stderr == ("" if quiet else "I0000 of TensorFlow\n")
