"""Every kind of file that the program reads, mutated: one line for the user, and nothing else."""

import json
import os
import pickle
import random
import signal
import zipfile
from argparse import Namespace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

import embeddings
import models
import utils
from datasets import files, transforms
from embeddings.hierarchy import read_hierarchy
from models import weight_files
from training import finetuning
from utils import UserError

from .training.small_run import small_model

MUTATIONS = 200
# Of HDF5, which is read in a process of its own each time.
PROCESS_MUTATIONS = 40


@pytest.fixture(scope="module")
def model():
    return small_model(Namespace(embedding="onehot", cls_weight=0.0))


def write_image(suffix):
    def write(path, model):
        pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, format=suffix)

    return write


def write_features(path, model):
    features = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    with open(path, "wb") as file:
        np.savez(file, features=features, labels=np.arange(6), class_ids=np.arange(6))


def write_pickle(path, model):
    batch = {b"data": np.zeros((4, 3072), np.uint8), b"fine_labels": [0, 1, 2, 3]}
    path.write_bytes(pickle.dumps(batch, protocol=2))


def write_keras_2(path, model):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"conv"]
        group = file.create_group("conv")
        group.attrs["weight_names"] = [b"conv/kernel:0", b"conv/bias:0"]
        group["conv/kernel:0"] = np.ones((3, 3, 3, 4), "float32")
        group["conv/bias:0"] = np.ones(4, "float32")


def write_embedding(path, model):
    embedding = embeddings.Embedding(
        np.eye(5, dtype="float32"), list(range(5)), [str(i) for i in range(5)]
    )
    embeddings.save_embedding(path, embedding)


def read_model(path, model):
    models.load_model(path)


def read_weights(path, model):
    finetuning.load_weights(model, str(path))


# name of the file -> how it is written, how it is read
KINDS = {
    "m.keras": (lambda path, model: models.save_model(model, path), read_model),
    "own.keras": (lambda path, model: models.save_model(model, path), read_weights),
    "w.weights.h5": (lambda path, model: models.save_weights(model, path), read_weights),
    "keras2.h5": (write_keras_2, read_weights),
    "features.npz": (write_features, lambda path, _: utils.load_npz(path, ["features", "labels"])),
    "embedding.npz": (write_embedding, lambda path, _: embeddings.load_embedding(path)),
    "batch": (write_pickle, lambda path, _: utils.load_pickle(path)),
    "tree.txt": (
        lambda path, _: path.write_text("".join(f"{i // 2} {i}\n" for i in range(1, 30))),
        lambda path, _: read_hierarchy(path),
    ),
    "a.jpg": (write_image("JPEG"), lambda path, _: transforms.load_rgb(path)),
    "a.png": (write_image("PNG"), lambda path, _: transforms.load_rgb(path)),
    "a.mat": (
        lambda path, _: scipy.io.savemat(path, {"labels": np.arange(9, dtype=np.uint8)}),
        lambda path, _: files.read_mat(path, "labels"),
    ),
}  # fmt: skip


def mutations(content: bytes, draw: random.Random, count: int):
    """Truncated, empty, of another kind, bit-flipped, with numbers made extreme, and spliced."""
    yield b""
    yield b"\x00" * 100
    yield b"PK\x03\x04 not an archive"
    yield b"\x89HDF\r\n\x1a\n not HDF5"
    for i in range(count):
        mutated = bytearray(content)
        match i % 5:
            case 0:
                del mutated[draw.randrange(len(mutated)) :]
            case 1:
                at = draw.randrange(len(mutated))
                mutated[at] ^= 1 << draw.randrange(8)
            case 2:
                # The headers, where the sizes are.
                at = draw.randrange(min(len(mutated), 2000))
                mutated[at : at + 8] = draw.choice([b"\xff" * 8, b"\x7f" * 8, b"\x00" * 8])
            case 3:
                for _ in range(20):
                    mutated[draw.randrange(len(mutated))] = draw.randrange(256)
            case 4:
                at, to = draw.randrange(len(mutated)), draw.randrange(len(mutated))
                mutated[to : to + 50] = mutated[at : at + 50]
        yield bytes(mutated)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_read_or_refused_in_one_line(name, model, tmp_path, monkeypatch):
    write, read = KINDS[name]
    path = tmp_path / "in" / name
    path.parent.mkdir()
    write(path, model)
    content = path.read_bytes()
    read(path, model)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    draw = random.Random(0)
    refused = 0
    hdf5 = "keras" in name or "h5" in name
    monkeypatch.setattr(weight_files, "TIMEOUT", 10)
    for mutated in mutations(content, draw, PROCESS_MUTATIONS if hdf5 else MUTATIONS):
        path.write_bytes(mutated)
        signal.alarm(60)  # ends the tests where a file makes the program hang
        try:
            read(path, model)
        except UserError as error:
            refused += 1
            assert_one_line(error, path)
        finally:
            signal.alarm(0)
    assert refused >= 4
    assert os.listdir(here) == []
    assert os.listdir(path.parent) == [name]


def assert_one_line(error, path):
    line = " ".join(str(error).split())
    assert path.name in line
    assert len(line) < 1000


def rewrite_config(source: Path, target: Path, change) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            if member.filename == "config.json":
                config = json.loads(data)
                change(config["config"]["layers"])
                data = json.dumps(config).encode()
            new.writestr(member.filename, data)


@pytest.mark.parametrize(
    ("module", "name", "config"),
    [
        ("keras.layers", "Lambda", {"function": {"class_name": "__lambda__", "config": {}}}),
        ("keras.layers", "TFSMLayer", {"filepath": "x"}),
        ("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
        ("builtins", "exec", {}),
        ("os", "system", "true"),
    ],
)
def test_models_of_other_parts_are_refused(model, tmp_path, module, name, config):
    models.save_model(model, tmp_path / "m.keras")

    def change(layers):
        layers[2] |= {"module": module, "class_name": name, "registered_name": None}
        layers[2]["config"] = config

    rewrite_config(tmp_path / "m.keras", tmp_path / "bad.keras", change)
    with pytest.raises(UserError, match=r"bad\.keras: .*refused: it asks for "):
        models.load_model(tmp_path / "bad.keras")
