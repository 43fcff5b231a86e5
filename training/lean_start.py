"""Keras without what it imports for features that this project does not use.

Keras imports scikit-learn, pandas and matplotlib where they are installed, for its wrappers, data
frames and galleries of images, and on TensorFlow it imports JAX too: together more than a third of
the time of `import keras`. It does without them. What is imported later, by whomever, is found as
always. Python's search for garbage, an eighth of what is left, waits for the end of the import.
"""

import gc
import importlib.abc
import sys
import threading

_HIDDEN = {"matplotlib", "pandas", "sklearn"}


def install() -> None:
    """Makes a later `import keras`, whoever does it, a lean one."""
    if "keras" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds Keras where Python does, and hides packages from it while it is loaded."""

    def __init__(self):
        self._hidden: set[str] = set()
        self._thread: int | None = None  # that loads Keras; others find everything

    def find_spec(self, name, path=None, target=None):
        if self._thread == threading.get_ident():
            if name in self._hidden:
                raise ModuleNotFoundError(f"{name} is hidden from Keras", name=name)
            if name == "tensorflow":
                self._hidden.add("jax")  # TensorFlow is the backend, so JAX is not
        if name != "keras":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                self._thread, self._hidden = threading.get_ident(), set(_HIDDEN)
                collects = gc.isenabled()
                gc.disable()
                try:
                    load(module)
                finally:
                    self._thread = None
                    # Modules stay: no later search has to look through them.
                    gc.freeze()
                    if collects:
                        gc.enable()

            spec.loader.exec_module = exec_module
        return spec
