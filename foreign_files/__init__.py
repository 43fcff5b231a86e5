"""Files that may come from anyone, read without running code or taking undue memory or time."""

from foreign_files.arrays import load_npz
from foreign_files.isolation import read_isolated
from foreign_files.pickles import load_pickle
from foreign_files.regular import check_regular

__all__ = ["check_regular", "load_npz", "load_pickle", "read_isolated"]
