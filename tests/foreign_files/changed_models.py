"""`.keras` files whose configuration was changed."""

import json
import zipfile
from pathlib import Path

import models


def rewrite_config(source: Path, target: Path, change) -> None:
    """Changes the layers in a model's configuration."""
    rewrite_model(source, target, lambda config: change(config["layers"]))


def rewrite_model(source: Path, target: Path, change) -> None:
    """Changes a model's configuration."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            if member.filename == "config.json":
                config = json.loads(data)
                change(config["config"])
                data = json.dumps(config).encode()
            new.writestr(member.filename, data)


def save_changed(model, path: Path, change: dict) -> None:
    """Saves a model with other facts than its own."""
    original = path.with_name("original.keras")
    models.save_model(model, original)
    rewrite_model(original, path, lambda config: config.update(change))


def layer_of(layers, name):
    return next(layer for layer in layers if layer["config"]["name"] == name)


def forget_sizes(layers):
    """Removes what Keras compares sizes with before this program does."""
    for layer in layers:
        layer["build_config"] = None


def declare(name, **config):
    """Changes a layer's configuration."""

    def change(layers):
        forget_sizes(layers)
        layer_of(layers, name)["config"].update(config)

    return change
