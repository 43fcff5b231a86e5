"""Files that may come from anyone: the one door through which they are read.

Whatever needs a parser (pickles, `.npz`, HDF5, MATLAB files) is read by a child process with
limits on its memory, its time and what it may answer. It may crash or hang; it hands back plain
arrays and texts, whose sizes are checked once more. Nothing else guards against such files. See
`door` for this side and `child` for the other.

Not in a child, as each costs the start of a Python:

- Text (`read_text`): it is bounded before it is read, and decoding makes little more of it.
- Images (`image_files`): there are millions of them, read by threads. Their sizes are compared
  with bounds before they are decoded.
- A model's configuration (`models.model_files`): Keras can only build it in this process. The
  child hands it over as a text of bounded size, and every name in it must be on a list.
- Exported models (ONNX, LiteRT): their runtimes compute in this process, as images would take long
  to be handed over. A child loads the file before and computes an image (`try_model`).
"""

from foreign_files.door import load_mat, load_npz, load_pickle, load_weights, try_model
from foreign_files.regular import check_regular
from foreign_files.texts import read_text

__all__ = [
    "check_regular", "load_mat", "load_npz", "load_pickle", "load_weights", "read_text",
    "try_model",
]  # fmt: skip
