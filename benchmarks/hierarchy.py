"""Time and memory of the all-pairs similarities and of retrieval, one process per row.

    python benchmarks/hierarchy.py [--only NAME]

Trees are random, of the size and height of the real ones: NABirds has 555 classes 4 below the root,
iNaturalist 2018 about 8,000 classes 6 below it. "graph" gives every third node a second parent.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from embeddings import retrieval
from embeddings.hierarchy import Hierarchy
from embeddings.solvers import unitsphere


def random_hierarchy(classes: int, levels: int, second_parents: bool = False) -> Hierarchy:
    """A hierarchy whose leaves are all `levels` below the root, about equally branched."""
    rng = np.random.default_rng(0)
    edges, above, count = [], [0], 1
    for level in range(1, levels + 1):
        nodes = list(range(count, count + round(classes ** (level / levels))))
        count += len(nodes)
        parents = [*above, *rng.choice(above, len(nodes) - len(above)).tolist()]
        edges += zip(parents, nodes, strict=True)
        if second_parents:
            others = rng.choice(above, len(nodes[::3])).tolist()
            edges += zip(others, nodes[::3], strict=True)
        above = nodes
    return Hierarchy(edges)


def pairwise(classes: int, levels: int, second_parents: bool = False) -> None:
    hierarchy = random_hierarchy(classes, levels, second_parents)
    hierarchy.dissimilarity(hierarchy.leaves)


def wu_palmer(classes: int, levels: int) -> None:
    hierarchy = random_hierarchy(classes, levels)
    hierarchy.wu_palmer(hierarchy.leaves)


def solve(classes: int, levels: int) -> None:
    hierarchy = random_hierarchy(classes, levels)
    unitsphere(hierarchy.dissimilarity(hierarchy.leaves))


def retrieve(images: int, classes: int, dimensions: int) -> None:
    rng = np.random.default_rng(0)
    hierarchy = random_hierarchy(classes, 4)
    similarities = {
        "LCS height": 1 - hierarchy.dissimilarity(hierarchy.leaves),
        "WUP": hierarchy.wu_palmer(hierarchy.leaves),
    }
    labels = rng.integers(classes, size=images)
    features = rng.standard_normal((images, dimensions), np.float32)
    retrieval.retrieve(features, labels, similarities)


ROWS = {
    "dissimilarity, 555 classes, tree": (pairwise, 555, 4),
    "dissimilarity, 8,000 classes, tree": (pairwise, 8000, 6),
    "dissimilarity, 8,000 classes, graph": (pairwise, 8000, 6, True),
    "Wu-Palmer, 8,000 classes, tree": (wu_palmer, 8000, 6),
    "dissimilarity and unitsphere, 555 classes": (solve, 555, 4),
    "dissimilarity and unitsphere, 8,000 classes": (solve, 8000, 6),
    "retrieval, 25,000 images, 555 classes, 512 dimensions": (retrieve, 25_000, 555, 512),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="rows whose name has this")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        function, *arguments = ROWS[args.row]
        start = time.perf_counter()
        function(*arguments)
        seconds = time.perf_counter() - start
        gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| {args.row} | {seconds:.2f} s | {gigabytes:.2f} GB |")
        return
    print("| what | time | peak memory |\n|---|---|---|", flush=True)
    for row in ROWS:
        if not args.only or args.only in row:
            subprocess.run([sys.executable, __file__, "--row", row], check=True)


if __name__ == "__main__":
    main()
