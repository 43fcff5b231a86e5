"""Every kind of file that the program reads, mutated: one line for the user, and nothing else."""

import pickle
from argparse import Namespace

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

import embeddings
import models
from datasets.sources import files
from embeddings.hierarchy_files import read_hierarchy
from foreign_files import image_files, load_npz, load_pickle
from training import finetuning

from ..mutating import read_mutated
from ..training.small_run import small_model


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
    "features.npz": (write_features, lambda path, _: load_npz(path, ["features", "labels"])),
    "embedding.npz": (write_embedding, lambda path, _: embeddings.load_embedding(path)),
    "batch": (write_pickle, lambda path, _: load_pickle(path)),
    "tree.txt": (
        lambda path, _: path.write_text("".join(f"{i // 2} {i}\n" for i in range(1, 30))),
        lambda path, _: read_hierarchy(path),
    ),
    "a.jpg": (write_image("JPEG"), lambda path, _: image_files.load_rgb(path)),
    "a.png": (write_image("PNG"), lambda path, _: image_files.load_rgb(path)),
    "a.mat": (
        lambda path, _: scipy.io.savemat(path, {"labels": np.arange(9, dtype=np.uint8)}),
        lambda path, _: files.read_mat(path, "labels"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_read_or_refused_in_one_line(
    name, model, forked_reading, tmp_path, monkeypatch
):
    write, read = KINDS[name]
    path = tmp_path / "in" / name
    path.parent.mkdir()
    write(path, model)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    read_mutated(path, lambda: read(path, model), name)
