import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sweep
from experiments import processes, slots, space, sweep_plan, sweep_report, sweeping
from experiments.runs import read_history
from training.flags.arguments import training_parser
from utils import UsageError, UserError

ROOT = Path(__file__).parents[2]
PRETENDED = [sys.executable, str(Path(__file__).with_name("pretended_training.py"))]
BASE = ["--", "--epochs", "5", "--validation_fraction", "0.2"]
DRAW = sweep_report._draw
RATES = ["--tune", "sgdr_max_lr", "lin", "0.01", "1"]


@pytest.fixture
def directory(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCH_SECONDS", "0")
    monkeypatch.setattr(processes, "_PAUSE", 0.02)
    # Half of a second each time; one test draws.
    monkeypatch.setattr(sweep_report, "_draw", lambda *_: None)
    return tmp_path / "sweep"


def run_sweep(monkeypatch, *arguments, program=PRETENDED):
    monkeypatch.setattr("sys.argv", ["sweep.py", *map(str, arguments)])
    sweep.main(program)


def start_driver(*arguments, **environment):
    """The sweep as a process of its own, whose trials are pretended."""
    code = f"import sweep, utils; utils.run_script(lambda: sweep.main({PRETENDED!r}))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("did not come about within a minute")


def trials_of(directory):
    with open(directory / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def starts_of(directory):
    files = sorted(directory.glob("trials/*/starts.txt"))
    return [file.read_text().count("started") for file in files]


def test_a_sweep_finds_the_best_settings_and_says_what_it_chose_them_on(
    directory, monkeypatch, capsys
):
    monkeypatch.setattr(sweep_report, "_draw", DRAW)
    run_sweep(monkeypatch, directory, *RATES, "--trials", 6, "--jobs", 2, "--final", 2, *BASE)
    trials = trials_of(directory)
    assert [trial["state"] for trial in trials] == ["done"] * 6
    best = max(trials, key=lambda trial: float(trial["score"]))
    rate = float(best["sgdr_max_lr"])
    # The mean of the last five epochs, of which there are five.
    assert float(best["score"]) == pytest.approx((1 - (rate - 0.3) ** 2) * 3 / 5)
    out = capsys.readouterr().out
    assert f"6/6 done, best {float(best['score']):.4f} (trial {best['trial']})" in out
    assert all(trial["selected_on"] == "validation" for trial in trials)

    found = training_parser().parse_args([f"@{directory / 'best.args'}", "--seed", "3"])
    assert (found.sgdr_max_lr, found.seed, found.epochs) == (rate, 3, 5)
    svg = (directory / "sweep.svg").read_text()
    assert "prefers-color-scheme: dark" in svg

    final = directory / "final" / f"trial_{int(best['trial']):04d}"
    command = (final / "seed_1" / "command.txt").read_text()
    assert "--seed 1" in command
    assert "--validation_fraction" not in command
    assert "--val_every 0" in command  # the test images are looked at once
    assert "n = 2 seeds" in out
    assert json.loads((final / "selection.json").read_text())["selected_on"] == "validation"

    # Nothing is done twice, and what is drawn does not depend on how often the driver began.
    run_sweep(monkeypatch, directory, "--trials", 7)
    assert starts_of(directory) == [1] * 7
    assert trials_of(directory)[:6] == trials


def test_what_is_drawn_depends_on_the_seed_alone(directory, monkeypatch):
    flags = [*RATES, "--sampler", "random", *BASE]
    drawn = {}
    for name, counts, seed in (("at once", [4], 0), ("twice", [2, 4], 0), ("other", [4], 1)):
        for count in counts:
            run_sweep(monkeypatch, directory / name, "--trials", count, "--seed", seed, *flags)
        drawn[name] = [trial["sgdr_max_lr"] for trial in trials_of(directory / name)]
    assert drawn["at once"] == drawn["twice"]
    assert not set(drawn["at once"]) & set(drawn["other"])
    assert len(set(drawn["at once"])) == 4


def test_a_killed_driver_leaves_its_trials_running_and_the_next_takes_them_in(
    directory, monkeypatch
):
    flags = [directory, *RATES, "--trials", 3, "--jobs", 2]
    driver = start_driver(*flags, *BASE, EPOCH_SECONDS="0.5")
    with driver:
        histories = [directory / "trials" / name / "history.csv" for name in ("0000", "0001")]
        wait_for(lambda: all(path.exists() for path in histories))
        driver.kill()
    # As if the machine had failed, one of the trials is gone too.
    lock = json.loads((histories[1].parent / "lock").read_text())
    os.kill(lock["pid"], signal.SIGKILL)
    run_sweep(monkeypatch, *flags)
    assert starts_of(directory) == [1, 2, 1]
    trials = trials_of(directory)
    assert [(trial["state"], trial["epochs"]) for trial in trials] == [("done", "5")] * 3


def test_an_interrupted_driver_stops_its_trials_and_goes_on(directory, monkeypatch):
    flags = [directory, *RATES, "--trials", 2]
    with start_driver(*flags, *BASE, EPOCH_SECONDS="0.3") as driver:
        wait_for((directory / "trials" / "0000" / "history.csv").exists)
        with pytest.raises(UserError, match=r"another sweep\.py is at work"):
            run_sweep(monkeypatch, directory)
        driver.terminate()
        errors = driver.stderr.read()
    assert driver.returncode == 143
    assert "interrupted by SIGTERM; the same command goes on from here" in errors
    assert not processes.Process.find(directory / "trials" / "0000")
    run_sweep(monkeypatch, directory)
    assert starts_of(directory) == [2, 1]


def test_failed_trials_are_listed_and_never_scored(directory, monkeypatch, capsys):
    rates = ["--grid", "--tune", "sgdr_max_lr", "of", "2", "0.3", "3", "0.1", "--jobs", "1"]
    run_sweep(monkeypatch, directory, *rates, *BASE)
    trials = {trial["sgdr_max_lr"]: trial for trial in trials_of(directory)}
    assert trials["2"]["state"] == trials["3"]["state"] == "failed"
    assert trials["2"]["score"] == ""
    assert trials["2"]["reason"].endswith("error: the loss is not a number in epoch 1")
    assert len(trials) == 4
    assert "best 0.6000" in capsys.readouterr().out


def test_a_sweep_whose_first_trials_all_fail_ends(directory, monkeypatch):
    bad = ["--tune", "sgdr_max_lr", "lin", "1.5", "2", "--jobs", "2", "--trials", "9"]
    with pytest.raises(UserError, match=r"first 3 trials all failed.*not a number in epoch 1"):
        run_sweep(monkeypatch, directory, *bad, *BASE)
    assert len(trials_of(directory)) in (3, 4)


def test_an_unknown_metric_ends_sweep_and_trials(directory, monkeypatch):
    monkeypatch.setenv("EPOCH_SECONDS", "0.3")
    with pytest.raises(UserError, match=r"--metric top1: history\.csv has only epoch, val_acc"):
        run_sweep(monkeypatch, directory, *RATES, "--metric", "top1", *BASE)
    assert not processes.Process.find(directory / "trials" / "0000")
    assert not (directory / "trials" / "0000" / "result.json").exists()


def test_bad_trials_are_ended_early(directory, monkeypatch):
    monkeypatch.setenv("EPOCH_SECONDS", "0.15")
    grid = ["--grid", "--tune", "sgdr_max_lr", "of", "0.3", "0.9", "0.31"]
    run_sweep(monkeypatch, directory, *grid, "--grace", 2, "--last", 1, *BASE)
    trials = {trial["sgdr_max_lr"]: trial for trial in trials_of(directory)}
    assert {rate: trial["state"] for rate, trial in trials.items()} == {
        "0.3": "done", "0.9": "pruned", "0.31": "pruned",
    }  # fmt: skip
    assert 2 <= int(trials["0.9"]["epochs"]) < 5
    assert not list(directory.glob("trials/*/*.snapshot"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*RATES, "--", "--epochs", "5"], "holds no validation images out"),
        ([*RATES, "--select_on_test", *BASE], "--select_on_test: the command holds validation"),
        (BASE, "--tune: nothing to vary"),
        ([], "there is no sweep yet"),
        (["--tune", "rate", "lin", "0", "1", *BASE], "--rate: no such flag"),
        (["--tune", "batch_size", "int", "0", "8", *BASE], "--tune batch_size int 0 8: .*at least"),
        (
            ["--tune", "clipgrad", "log", "0", "1", *BASE],
            "the lower end first and above 0",
        ),
        (["--tune", "clipgrad", "of", "1", "1", *BASE], "two or more different values"),
        (["--tune", "clipgrad", "1", "2", *BASE], "expected NAME log LO HI, lin"),
        ([*RATES, "--grid", *BASE], "--grid needs a list"),
        ([*RATES, *BASE, "--sgdr_max_lr", "1"], "the command fixes it"),
        ([*RATES, *BASE, "--log_dir", "x"], "--log_dir: every trial gets its own"),
    ],
)
def test_what_cannot_work_is_refused_at_once(directory, monkeypatch, flags, message):
    with pytest.raises(UsageError, match=message):
        run_sweep(monkeypatch, directory, *flags)
    assert not directory.exists()


def test_a_sweep_stays_what_it_was(directory, monkeypatch):
    run_sweep(monkeypatch, directory, *RATES, "--trials", 1, *BASE)
    for flags, message in (
        (["--tune", "sgdr_max_lr", "lin", "0.1", "1"], "its sweep has another --tune: sgdr_max_lr"),
        (["--sampler", "random"], "another --sampler: tpe, not random"),
        (["--", "--epochs", "6", "--validation_fraction", "0.2"], "another command: --epochs 5"),
    ):
        with pytest.raises(UsageError, match=message):
            run_sweep(monkeypatch, directory, *flags)
    run_sweep(monkeypatch, directory, *RATES, "--trials", 1, *BASE)
    assert starts_of(directory) == [1]
    (directory / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match=r"sweep\.json: is no plan"):
        run_sweep(monkeypatch, directory)


def test_choosing_on_test_is_written_into_every_table(directory, monkeypatch, capsys):
    flags = ["--select_on_test", "--trials", 1, "--final", 1, "--", "--epochs", "2"]
    run_sweep(monkeypatch, directory, *RATES, *flags)
    out = capsys.readouterr().out
    assert out.count("selected on: test") == 2
    for name in ("trials.csv", "final.csv", "best.args"):
        assert "test" in (directory / name).read_text().split("selected")[1]


def test_an_optimum_at_the_edge_is_pointed_out():
    rate = space.Range("sgdr_max_lr", "log", ("1e-4", "1"))
    assert rate.edge(0.9).startswith("the best sgdr_max_lr, 0.9, lies at the edge")
    assert rate.edge(0.01) is None
    assert space.Range("batch_size", "of", ("8", "16", "32")).edge("32")
    assert space.Range("batch_size", "of", ("8", "16", "32")).edge("16") is None
    assert space.Range("loss", "of", ("mse", "inv_corr", "x")).edge("mse") is None


def test_epochs_that_were_not_evaluated_do_not_count(tmp_path):
    (tmp_path / "history.csv").write_text("epoch,val_acc\n1,\n2,0.5\n3,\n4,0.7\n")
    plan = sweep_plan.Plan(base=(), last=2)
    history = read_history(tmp_path)
    assert sweeping.scores(history, plan) == [(2, 0.5), (4, pytest.approx(0.6))]
    assert sweeping.scores(history[:1], plan) == []


@pytest.mark.parametrize(
    ("jobs", "share", "gpus", "expected"),
    [
        (1, None, "", [None]),
        (2, None, "0 1", ["0", "1"]),
        (2, None, "0 1 2 3", ["0,1", "2,3"]),
        (4, 0.5, "5 7", ["5", "5", "7", "7"]),
        (2, None, "3", ["3", "3"]),
    ],
)
def test_gpus_are_divided(jobs, share, gpus, expected):
    parts = slots.divide(jobs, share, gpus.split())
    assert [slot.environment.get("CUDA_VISIBLE_DEVICES") for slot in parts] == expected
    shared = len(set(expected)) < len(expected)
    assert all(("TF_FORCE_GPU_ALLOW_GROWTH" in slot.environment) == shared for slot in parts)


def test_too_many_gpus_are_refused():
    with pytest.raises(UsageError, match="2 jobs need 2 GPUs, but 1 are visible"):
        slots.divide(2, 1, ["0"])


def test_cores_are_divided():
    cores = os.sched_getaffinity(0)
    assert slots.divide(1, None, [])[0].cores is None
    parts = [slot.cores for slot in slots.divide(len(cores), None, [])]
    if len(cores) > 1:
        assert sorted(core for part in parts for core in part) == sorted(cores)
    assert len(slots.divide(len(cores) + 1, None, [])) == len(cores) + 1


def test_the_best_settings_on_all_images_need_no_split():
    argv = ["--epochs", "5", "--fold=1/5", "--validation_fraction", "0.2", "--seed", "3"]
    names = ("--fold", "--validation_fraction", "--seed")
    assert space.without_flags(argv, names) == ["--epochs", "5"]
    plan = sweep_plan.Plan(base=("--cache", "ram"), tune=())
    assert plan.trial_argv({"clipgrad": 0.1 + 0.2}) == [
        "--cache", "ram", "--clipgrad", "0.30000000000000004",
    ]  # fmt: skip


def test_trials_are_ordinary_trainings(directory, monkeypatch):
    # All of learn_classifier.py, with a network that compiles in a second.
    program = [sys.executable, "-m", "tests.training.small_command"]
    monkeypatch.chdir(ROOT)
    flags = ["--grid", "--tune", "sgdr_max_lr", "of", "0.1", "1", "--jobs", 2]
    base = ["--", "--dataset", "digits-sub10", "--epochs", "2", "--fold", "1/5"]
    run_sweep(monkeypatch, directory, *flags, *base, program=program)
    trials = trials_of(directory)
    assert [trial["state"] for trial in trials] == ["done", "done"]
    for trial in trials:
        result = json.loads((Path(trial["directory"]) / "result.json").read_text())
        assert result["selected_on"] == "validation"
        assert result["arguments"]["sgdr_max_lr"] == float(trial["sgdr_max_lr"])
        with open(Path(trial["directory"]) / "history.csv", newline="") as file:
            found = [float(row["val_acc"]) for row in csv.DictReader(file)]
        assert float(trial["score"]) == pytest.approx(sum(found) / 2)
