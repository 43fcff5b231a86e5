import json
import os
import subprocess
import sys

PACKAGES = ("jax", "matplotlib", "pandas", "sklearn")


def test_only_keras_does_without_packages(tmp_path):
    # A package named keras that imports as the real one does, but at once.
    for package in (*PACKAGES, "tensorflow"):
        (tmp_path / f"{package}.py").write_text("")
    (tmp_path / "keras.py").write_text(
        "import gc\nsearches = gc.isenabled()\n"
        f"found = []\nfor name in ('jax', 'tensorflow', *{PACKAGES}):\n"
        "    try:\n        __import__(name)\n        found.append(name)\n"
        "    except ImportError:\n        pass\n    if name == 'jax':\n"
        "        import sys\n        sys.modules.pop('jax', None)\n"
    )
    program = f"""
import gc, json, training, keras
assert gc.isenabled() and not keras.searches
for name in {PACKAGES}:
    __import__(name)
print(json.dumps(keras.found))
"""
    path = f"{tmp_path}{os.pathsep}{os.getcwd()}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    # JAX is found where it may be the backend, and not once TensorFlow is.
    assert json.loads(done.stdout) == ["jax", "tensorflow"]
