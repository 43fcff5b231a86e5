"""What an exported file says of itself: a JSON text among its metadata."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scoring import View

# How the names of files end; a SavedModel is a folder.
FORMATS = {"onnx": ".onnx", "litert": ".tflite", "saved_model": ""}
# In which a model can be stored with less bits.
QUANTIZED = ("onnx", "litert")
# The name of the text in ONNX's metadata; with `.json`, that of the file in the other formats.
NAME = "image_classifier"
_HOW = (
    "uint8 RGB (n, image_size, image_size, 3): turn the image upright if exif_rotation, resize its "
    "smaller side to test_resize pixels (Pillow, bilinear), crop the centre"
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What has to be known to use a model, and where it comes from.

    Attributes:
        class_names: In the order of the scores.
        class_ids: Likewise, in a hierarchy.
        view: What the network sees of an image.
        probabilities: Whether the scores are probabilities, and not similarities.
        temperature: By which the scores are calibrated already; `None` if they are not.
        origin: The network's name, the data set and the like, for people.
    """

    class_names: Sequence[str]
    class_ids: Sequence[int | str]
    view: View
    probabilities: bool
    temperature: float | None
    origin: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text."""
        content = {
            "input": "image",
            "preprocessing": _HOW,
            "image_size": self.view.image_size,
            "test_resize": self.view.test_resize,
            "exif_rotation": self.view.exif_rotation,
            "scores": "probabilities" if self.probabilities else "similarities",
            "temperature": self.temperature,
            "class_names": list(self.class_names),
            "class_ids": list(self.class_ids),
            **self.origin,
        }
        return json.dumps(content, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Facts":
        """The facts in a text.

        Raises:
            ValueError: It is no JSON, or something that is needed is missing or impossible.
        """
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("its facts are no JSON object")
        names, ids = content.get("class_names"), content.get("class_ids")
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise ValueError("it does not name its classes")
        if (
            not isinstance(ids, list)
            or len(ids) not in (0, len(names))
            or not all(isinstance(i, int | str) for i in ids)
        ):
            raise ValueError("its class ids are not one number or text for each class")
        return cls(
            class_names=tuple(names),
            class_ids=tuple(ids),
            view=View.of(content),
            probabilities=content.get("scores") == "probabilities",
            temperature=content.get("temperature"),
        )
