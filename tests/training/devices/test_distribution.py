"""Several devices train what one does; the programs run on CPUs that are split into several."""

import json
from argparse import Namespace

import pytest

from training.devices import distribution
from training.flags import arguments
from training.resuming import snapshots
from utils import UsageError

from ...programs import THIN, run


def resolved(line):
    return arguments.check_training_arguments(arguments.training_parser().parse_args(line.split()))


@pytest.mark.parametrize(
    ("backend", "kills", "flags"),
    [
        # The gradients' norm is clipped in most steps.
        ("tensorflow", 3, "--embedding onehot --cls_weight 0.1 --clipgrad 0.5 --gpu_merge"),
        ("tensorflow", 1, "--accumulate_steps 5 --nesterov --batch_size 100"),
        ("jax", 3, "--embedding onehot --cls_weight 0.1 --clipgrad 0.5"),
    ],
)
def test_1_2_and_4_devices_train_the_same(backend, kills, flags):
    process = run("tests.training.equal_runs", kills, *flags.split(), backend=backend)
    report = json.loads(process.stdout.splitlines()[-1])
    assert report["steps"] >= 50
    assert report["finite"]
    assert report["losses"] < 5e-6
    assert report["weights"] < 5e-5
    assert report["history"] < 5e-6
    assert report["scores"] < 5e-6
    assert report["on_others"]["weights"] < 5e-5
    assert report["on_others"]["loss"] < 5e-6


def test_half_precision_on_several_devices():
    process = run("tests.training.equal_runs", 1, "--precision", "mixed_float16")
    report = json.loads(process.stdout.splitlines()[-1])
    assert report["finite"]
    assert report["losses"] < 0.02


def test_a_loss_that_diverges_stops_several_devices(tmp_path):
    process = run(
        "tests.training.small_command",
        *"--dataset digits-sub2 --gpus 2 --simulate_devices --no_progress".split(),
        *"--epochs 2 --lr_schedule SGD --sgd_schedule 1:1e30,2 --clipgrad 0".split(),
        *f"--snapshot {tmp_path}/s".split(),
        status=1,
    )  # fmt: skip
    [line] = [line for line in process.stderr.splitlines() if "learn_classifier.py" in line]
    assert "the loss is no longer finite in epoch 1, step " in line
    assert f"{tmp_path}/s is of epoch 0, before that" in line


def test_a_training_on_several_devices_leaves_files_for_one(tmp_path):
    digits = "--dataset digits --architecture fast-cnn --no_progress".split()
    digits += "--sgdr_base_len 1 --epochs 1".split()
    devices = "--gpus 2 --gpu_merge --simulate_devices --bn_groups 4".split()
    model, log = tmp_path / "m.keras", tmp_path / "log"
    process = run("-c", THIN, *digits, *devices, "--model_dump", str(model), "--log_dir", str(log))
    assert "on 2 x simulated devices of CPU" in process.stdout
    result = json.loads((log / "result.json").read_text())
    assert result["distribution"] == {
        "devices": ["cpu:0", "cpu:1"],
        "replicas": 2,
        "processes": 1,
        "batch_norm_groups": 4,
        "reduction": "all-reduce on the devices (hierarchical copy)",
    }
    scores = tmp_path / "scores.json"
    process = run(
        "evaluate_classifier.py",
        "--model",
        str(model),
        "--dataset",
        "digits",
        "--json",
        str(scores),
    )
    [again] = json.loads(scores.read_text())["models"]
    assert again["acc"] == result["final"]["acc"]
    assert again["loss"] == pytest.approx(result["final"]["loss"], rel=1e-5)


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_more_gpus_than_there_are(backend):
    command = ["learn_classifier.py", "--gpus", "64", "--batch_size", "64"]
    process = run(*command, backend=backend, status=2)
    [line] = [line for line in process.stderr.splitlines() if "learn_classifier.py" in line]
    assert "error: --gpus 64: found " in line
    assert "--simulate_devices" in line


def test_a_group_of_batch_normalisation_per_gpu():
    assert resolved("--gpus 4 --batch_size 96").bn_groups == 4
    assert resolved("--bn_groups 4 --batch_size 96").gpus == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--gpus 3", "--batch_size 100: cannot be parted evenly by --bn_groups 3; use 99 or 102"),
        ("--gpus 4 --bn_groups 6", "--bn_groups 6: is no multiple of --gpus 4"),
        (
            "--gpus 4 --accumulate_steps 2",
            "--batch_size 100: .* --bn_groups 4 x --accumulate_steps 2; use 96 or 104",
        ),
        ("--gpus 4 --val_batch_size 1", "--val_batch_size 1: .* by --gpus 4; use 4"),
    ],
)
def test_batches_that_cannot_be_parted(line, message):
    with pytest.raises(UsageError, match=message):
        resolved(line)


def test_a_run_may_go_on_with_another_number_of_gpus():
    args = vars(resolved("--gpus 4 --snapshot s"))
    snapshot = snapshots.Snapshot(args, 1, 0, {})
    fewer = resolved("--gpus 2 --bn_groups 4 --snapshot s")
    snapshots.check_arguments(fewer, snapshot, arguments.free_arguments(fewer))
    other = resolved("--gpus 2 --snapshot s")
    with pytest.raises(UsageError, match="--bn_groups 4 became 2"):
        snapshots.check_arguments(other, snapshot, arguments.free_arguments(other))


def test_a_single_device_needs_no_engine():
    devices = distribution.choose(Namespace(gpus=1, gpu_merge=True, simulate_devices=False))
    assert devices.engine is None
    assert devices.replicas == 1
    assert devices.describe(1)["reduction"] == "none"
