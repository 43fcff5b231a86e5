"""Computes class embeddings from a class hierarchy, and converts, draws and makes hierarchies.

    python compute_class_embedding.py --hierarchy TREE.txt --out E.npz
    python compute_class_embedding.py --hierarchy hierarchy.txt --is_a --class_list C --out E.npz
    python compute_class_embedding.py --from_pickle OLD.pickle --out E.npz
    python compute_class_embedding.py --wordnet /usr/share/wordnet --class_list C --out TREE.txt
    python compute_class_embedding.py --hierarchy TREE.txt --show --plot TREE.svg

The embedding files go to `learn_classifier.py --embedding`.
"""

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import utils  # first: it says in a line what fails to load

# isort: split
import datasets
from embeddings import solvers
from training.flags import paths
from training.flags.declaration import Flag
from training.flags.parser import Parser, number
from training.reporting.flags import HIERARCHY_FORMAT

if TYPE_CHECKING:
    from embeddings.hierarchy import Hierarchy


SOURCES = (
    Flag("--hierarchy", metavar="H", help="`parent child` lines, or a tree by indentation"),
    Flag("--from_pickle", metavar="OLD", help="convert an embedding file of the original"),
    Flag(
        "--wordnet",
        metavar="DIR",
        help="make a tree for the nouns of --class_list from WordNet's database files "
        "(on Debian: package wordnet-base, folder /usr/share/wordnet)",
    ),
)
FLAGS = (
    *HIERARCHY_FORMAT,
    Flag(
        "--class_list",
        metavar="C",
        help="classes, one `ID NAME` per line, in the order of the rows; with --wordnet `ID NAME "
        "[NOUN]`, where NOUN names another noun or a sense of it as in seal#2; a tab ends an ID or "
        "NAME with spaces",
        default_text="all leaves, sorted",
    ),
    Flag(
        "--method",
        choices=solvers.METHODS,
        default="unitsphere",
        help="unitsphere: unit vectors whose dot products are the similarities; approx_sim: the "
        "nearest to that in --num_dim dimensions; spheres, mds: the same two for Euclidean "
        "distances equal to the dissimilarities",
    ),
    Flag("--num_dim", type=number(int), metavar="D", help="for approx_sim and mds"),
    Flag("--norm", action="store_true", help="scale the vectors to unit length"),
    Flag("--out", metavar="FILE", help="the .npz (with --wordnet: text) to write"),
    Flag("--plot", metavar="FILE", help="draw the hierarchy as .svg, .png or .pdf"),
    Flag("--show", action="store_true", help="print the hierarchy as a tree"),
)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The checked command line.

    Raises:
        UsageError: Flags do not go together, or a file is missing.
    """
    parser = Parser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    for flag in SOURCES:
        flag.add_to(source)
    for flag in FLAGS:
        flag.add_to(parser)
    args = parser.parse_args(argv)

    for flag in ("hierarchy", "from_pickle", "class_list"):
        path = getattr(args, flag)
        if path:
            paths.check_input_file(f"--{flag}", path)
    if not (args.out or args.plot or args.show):
        raise utils.UsageError("nothing to do: give --out, --plot or --show")
    paths.check_output_file("--out", args.out, "" if args.wordnet else ".npz")
    paths.check_output_file("--plot", args.plot, (".svg", ".png", ".pdf"))
    if args.num_dim is not None and args.method not in ("approx_sim", "mds"):
        raise utils.UsageError(
            f"--num_dim: {args.method} fixes the dimensions; use --method approx_sim or mds"
        )
    if args.num_dim is not None and args.num_dim < 1:
        raise utils.UsageError(f"--num_dim {args.num_dim}: expected at least 1")
    if args.wordnet and not args.class_list:
        raise utils.UsageError("--wordnet needs --class_list, the nouns to make a tree of")
    if args.from_pickle and (args.plot or args.show):
        raise utils.UsageError("--from_pickle holds no hierarchy for --plot or --show")
    _check_unused(args, parser)
    for flag in ("hierarchy", "from_pickle", "class_list"):
        path = getattr(args, flag)
        if path and args.out and os.path.realpath(path) == os.path.realpath(args.out):
            raise utils.UsageError(f"--out {args.out}: would overwrite what --{flag} reads")
    return args


def _check_unused(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Refuses flags that do nothing with the others."""
    unused = {
        "from_pickle": ("method", "num_dim", "norm", "is_a", "str_ids", "class_list"),
        "wordnet": ("method", "num_dim", "norm", "is_a"),
    }
    for source, flags in unused.items():
        for flag in flags:
            if getattr(args, source) and getattr(args, flag) != parser.get_default(flag):
                raise utils.UsageError(f"--{flag} does nothing with --{source}; leave it out")
    if not args.out:
        for flag in ("method", "num_dim", "norm", "class_list"):
            if getattr(args, flag) != parser.get_default(flag):
                raise utils.UsageError(f"--{flag} does nothing without --out; leave it out")


def listed_classes(
    path: str, hierarchy: "Hierarchy", str_ids: bool
) -> tuple[list[int] | list[str], list[str | None]]:
    """The ids of a class list and the names; a name is `None` where a line has only an id.

    Raises:
        UserError: The file cannot be read or is empty, or a line is no class of the hierarchy.
    """
    kind = str if str_ids else int
    known = {str(node): node for node in hierarchy.heights if isinstance(node, kind)}
    try:
        found = datasets.read_class_list(path).match(known, "the hierarchy")
    except utils.UserError as error:
        hint = "" if str_ids else " (its ids are integers; give --str_ids for string ids)"
        raise utils.UserError(f"--class_list {error}{hint}") from None
    return list(found), list(found.values())


def compute(args: argparse.Namespace) -> None:
    """Does with `--hierarchy` what `--out`, `--plot` and `--show` ask for."""
    from embeddings.hierarchy_files import read_hierarchy

    hierarchy = read_hierarchy(args.hierarchy, is_a=args.is_a, str_ids=args.str_ids)
    if args.out:
        save(hierarchy, args)
    draw(hierarchy, args)


def save(hierarchy: "Hierarchy", args: argparse.Namespace) -> None:
    """Computes the embedding of a hierarchy's classes, reports its deviation, writes `--out`."""
    from embeddings import Embedding, save_embedding
    from embeddings.solvers import solve

    if args.class_list:
        class_ids, names = listed_classes(args.class_list, hierarchy, args.str_ids)
    else:
        class_ids = hierarchy.leaves
        names = [None] * len(class_ids)
        if len({type(class_id) for class_id in class_ids}) > 1:
            named = next(class_id for class_id in class_ids if isinstance(class_id, str))
            raise utils.UserError(
                f"{args.hierarchy}: leaf {named!r} has no id, but others have; write `id: name`"
            )
    try:
        dissimilarity = hierarchy.dissimilarity(class_ids)
        solution = solve(args.method, dissimilarity, args.num_dim, norm=args.norm)
    except utils.UserError as error:
        raise utils.UserError(f"{args.hierarchy}: {error}") from None
    print(
        f"{args.method}: {len(class_ids)} classes, {solution.vectors.shape[1]} dimensions; "
        f"deviation from the target {solution.target}: largest {solution.max_deviation:.2e}, "
        f"mean {solution.mean_deviation:.2e}"
    )
    names = [name or hierarchy.names[i] for i, name in zip(class_ids, names, strict=True)]
    embedding = Embedding(solution.vectors, class_ids, names, args.method, hierarchy.digest())
    save_embedding(args.out, embedding)


def convert(args: argparse.Namespace) -> None:
    """Writes the embedding of an original's file as `--out`."""
    from embeddings import load_embedding, save_embedding

    embedding = load_embedding(args.from_pickle)
    save_embedding(args.out, embedding)
    classes, dimensions = embedding.vectors.shape
    print(f"{args.out}: {classes} classes, {dimensions} dimensions")


def make_tree(args: argparse.Namespace) -> None:
    """Writes the tree that WordNet has for the nouns of `--class_list` as `--out`."""
    from embeddings.hierarchy_files import format_tree
    from embeddings.wordnet import WordNet, describe_senses, noun_tree

    nouns = {}
    for class_id, *words in datasets.read_class_list(args.class_list).fields():
        if len(words) > 2:
            raise utils.UserError(
                f"{args.class_list}: class {class_id}: expected `ID NAME [NOUN]`; separate "
                "these by tabs, or join the words of a name by underscores"
            )
        if class_id in nouns:
            raise utils.UserError(f"{args.class_list}: class {class_id} is listed more than once")
        words = words or [class_id]
        nouns[class_id] = (words[0], words[-1].replace(" ", "_"))
    wordnet = WordNet(args.wordnet)
    hierarchy = noun_tree(wordnet, nouns)
    if args.out:
        head = [
            "Made from WordNet's hypernyms by compute_class_embedding.py --wordnet.",
            "Of nouns with several senses these were taken; for another, write `ID NAME NOUN#2`:",
            *describe_senses(wordnet, nouns),
        ]
        text = "".join(f"# {line}\n" for line in head) + "\n" + format_tree(hierarchy)
        with utils.atomic_path(args.out) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"{args.out}: {len(nouns)} classes, {len(hierarchy)} nodes, {hierarchy.height} high")
    draw(hierarchy, args)


def draw(hierarchy: "Hierarchy", args: argparse.Namespace) -> None:
    """Plots and prints a hierarchy as `--plot` and `--show` ask."""
    if args.plot:
        from embeddings.drawing import plot

        plot(hierarchy, args.plot)
    if args.show:
        from embeddings.drawing import show

        for line in show(hierarchy).splitlines():
            utils.say(line)


def main() -> int:
    args = parse_arguments()
    if args.from_pickle:
        convert(args)
    elif args.wordnet:
        make_tree(args)
    else:
        compute(args)
    return 0


if __name__ == "__main__":
    utils.run_script(main)
