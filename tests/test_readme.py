from pathlib import Path

from training.flags import parsers

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_every_flag_of_the_training_is_in_the_table():
    flags = [
        option
        for action in parsers.training_parser()._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    ]
    assert [flag for flag in flags if f"`{flag}`" not in README] == []
