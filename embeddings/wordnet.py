"""A class tree for any list of nouns from WordNet's database files.

Reads `index.noun` and `data.noun` in the format of the manual page wndb(5WN), for instance those
of Debian's package wordnet-base in /usr/share/wordnet.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import networkx as nx

from embeddings.hierarchy import Hierarchy, listing
from utils import UserError


@dataclass(frozen=True)
class Synset:
    """A set of synonymous nouns: one sense.

    Attributes:
        words: The synonyms, the most usual first, with underscores for spaces.
        hypernyms: Offsets of the more general synsets, in the order of the database.
        gloss: What it means, in a few words.
    """

    words: tuple[str, ...]
    hypernyms: tuple[int, ...]
    gloss: str


class WordNet:
    """The nouns of a WordNet database; a synset is known by its offset in `data.noun`."""

    def __init__(self, directory: str | os.PathLike):
        """Opens a database folder.

        Raises:
            UserError: It does not hold a WordNet database of nouns.
        """
        index, self._data = Path(directory, "index.noun"), Path(directory, "data.noun")
        for path in (index, self._data):
            if not path.is_file():
                raise UserError(
                    f"{directory}: no WordNet database: {path.name} is missing; install Debian's "
                    "package wordnet-base and give /usr/share/wordnet, or give the folder dict/ "
                    "of WordNet's own archive"
                )
        self._senses: dict[str, list[int]] = {}
        # WordNet is ASCII; whatever else is in a file of that name must not end in a traceback.
        with open(index, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, start=1):
                if line.startswith(" "):  # the licence
                    continue
                try:
                    lemma, _, _, pointer_count, *rest = line.split()
                    offsets = rest[int(pointer_count) + 2 :]
                    self._senses[lemma] = [int(offset) for offset in offsets]
                except ValueError:
                    raise UserError(f"{index}: line {number} is not in WordNet's format") from None

    def senses(self, noun: str) -> list[int]:
        """The offsets of all synsets of a noun, without its `#…`, the most usual first."""
        return self._senses.get(noun.lower().partition("#")[0], [])

    def find(self, noun: str) -> int | None:
        """The offset of a noun's synset, `None` where WordNet does not have it.

        Args:
            noun: A noun, words joined by underscores, in its first (most usual) sense; or with
                another sense as in `seal#2`.
        """
        _, _, sense = noun.partition("#")
        offsets = self.senses(noun)
        number = int(sense) if sense.isdecimal() else (0 if sense else 1)
        return offsets[number - 1] if 1 <= number <= len(offsets) else None

    def synset(self, offset: int) -> Synset:
        """The synset at an offset of `data.noun`.

        Raises:
            UserError: There is none; the database is damaged.
        """
        try:
            with open(self._data, "rb") as file:
                file.seek(offset)
                line, _, gloss = file.readline().decode().partition(" | ")
            fields = line.split()
            if fields[0] != f"{offset:08}":
                raise ValueError
            end_of_words = 4 + 2 * int(fields[3], 16)
            pointers = fields[end_of_words + 1 :][: 4 * int(fields[end_of_words])]
            hypernyms = [
                int(target)
                for symbol, target in zip(pointers[0::4], pointers[1::4], strict=True)
                if symbol in ("@", "@i")  # a kind of, and an instance of
            ]
        except (ValueError, IndexError):
            raise UserError(f"{self._data}: damaged: no synset at byte {offset}") from None
        return Synset(tuple(fields[4:end_of_words:2]), tuple(hypernyms), gloss.strip())


def noun_tree(wordnet: WordNet, nouns: Mapping[str, tuple[str, str]]) -> Hierarchy:
    """The tree of WordNet's hypernyms above some nouns, as the paper made one for CIFAR-100.

    WordNet gives a synset several hypernyms. Of those the one is kept that is above most of the
    nouns, the first listed of several such: it says most about how the classes belong together.
    Then nodes with a single child go, since they would add to heights without telling classes
    apart. Every class is a leaf; one whose synset has other classes below it becomes a leaf right
    under that synset.

    Args:
        wordnet: The database.
        nouns: For each class id the class's name, and the noun to look up (see `WordNet.find`).

    Raises:
        UserError: Nouns are not in WordNet (all of them are named), or there are fewer than two.
    """
    synset_of = {class_id: wordnet.find(noun) for class_id, (_, noun) in nouns.items()}
    missing = [nouns[class_id][1] for class_id, offset in synset_of.items() if offset is None]
    if missing:
        raise UserError(
            f"not a noun, or not a sense of it, in WordNet: {listing(missing, 20)}; write "
            "`ID NAME NOUN` with a noun that it has, such as `1 aquarium_fish goldfish`"
        )
    if len(nouns) < 2:
        raise UserError("a tree needs at least two nouns")

    synsets: dict[int, Synset] = {}
    pending = list(synset_of.values())
    while pending:
        offset = pending.pop()
        if offset not in synsets:
            synsets[offset] = wordnet.synset(offset)
            pending.extend(synsets[offset].hypernyms)
    upwards = nx.DiGraph((o, parent) for o, s in synsets.items() for parent in s.hypernyms)
    upwards.add_nodes_from(synsets)
    classes_below = Counter()
    for offset in synset_of.values():
        classes_below.update({offset, *nx.descendants(upwards, offset)})

    tree = nx.DiGraph()
    for offset, synset in synsets.items():
        if synset.hypernyms:
            tree.add_edge(max(synset.hypernyms, key=classes_below.__getitem__), offset)
    tree.add_edges_from((offset, class_id) for class_id, offset in synset_of.items())
    _drop_unneeded(tree, keep=nouns)

    names = {class_id: name for class_id, (name, _) in nouns.items()}
    node_of: dict[int | str, str] = {class_id: class_id for class_id in nouns}
    taken = set(nouns)
    for offset in sorted(node for node in tree if node not in nouns):
        name = synsets[offset].words[0].replace("_", " ")
        node_of[offset] = name if name not in taken else f"{name} #{offset:08}"
        taken.add(node_of[offset])
    order = list(nouns)
    edges = sorted(
        tree.edges,
        key=lambda edge: (
            edge[1] in nouns,
            order.index(edge[1]) if edge[1] in nouns else node_of[edge[1]],
        ),
    )
    return Hierarchy(((node_of[a], node_of[b]) for a, b in edges), names)


def describe_senses(wordnet: WordNet, nouns: Mapping[str, tuple[str, str]]) -> list[str]:
    """For each class whose noun has several senses, a line with the one that was taken.

    The usual sense of a word is not always the one that images show: a beaver is a fur first.

    Args:
        wordnet: The database.
        nouns: As for `noun_tree`.
    """
    lines = []
    for class_id, (_, noun) in nouns.items():
        senses = wordnet.senses(noun)
        if len(senses) > 1:
            offset = wordnet.find(noun)
            gloss = wordnet.synset(offset).gloss.partition(";")[0]
            number = f"{senses.index(offset) + 1} of {len(senses)}"
            lines.append(f"{class_id}: {noun.partition('#')[0]}, sense {number}: {gloss}")
    return lines


def _drop_unneeded(tree: nx.DiGraph, keep: Mapping) -> None:
    """Removes inner nodes with one child, or none because their classes hang elsewhere."""
    if not nx.is_directed_acyclic_graph(tree):
        raise UserError("the WordNet database is damaged: a synset is above itself")
    for node in reversed(list(nx.topological_sort(tree))):
        children = list(tree.successors(node))
        if node not in keep and len(children) <= 1:
            tree.add_edges_from((p, c) for p in list(tree.predecessors(node)) for c in children)
            tree.remove_node(node)
