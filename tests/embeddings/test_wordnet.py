import pytest

from embeddings.hierarchy_files import format_tree
from embeddings.wordnet import WordNet, describe_senses, noun_tree
from utils import UserError

# Name of a synset → its words, its hypernyms (`i:` marks one of an instance), its gloss.
MINIATURE = {
    "entity": (["entity"], [], "that which is"),
    "thing": (["thing"], ["entity"], "a tangible object; as in \"a thing\""),
    "animal": (["animal", "creature"], ["thing"], "a living organism"),
    "mammal": (["mammal"], ["animal"], "suckles its young"),
    "pet": (["pet"], ["animal"], "kept at home"),
    "canine": (["canine"], ["mammal"], "dog-like"),
    "dog": (["dog"], ["pet", "canine"], "barks"),
    "wolf": (["wolf"], ["canine"], "howls"),
    "seal": (["seal"], ["mammal"], "swims"),
    "stamp": (["seal", "stamp"], ["device"], "closes a letter; of wax"),
    "device": (["device"], ["thing"], "made for a purpose"),
    "clock": (["clock"], ["device"], "tells the time"),
    "lassie": (["Lassie"], ["i:dog"], "a dog in films"),
}  # fmt: skip
SENSES = {
    "seal": ["stamp", "seal"],
    "stamp": ["stamp"],
    "lassie": ["lassie"],
    "creature": ["animal"],
}
LICENCE = "  1 This is the licence of the miniature.  \n  2 It has two lines.  \n"


@pytest.fixture
def directory(tmp_path):
    """MINIATURE in the format of wndb(5WN), offsets and all."""

    def record(name, offsets):
        words, hypernyms, gloss = MINIATURE[name]
        pointers = "".join(
            f"{'@i' if h.startswith('i:') else '@'} {offsets[h.removeprefix('i:')]:08} n 0000 "
            for h in hypernyms
        )
        listed = "".join(f"{word} 0 " for word in words)
        # A pointer to a part must not be taken for a hypernym.
        return (
            f"{offsets[name]:08} 03 n {len(words):02x} {listed}{len(hypernyms) + 1:03} {pointers}"
            f"%p {offsets['entity']:08} n 0000 | {gloss}  \n"
        )

    offsets, position = {}, len(LICENCE)
    for name in MINIATURE:
        offsets[name] = position
        position += len(record(name, dict.fromkeys(MINIATURE, 0)))
    (tmp_path / "data.noun").write_text(LICENCE + "".join(record(n, offsets) for n in MINIATURE))

    senses = {words[0].lower(): [name] for name, (words, _, _) in MINIATURE.items()} | SENSES
    index = "".join(
        f"{lemma} n {len(names)} 2 @ ~ {len(names)} 0 "
        + " ".join(f"{offsets[name]:08}" for name in names)
        + "  \n"
        for lemma, names in sorted(senses.items())
    )
    (tmp_path / "index.noun").write_text(LICENCE + index)
    return tmp_path


def tree_of(directory, nouns):
    return noun_tree(WordNet(directory), {i: (n.partition("#")[0], n) for i, n in nouns.items()})


def test_reads_synsets_senses_and_hypernyms(directory):
    wordnet = WordNet(directory)
    dog = wordnet.synset(wordnet.find("dog"))
    assert dog.words == ("dog",)
    assert dog.gloss == "barks"
    assert [wordnet.synset(offset).words[0] for offset in dog.hypernyms] == ["pet", "canine"]
    assert wordnet.synset(wordnet.find("Creature")).words == ("animal", "creature")
    assert wordnet.find("seal") == wordnet.find("stamp") == wordnet.find("seal#1")
    assert wordnet.synset(wordnet.find("seal#2")).gloss == "swims"
    assert len(wordnet.synset(wordnet.find("lassie")).hypernyms) == 1
    for unknown in ("unicorn", "seal#3", "seal#0", "seal#x"):
        assert wordnet.find(unknown) is None


def test_the_tree_keeps_what_tells_the_classes_apart(directory):
    tree = tree_of(directory, {"0": "clock", "1": "wolf", "2": "dog", "3": "seal#2"})
    # dog goes below canine, which is above wolf too, and not below pet; entity, animal and device
    # have one child each and go.
    assert format_tree(tree) == (
        "thing\n"
        "    mammal\n"
        "        canine\n"
        "            1: wolf\n"
        "            2: dog\n"
        "        3: seal\n"
        "    0: clock\n"
    )


def test_a_class_above_another_becomes_a_leaf_and_names_stay_unique(directory):
    tree = tree_of(directory, {"mammal": "mammal", "wolf": "wolf", "lassie": "lassie"})
    assert tree.leaves == ["lassie", "mammal", "wolf"]
    assert tree.is_tree
    assert tree.root.startswith("mammal #")
    assert tree.lcs("mammal", "wolf") == tree.root
    assert tree.lcs("lassie", "wolf") == "canine"


def test_synonyms_are_sisters(directory):
    tree = tree_of(directory, {"a": "animal", "c": "creature", "k": "clock"})
    assert tree.lcs("a", "c") == "animal"
    assert tree.lcs("a", "k") == "thing"


def test_senses_are_described_where_there_are_several(directory):
    nouns = {"7": ("seal", "seal"), "8": ("sea lion", "seal#2"), "9": ("dog", "dog")}
    assert describe_senses(WordNet(directory), nouns) == [
        "7: seal, sense 1 of 2: closes a letter",
        "8: seal, sense 2 of 2: swims",
    ]


def test_nouns_that_wordnet_lacks_are_all_named(directory):
    with pytest.raises(UserError, match="unicorn, seal#9; write `ID NAME NOUN`"):
        tree_of(directory, {"0": "unicorn", "1": "dog", "2": "seal#9"})
    with pytest.raises(UserError, match="at least two nouns"):
        tree_of(directory, {"0": "dog"})


def test_a_missing_or_damaged_database_is_named(directory, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(UserError, match=r"index\.noun is missing; install .* wordnet-base"):
        WordNet(empty)
    data = directory / "data.noun"
    data.write_bytes(data.read_bytes()[1:])
    with pytest.raises(UserError, match=r"data\.noun: damaged: no synset at byte"):
        tree_of(directory, {"0": "dog", "1": "wolf"})
    (directory / "index.noun").write_text("dog n\n")
    with pytest.raises(UserError, match=r"index\.noun: line 1 is not in WordNet's format"):
        WordNet(directory)
