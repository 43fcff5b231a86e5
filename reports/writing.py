"""A whole report, from its material to one HTML file."""

import logging
import os
from argparse import Namespace
from html import escape
from pathlib import Path

from reports import class_sections, duplicates, findings, image_sections, pictures, run_sections
from reports.cautions import cautions
from reports.elements import name, note, section
from reports.material import Material, of_training
from training.resuming.signals import Interrupted
from utils import atomic_path, one_line, say

logger = logging.getLogger(__name__)

# At the end of a training near-duplicates are searched for among so many images at most, which
# takes a few seconds.
_FEW_IMAGES = 3000
# Bytes of a page, and of them what is for the captions of pictures and for the matrix.
_MOST_BYTES, _CAPTIONS = 2_900_000, 400_000
_TITLES = {
    "verdict": "Verdict", "cautions": "Cautions", "curves": "Curves", "classes": "Classes",
    "confusions": "Confusions", "images": "Images", "attention": "Attention",
    "calibration": "Calibration", "augmented": "Training images", "duplicates": "Duplicates",
    "repeat": "Repeating",
}  # fmt: skip


def write(material: Material, path: str | os.PathLike) -> None:
    """Writes a report to one file that needs no other."""
    text = page(material)
    with atomic_path(path) as temporary:
        # Paths need not be of characters.
        temporary.write_text(text, encoding="utf-8", errors="replace")


def write_after_training(args: Namespace, model, dataset, result) -> None:
    """Writes the report of a training at its end; one that fails is a warning.

    Args:
        args: The resolved arguments; the file goes to their `output`.
        model: What was trained; `None` where it must not be asked again.
        dataset: What it was trained on.
        result: The `Evaluation` of the test images.
    """
    path = os.path.join(args.output, "report.html")
    try:
        write(of_training(args, model, dataset, result), path)
        say(f"Report: {path}")
    except Interrupted:
        raise
    except Exception as error:
        # All that counts is written; a mistake of ours must not make the run a failure.
        logger.warning("warning: %s: not written (%s)", path, one_line(error) or type(error))


def page(material: Material) -> str:
    """A report as HTML."""
    pairs, searched = _duplicates(material)
    numbers = {"missing": material.missing, "near_duplicates": pairs and len(pairs)}
    scored, matrix = material.scores is not None, None
    classes = calibration = ""
    if scored:
        matrix = findings.confusion_matrix(material.scores)
        rows = findings.class_rows(matrix)
        classes = class_sections.classes(material, rows)
        calibration, numbers["calibration"] = class_sections.calibration(material)
        numbers["classes"] = [
            {"class": material.scores.class_names[row.index], "images": row.images,
             "recall": row.recall, "interval": [row.low, row.high], "precision": row.precision}
            for row in rows
        ]  # fmt: skip
    first = [
        run_sections.verdict(material),
        _cautions(material, pairs, searched),
        run_sections.curves(material),
        classes,
    ]
    last = run_sections.repeating(material, numbers)
    # Pictures get the room that the rest leaves.
    words = sum(len(part.encode(errors="replace")) for part in (*first, calibration, last))
    made = pictures.Pictures(_MOST_BYTES - _CAPTIONS - words)
    sections = [
        *first,
        class_sections.confusions(material, matrix, made) if scored else "",
        image_sections.worst(material, made) if scored else "",
        image_sections.looked_at(material, made) if scored else "",
        calibration,
        image_sections.augmented(material, made),
        image_sections.duplicates(material, pairs, made),
        last,
    ]
    return _document(f"{material.args.dataset}, {material.args.architecture}", sections)


def _duplicates(material: Material) -> tuple[list | None, str]:
    """Pairs that look alike, or `None` where they are not searched for, and what to say of it."""
    dataset = material.dataset
    if dataset is None:
        return None, ""
    if dataset.image_size < duplicates.LEAST_SIDE:
        side = dataset.image_size
        return (
            None,
            f"Near-duplicates are not searched for: images of {side} pixels all look alike.",
        )
    count = len(dataset.train) + len(dataset.test)
    if not material.thorough and count > _FEW_IMAGES:
        return None, (
            f"Near-duplicates were not searched for among {count:,} images at the end of the "
            "training; report.py with the run's directory does."
        )
    return duplicates.find(dataset.train, dataset.test), ""


def _cautions(material: Material, pairs: list | None, searched: str) -> str:
    found = cautions(material, pairs)
    listed = "".join(f"<li>{escape(text)}</li>" for text in found)
    body = f'<ul class="cautions">{listed}</ul>' if found else note("Nothing stands out.")
    return section("cautions", "What to be careful about", body, note(searched) if searched else "")


def _document(title: str, sections: list[str]) -> str:
    here = Path(__file__).parent
    links = "".join(
        f'<a href="#{key}">{short}</a>'
        for key, short in _TITLES.items()
        if any(part.startswith(f'<section id="{key}"') for part in sections)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name(title)}</title>"
        f"<style>{(here / 'page.css').read_text()}</style></head>\n"
        f"<body><h1>{name(title)}</h1><nav>{links}</nav>\n"
        + "\n".join(part for part in sections if part)
        + f"\n<script>{(here / 'page.js').read_text()}</script></body></html>\n"
    )
