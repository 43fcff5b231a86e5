"""Class taxonomies: heights, depths, lowest common subsumers and what follows from them.

Definitions (Barz and Denzler, WACV 2019, arXiv 1809.09924):

- The height of a node is the longest way down to a leaf (leaves have 0), its depth the longest way
  from the root (the root has 1, as in Wu and Palmer's similarity).
- The lowest common subsumer (LCS) of two nodes is the deepest node that is, or is above, both. In
  a tree there is one; in a graph with several parents (WordNet) the first tie-breaker is the
  smaller height, the second the order of the ids.
- The dissimilarity of two classes is `height(lcs) / height(root)`.
- A class that is an inner node acts as one more leaf right below that node ("a dog, breed not
  known"): it has dissimilarity 0 to itself and `height(lcs) / height(root)` to all others.
"""

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence

import networkx as nx
import numpy as np

from utils import UserError, nearest_names

ClassId = int | str

# Larger than any path, and far enough from the type's limit to add one to it.
_UNREACHABLE = np.int32(2**30)

# WordNet's nouns have 20 levels.
_MAX_DEPTH = 1000
# Of a class and a node above it; 16 bytes are needed for each. ImageNet-21k has 600 million.
_MAX_PAIRS = 700_000_000


def sort_key(class_id: ClassId) -> tuple[bool, ClassId]:
    """Orders ids when integers (classes) and strings (named inner nodes) occur together."""
    return isinstance(class_id, str), class_id


def listing(items: Iterable[Hashable], shown: int = 5) -> str:
    """Some items for an error message: the first ones, then how many more there are."""
    items = list(items)
    more = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(map(str, items[:shown])) + more


class Hierarchy:
    """A taxonomy: a tree, or an acyclic graph with one root, with edges from parent to child.

    Attributes:
        root: The root's id.
        height: The root's height, in edges.
        heights: The height of every node, by id.
        depths: The depth of every node, by id; the root's is 1.
        leaves: The ids of all leaves, sorted.
        names: The name of every node, by id; the id as text where the file has no names.
    """

    def __init__(
        self, edges: Iterable[tuple[ClassId, ClassId]], names: Mapping[ClassId, str] | None = None
    ):
        """Builds a taxonomy from `(parent, child)` pairs; an edge given twice counts once.

        Raises:
            UserError: There are no edges, several roots, or a cycle.
        """
        self._graph = nx.DiGraph()
        self._graph.add_edges_from(edges)
        self.root = self._find_root()
        order = list(nx.topological_sort(self._graph))
        self.depths: dict[ClassId, int] = {}
        for node in order:
            above = (self.depths[parent] for parent in self._graph.predecessors(node))
            self.depths[node] = 1 + max(above, default=0)
        if (depth := max(self.depths.values())) > _MAX_DEPTH:
            raise UserError(f"the hierarchy has {depth} levels, expected at most {_MAX_DEPTH}")
        self.heights: dict[ClassId, int] = {}
        for node in reversed(order):
            below = (self.heights[child] for child in self._graph.successors(node))
            self.heights[node] = 1 + max(below, default=-1)
        self.height = self.heights[self.root]
        self.leaves = sorted((n for n, height in self.heights.items() if height == 0), key=sort_key)
        self.names = {node: str(node) for node in self._graph} | dict(names or {})

    def _find_root(self) -> ClassId:
        if not self._graph:
            raise UserError("an empty hierarchy: expected at least one parent and one child")
        if not nx.is_directed_acyclic_graph(self._graph):
            cycle = nx.find_cycle(self._graph)
            way = " → ".join(str(node) for node in [*(edge[0] for edge in cycle), cycle[0][0]])
            raise UserError(f"the hierarchy has a cycle: {way}; a class cannot be above itself")
        roots = sorted((n for n, parents in self._graph.in_degree if not parents), key=sort_key)
        if len(roots) > 1:
            raise UserError(
                f"the hierarchy has {len(roots)} roots ({listing(roots)}), expected one; join "
                "them below a common node, or swap the columns if they are `child parent` (--is_a)"
            )
        return roots[0]

    def __contains__(self, node: ClassId) -> bool:
        return node in self._graph

    def __len__(self) -> int:
        return len(self._graph)

    @property
    def is_tree(self) -> bool:
        """Whether every node but the root has exactly one parent."""
        return self._graph.number_of_edges() == len(self._graph) - 1

    def children(self, node: ClassId) -> list[ClassId]:
        """The nodes right below, in the order of the file."""
        return list(self._graph.successors(node))

    def digest(self) -> str:
        """SHA-256 of the set of edges: the same for every file that describes this hierarchy."""
        lines = sorted(f"{parent!r}\t{child!r}\n" for parent, child in self._graph.edges)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def lcs(self, first: ClassId, second: ClassId) -> ClassId:
        """The lowest common subsumer of two nodes.

        Raises:
            UserError: One of them is not in the hierarchy.
        """
        self._check_known([first, second])
        common = (nx.ancestors(self._graph, first) | {first}) & (
            nx.ancestors(self._graph, second) | {second}
        )
        return min(common, key=self._from_lowest)

    def lcs_heights(self, class_ids: Sequence[ClassId]) -> np.ndarray:
        """Heights of the lowest common subsumers of all pairs, in edges; 0 on the diagonal.

        Args:
            class_ids: Classes, each once; their order is that of the rows and columns.

        Returns:
            int32 `(classes, classes)`, symmetric.

        Raises:
            UserError: A class is unknown or occurs twice.
        """
        nodes, _, lcs = self._pairwise(class_ids)
        heights = np.array([self.heights[node] for node in nodes], np.int32)[lcs]
        np.fill_diagonal(heights, 0)
        return heights

    def dissimilarity(self, class_ids: Sequence[ClassId]) -> np.ndarray:
        """`height(lcs) / height(root)` of all pairs, 0 on the diagonal.

        Args:
            class_ids: Classes, each once; their order is that of the rows and columns.

        Returns:
            float64 `(classes, classes)` in [0, 1], symmetric.

        Raises:
            UserError: A class is unknown or occurs twice.
        """
        if not len(class_ids):
            raise UserError("no classes to compare")
        return self.lcs_heights(class_ids) / self.height

    def wu_palmer(self, class_ids: Sequence[ClassId]) -> np.ndarray:
        """Wu and Palmer's similarity of all pairs, `2 d / (2 d + e₁ + e₂)`.

        Here d is the depth of the LCS (the root's is 1) and e₁, e₂ the shortest ways from it down
        to the two classes. Source: Wu and Palmer, ACL 1994; used by Barz and Denzler, WACV 2019.

        Args:
            class_ids: Classes, each once; their order is that of the rows and columns.

        Returns:
            float64 `(classes, classes)` in (0, 1], symmetric.

        Raises:
            UserError: A class is unknown or occurs twice.
        """
        nodes, distances, lcs = self._pairwise(class_ids)
        steps = distances[lcs, np.arange(len(class_ids))[:, None]]
        steps = steps + steps.T
        twice_depth = np.array([2 * self.depths[node] for node in nodes], np.int32)[lcs]
        return twice_depth / (twice_depth + steps)

    def _from_lowest(self, node: ClassId) -> tuple:
        return -self.depths[node], self.heights[node], sort_key(node)

    def _check_known(self, class_ids: Iterable[ClassId]) -> None:
        unknown = [class_id for class_id in class_ids if class_id not in self._graph]
        if not unknown:
            return
        kinds = {type(leaf).__name__ for leaf in self.leaves}
        if type(unknown[0]).__name__ not in kinds:
            hint = f"its leaves are of type {'/'.join(sorted(kinds))}; mind --str_ids"
        else:
            hint = nearest_names(str(unknown[0]), list(map(str, self.leaves))[:1000])
            hint = hint if hint.startswith("did") else "check the ids and their order per line"
        raise UserError(f"not in the hierarchy: {listing(map(repr, unknown))}; {hint}")

    def _pairwise(
        self, class_ids: Sequence[ClassId]
    ) -> tuple[list[ClassId], np.ndarray, np.ndarray]:
        """The nodes above the classes, their distances, and the LCS of all pairs.

        Returns:
            The nodes; the fewest edges from each down to each class, int32 `(nodes, classes)`;
            the LCS of each pair as an index into the nodes, int32 `(classes, classes)`.
        """
        self._check_known(class_ids)
        wanted = set(class_ids)
        if len(wanted) < len(class_ids):
            seen: set[ClassId] = set()
            twice = [c for c in class_ids if c in seen or seen.add(c)]
            raise UserError(f"classes given twice: {listing(twice)}")

        # In this order the classes below a node of a tree are one contiguous block.
        ordered = [n for n in nx.dfs_preorder_nodes(self._graph, self.root) if n in wanted]
        column = {class_id: index for index, class_id in enumerate(ordered)}

        row: dict[ClassId, int] = {}
        for node in reversed(list(nx.topological_sort(self._graph))):
            if node in wanted or any(child in row for child in self._graph.successors(node)):
                row[node] = len(row)
        if len(row) * len(ordered) > _MAX_PAIRS:
            raise UserError(
                f"too large: {len(ordered):,} classes below {len(row) - len(ordered):,} nodes "
                f"make more than {_MAX_PAIRS:,} pairs; give fewer classes (--class_list)"
            )
        distances = np.full((len(row), len(ordered)), _UNREACHABLE, np.int32)
        for node, index in row.items():
            for child in self._graph.successors(node):
                if child in row:
                    np.minimum(distances[index], distances[row[child]] + 1, out=distances[index])
            if node in wanted:
                distances[index, column[node]] = 0

        # Lower nodes overwrite the higher ones, so that the lowest common one remains.
        lcs = np.empty((len(ordered), len(ordered)), np.int32)
        for node in sorted(row, key=self._from_lowest, reverse=True):
            below = np.flatnonzero(distances[row[node]] < _UNREACHABLE)
            first, last = below[0], below[-1] + 1
            if last - first == len(below):
                lcs[first:last, first:last] = row[node]
            else:
                lcs[np.ix_(below, below)] = row[node]

        asked = np.array([column[class_id] for class_id in class_ids])
        return list(row), distances[:, asked], lcs[np.ix_(asked, asked)]
