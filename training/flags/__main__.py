"""Prints docs/flags.md, the table of all flags of `learn_classifier.py`.

python -m training.flags > docs/flags.md
"""

from training.flags import arguments, declaration

INTRODUCTION = """\
# Which flags are there?

`python learn_classifier.py --help` prints the same as this page, which is made from the flags'
declarations by `python -m training.flags > docs/flags.md`. Those of the paper's code keep their
names and defaults. `@FILE` among the arguments stands for those in a file: lines like
`--flag value`, with `#` before comments. Of a flag that is given twice the last value counts.

*On resuming* says whether a training that goes on from its snapshot may be given another value:
it has to be the same, it may change at will, or only with `--snapshot_allow` and the flag's name.
"""


def page() -> str:
    """The page of the documentation."""
    return f"{INTRODUCTION}\n{declaration.markdown(arguments.GROUPS)}"


if __name__ == "__main__":
    print(page(), end="")
