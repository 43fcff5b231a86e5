"""Networks of every family with few blocks: what is true of them is true of deep ones."""

import dataclasses

from architectures import ARCHITECTURES


def make_shallow(monkeypatch) -> None:
    """Lets networks have a block or two where there are many, until the test ends."""
    monkeypatch.setattr("models.resnet._STAGES", ((64, 1), (128, 2)))
    for name, entry in ARCHITECTURES.items():
        if blocks := entry.options.get("blocks"):
            few = 2 if isinstance(blocks, int) else (1,) * len(blocks)
            options = {**entry.options, "blocks": few}
            monkeypatch.setitem(ARCHITECTURES, name, dataclasses.replace(entry, options=options))
