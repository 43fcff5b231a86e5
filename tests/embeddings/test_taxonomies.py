"""The four shipped taxonomies, and the embedding files made from them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import compute_class_embedding
from embeddings import load_embedding
from embeddings.hierarchy_files import read_hierarchy

ROOT = Path(__file__).parents[2]
TAXONOMIES = ROOT / "embeddings" / "taxonomies"
REFERENCE = ROOT.parent / "shared" / "reference" / "hierarchies"

# Of the reference trees: height, nodes, and SHA-256 of the heights of the lowest common subsumers
# of all pairs of classes, in ascending order of their ids, as one byte each.
EXPECTED = {
    "cifar100": (8, 163, "d14874119282673295f25738b57a14f17a220ff6c10e1ba47ae6dd3fc656eaa8"),
    "cub_flat": (4, 368, "29d6ab767c2fe0cc3e319ae2ab1bdc5e1cf01d07294ce4a883ec2503d8b338d8"),
    "cub_wikispecies": (6, 383, "8fba478737e6449d316a5b2d8c7a534573cd224f509311d97bbda0f63900f626"),
    "cub_balanced": (7, 421, "3d4d08169eff8923a421093637b52ca4a8414ffba83ae80dba38f98b9b238f30"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_pair_has_the_references_dissimilarity(name):
    tree = read_hierarchy(TAXONOMIES / f"{name}.txt")
    ids = list(range(100)) if name == "cifar100" else list(range(1, 201))
    assert tree.leaves == ids
    digest = hashlib.sha256(tree.lcs_heights(ids).astype(np.uint8).tobytes()).hexdigest()
    assert (tree.height, len(tree), digest) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_digests_are_those_of_the_reference_files(name):
    path = REFERENCE / f"{name}.parent-child.txt"
    if not path.is_file():
        pytest.skip("needs the original trees")
    reference = read_hierarchy(path)
    tree = read_hierarchy(TAXONOMIES / f"{name}.txt")
    np.testing.assert_array_equal(
        tree.dissimilarity(tree.leaves), reference.dissimilarity(reference.leaves)
    )


def test_class_names_are_those_of_the_reference():
    species, names = REFERENCE / "cub_species.txt", REFERENCE / "cifar100.names.txt"
    if not species.is_file():
        pytest.skip("needs the original trees")
    for name in ("cub_flat", "cub_wikispecies", "cub_balanced"):
        tree = read_hierarchy(TAXONOMIES / f"{name}.txt")
        for line in species.read_text().splitlines():
            class_id, scientific = line.split(" ", 1)
            label = tree.names[int(class_id)]
            assert label == scientific or label.endswith(f"({scientific})")
    tree = read_hierarchy(TAXONOMIES / "cifar100.txt")
    for line in names.read_text().splitlines()[:100]:
        class_id, label = line.split()
        assert tree.names[int(class_id)] == label


@pytest.mark.parametrize("name", EXPECTED)
def test_the_embedding_files_are_made_from_the_taxonomies_byte_for_byte(name, tmp_path):
    made = tmp_path / "made.npz"
    args = compute_class_embedding.parse_arguments(
        ["--hierarchy", str(TAXONOMIES / f"{name}.txt"), "--out", str(made)]
    )
    compute_class_embedding.compute(args)
    assert made.read_bytes() == (TAXONOMIES / f"{name}.npz").read_bytes()


@pytest.mark.parametrize("name", EXPECTED)
def test_the_embedding_files_hold_what_they_say(name):
    tree = read_hierarchy(TAXONOMIES / f"{name}.txt")
    embedding = load_embedding(TAXONOMIES / f"{name}.npz")
    assert embedding.class_ids == tree.leaves
    assert embedding.class_names == [tree.names[leaf] for leaf in tree.leaves]
    assert (embedding.method, embedding.hierarchy_digest) == ("unitsphere", tree.digest())
    np.testing.assert_allclose(
        embedding.vectors @ embedding.vectors.T, 1 - tree.dissimilarity(tree.leaves), atol=2e-15
    )
