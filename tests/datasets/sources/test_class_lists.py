import logging
import unicodedata

import pytest

from datasets import read_class_list
from utils import UserError

BEARS = {name: name for name in ("black", "black bear", "white", "Löwe")}


@pytest.fixture
def match(tmp_path):
    def match(text, known=BEARS):
        (tmp_path / "c.txt").write_text(text, encoding="utf-8")
        return read_class_list(tmp_path / "c.txt").match(known, "folder")

    return match


def test_ids_may_hold_spaces(match):
    assert match("black bear\nwhite\n") == {"black bear": None, "white": None}
    assert match("white\nblack\nblack bear") == {"white": None, "black": None, "black bear": None}


@pytest.mark.parametrize(
    "line",
    [
        "black bear\tUrsus americanus",
        "black bear, Ursus americanus",
        "black bear;Ursus americanus",
        '"black bear" "Ursus americanus"',
        '"black bear",Ursus americanus',
    ],
)
def test_separators_say_where_an_id_ends(match, line):
    assert match(f"{line}\nwhite bear\n") == {
        "black bear": "Ursus americanus",
        "white": "bear",
    }


@pytest.mark.parametrize("line", ["black dog", "black bear Ursus", "black  bear"])
def test_two_possible_ids_are_refused(match, line):
    with pytest.raises(UserError, match=r"c\.txt:2: .* may be the class .*; put a tab after"):
        match(f"white\n{line}\n")


def test_a_tab_after_an_id_that_begins_others(match):
    assert match("black\tdog\nwhite") == {"black": "dog", "white": None}
    with pytest.raises(UserError, match=r"1 line names no class of folder: '.black dog"):
        match('"black dog"\nwhite')


def test_names_after_integer_ids(match, caplog):
    caplog.set_level(logging.INFO)
    known = {str(i): i for i in range(1, 20)}
    text = "\ufeff2 Löwe\n\n# two more\n1   Blue  whale \n12\n3 tench, Tinca tinca\n"
    assert match(text, known) == {2: "Löwe", 1: "Blue  whale", 12: None, 3: "tench, Tinca tinca"}
    assert not caplog.records
    # Of text ids it is said what was taken for the id.
    match("white polar\nblack bear")
    assert "1 line has an id and a name; of 'white polar' the id is 'white'" in caplog.text


def test_a_comment_has_a_space_after_its_mark(match):
    assert match("# two\nblack\nwhite") == {"black": None, "white": None}
    with pytest.raises(UserError, match=r"'#two'; its ids .*; a space after # makes a comment"):
        match("#two\nblack\nwhite")


def test_headers_are_no_classes(match):
    assert match("class_id,name\nwhite,White\nblack,Black") == {"white": "White", "black": "Black"}
    assert match("class\nwhite", {"class": 0, "white": 1}) == {0: None, 1: None}


def test_letters_with_accents_in_either_form(match):
    apart = unicodedata.normalize("NFD", "Löwe")
    assert match(f"{apart}\nwhite") == {"Löwe": None, "white": None}
    assert match("Löwe lion\nwhite", {apart: 0, "white": 1}) == {0: "lion", 1: None}


def test_all_unknown_lines_and_a_near_one(match):
    with pytest.raises(UserError, match=r"2 lines name no class of folder: 'brown', 'whit'"):
        match("brown\nwhit\nblack")
    with pytest.raises(UserError, match=r"'whit'; did you mean white\?"):
        match("whit\nblack")


def test_one_class_by_two_lines(match):
    with pytest.raises(UserError, match=r"c\.txt:3: class white is listed .* on line 1 too"):
        match("white\nblack\nwhite bear\n")


def test_fields_without_known_ids(tmp_path):
    (tmp_path / "c.txt").write_text('1 seal seal#2\n2\tsea lion\tseal\n"a b" c\nn 1,x y\n')
    assert read_class_list(tmp_path / "c.txt").fields() == [
        ["1", "seal", "seal#2"], ["2", "sea lion", "seal"], ["a b", "c"], ["n 1", "x y"],
    ]  # fmt: skip
