"""Class embeddings: one vector per class, what `--embedding` asks for, and their files.

Nothing here imports Keras, so that a script can check its arguments before loading a backend.
"""

import os
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreign_files import load_npz, load_pickle
from foreign_files.lines import same_name
from utils import UsageError, UserError, atomic_path, counted, say

_HIERARCHY = "hierarchy:"
_ACCEPTED = "onehot, a file (.npz or the original's .pickle), or hierarchy:FILE"


@dataclass(frozen=True)
class Embedding:
    """Vectors of classes, and where they are from.

    Attributes:
        vectors: float64 `(classes, dimensions)`.
        class_ids: The id of each row's class, all integers or all strings.
        class_names: The name of each row's class.
        method: The solver, or `"unknown"`.
        hierarchy_digest: `Hierarchy.digest()` of the taxonomy, empty where it is unknown.
    """

    vectors: np.ndarray
    class_ids: Sequence[int] | Sequence[str]
    class_names: Sequence[str]
    method: str = "unknown"
    hierarchy_digest: str = ""


def check_embedding(spec: str) -> None:
    """Checks the form of `--embedding`, and that its file exists, before anything is loaded.

    Raises:
        UsageError: It is of no known form, or its file is missing.
    """
    if spec == "onehot":
        return
    path = Path(spec.removeprefix(_HIERARCHY))
    if not spec.startswith(_HIERARCHY) and path.suffix not in (".npz", ".pickle", ".pkl"):
        raise UsageError(f"--embedding {spec}: expected {_ACCEPTED}")
    if not path.is_file():
        raise UsageError(f"--embedding {spec}: no such file; expected {_ACCEPTED}")


def class_embeddings(
    spec: str, class_ids: Sequence[int | str], class_names: Sequence[str] | None = None
) -> np.ndarray:
    """The embedding of every class of a data set, as `--embedding` asks for it.

    A file says itself which of its rows is which class: rows are found by class id, never by
    their place, so a file may list the classes in any order. Integers and strings are compared as
    they are written. Classes that only the file has are named on standard error and left out.

    Args:
        spec: `onehot`; a file, `.npz` or the original's `.pickle`; or `hierarchy:FILE`, which
            computes the `unitsphere` embedding of a taxonomy (its `parent child` or
            `child parent` order is told by which of them has a single root).
        class_ids: The data set's own ids of its classes.
        class_names: Their names, for error messages.

    Returns:
        float64 `(classes, dimensions)`, rows in the order of `class_ids`.

    Raises:
        UsageError: `spec` is of no known form or its file is missing.
        UserError: The file is damaged, or lacks classes.
    """
    check_embedding(spec)
    if spec == "onehot":
        return one_hot(len(class_ids))
    if spec.startswith(_HIERARCHY):
        return _from_hierarchy(spec.removeprefix(_HIERARCHY), class_ids)

    from embeddings.hierarchy import listing

    embedding = load_embedding(spec)
    rows = {same_name(str(class_id)): row for row, class_id in enumerate(embedding.class_ids)}
    wanted = [same_name(str(class_id)) for class_id in class_ids]
    names = list(class_names) if class_names is not None else [""] * len(wanted)
    missing = [
        f"{class_id} ({name})" if name and name != class_id else class_id
        for class_id, name in zip(wanted, names, strict=True)
        if class_id not in rows
    ]
    if missing:
        raise UserError(
            f"{spec}: has no embedding for {len(missing)} of the data set's {len(wanted)} classes: "
            f"{listing(missing)}; it has the ids {listing(rows)}"
        )
    superfluous = sorted(rows.keys() - set(wanted), key=rows.get)
    if superfluous:
        count = counted(len(superfluous), "class is", "classes are")
        left_out = listing(superfluous)
        say(f"{spec}: {count} not in the data set and left out: {left_out}", file=sys.stderr)
    return embedding.vectors[[rows[class_id] for class_id in wanted]]


def one_hot(num_classes: int) -> np.ndarray:
    """One orthonormal vector per class, float64 `(num_classes, num_classes)`."""
    return np.eye(num_classes)


def save_embedding(path: str | os.PathLike, embedding: Embedding) -> None:
    """Writes an `.npz` file whose bytes depend on nothing but its contents.

    Its arrays are `embedding`, float64 `(classes, dimensions)`; `class_ids`, int64 or text;
    `class_names`, `method` and `hierarchy_digest`, text. All can be read with
    `numpy.load(path, allow_pickle=False)`.
    """
    arrays = {
        "embedding": np.ascontiguousarray(embedding.vectors, "<f8"),
        "class_ids": _id_array(embedding.class_ids),
        "class_names": np.array(list(embedding.class_names), "<U"),
        "method": np.array(embedding.method, "<U"),
        "hierarchy_digest": np.array(embedding.hierarchy_digest, "<U"),
    }
    # numpy.savez stamps the time into the archive, and compressors differ between releases.
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system = 3
            member.external_attr = 0o644 << 16
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def load_embedding(path: str | os.PathLike) -> Embedding:
    """Reads an embedding file: our `.npz`, or a `.pickle` of the original.

    The latter is a dictionary with `embedding`, `(classes, dimensions)`, and `ind2label`, the
    class id of each row; it is read without running any code it may hold.

    Raises:
        UserError: The file cannot be read, is damaged, or is no embedding.
    """
    path = Path(path)
    return _load_npz(path) if path.suffix == ".npz" else _load_pickle(path)


def _load_npz(path: Path) -> Embedding:
    arrays = load_npz(path, ["embedding", "class_ids"])
    class_ids = arrays["class_ids"]
    class_names = arrays.get("class_names", class_ids.astype(str))
    method = str(arrays.get("method", "unknown"))
    digest = str(arrays.get("hierarchy_digest", ""))
    return _checked(
        path, arrays["embedding"], class_ids.tolist(), class_names.tolist(), method, digest
    )


def _load_pickle(path: Path) -> Embedding:
    content = load_pickle(path)
    if "embedding" not in content or "ind2label" not in content:
        raise UserError(
            f"{path}: not an embedding file: expected a matrix `embedding`, and a list `ind2label` "
            "of class ids, all integers or all strings"
        )
    ids = content["ind2label"]
    ids = ids if isinstance(ids, list) else ids.tolist()
    return _checked(path, content["embedding"], ids, ids, "unknown", "")


def _checked(
    path: Path, vectors: object, class_ids: list, class_names: list, method: str, digest: str
) -> Embedding:
    """An embedding from what a file held, which may be anything.

    Raises:
        UserError: Shapes, types or values make no sense.
    """
    is_array = isinstance(vectors, np.ndarray) and vectors.dtype.kind in "fiu"
    if not is_array or vectors.ndim != 2 or not vectors.shape[1]:
        raise UserError(f"{path}: its embedding is no matrix of numbers with one row per class")
    if not isinstance(class_ids, list) or len(class_ids) != len(vectors) or not len(vectors):
        raise UserError(f"{path}: it does not have one class id for each row of its embedding")
    if not all(type(i) is int for i in class_ids) and not all(type(i) is str for i in class_ids):
        raise UserError(f"{path}: its class ids are neither all integers nor all strings")
    seen = set()
    if twice := [str(i)[:50] for i in class_ids if i in seen or seen.add(i)]:
        raise UserError(f"{path}: class ids occur twice: {', '.join(twice[:5])}")
    if not isinstance(class_names, list) or len(class_names) != len(class_ids):
        raise UserError(f"{path}: it does not have one class name for each class id")
    vectors = vectors.astype(np.float64)
    if not np.isfinite(vectors).all():
        raise UserError(f"{path}: its embedding has values that are not finite")
    return Embedding(vectors, class_ids, list(map(str, class_names)), method, digest)


def _id_array(class_ids: Sequence[int | str]) -> np.ndarray:
    if all(isinstance(class_id, str) for class_id in class_ids):
        return np.array(list(class_ids), "<U")
    try:
        return np.array(list(class_ids), "<i8")
    except OverflowError:
        raise UserError("class ids beyond 64 bits: use text ids (--str_ids)") from None


def _from_hierarchy(path: str, class_ids: Sequence[int | str]) -> np.ndarray:
    from embeddings.hierarchy_files import read_hierarchy
    from embeddings.solvers import unitsphere

    str_ids = any(isinstance(class_id, str) for class_id in class_ids)
    ids = [same_name(str(i)) if str_ids else int(i) for i in class_ids]
    hierarchy = read_hierarchy(path, is_a=None, str_ids=str_ids)
    try:
        return unitsphere(hierarchy.dissimilarity(ids))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
