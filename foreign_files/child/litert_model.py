"""Reads what a LiteRT file says of itself, if its runtime can compute it."""

import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def read(source, name):
    """The member `name` of the ZIP archive at the file's end, as the text `facts`."""
    interpreter = Interpreter(source, num_threads=1)
    text = None
    # By the format's convention, what belongs to a model is a ZIP archive at its end.
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if name in archive.namelist():
                text = archive.read(name).decode()
    if text is not None:
        runner = interpreter.get_signature_runner("serving_default")
        [(key, image)] = runner.get_input_details().items()
        runner(**{key: np.zeros(image["shape"], np.uint8)})
    return {}, {"facts": [] if text is None else [text]}
