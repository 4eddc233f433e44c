"""Remarks on a data set, for messages and for the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from job.text_format import plural, shortened

_OTHER = {"train": "training", "selection": "selection", "test": "test"}


def empty_classes_text(empty: Sequence[int], data: Mapping[str, Any]) -> str:
    """Return a warning about classes without images, or without objects; see ``data_notes``."""
    verb, classes = "has" if len(empty) == 1 else "have", data["classes"]
    if "objects" in data:
        names = data["class_names"]
        listed = shortened([names[label] if names else str(label) for label in empty])
        return f"{len(empty):,} of {classes:,} classes {verb} no object: {listed}."
    listed = shortened([str(label) for label in empty])
    text = f"{len(empty):,} of {classes:,} classes {verb} no image: {listed}."
    if 0 in empty:
        text += " Labels start at 0, so check whether the labels of this data set start at 1."
    return text


def objects_text(objects: Mapping[str, Any] | None) -> str:
    """Return how many objects a data set has; empty for images with labels."""
    if objects is None:
        return ""
    splits = objects["splits"].values()
    without = sum(split["images_without_objects"] for split in splits)
    texts = [plural(sum(split["objects"] for split in splits), "object")]
    if without:
        texts.append(f"{plural(without, 'image')} without objects")
    if objects["empty_boxes"]:
        texts.append(
            f"{plural(objects['empty_boxes'], 'object')} dropped, because the box has no positive "
            "width and height"
        )
    return f"data set: {'; '.join(texts)}"


def copies_text(copies: Mapping[str, Any]) -> str:
    """Return a warning about byte-identical images; see ``data.copies`` in the report's schema."""
    name, other = _OTHER[copies["split"]], _OTHER[copies["other"]]
    pairs = ", ".join(f"{first} = {second}" for first, second in copies["names"])
    more = ", ..." if copies["images"] > len(copies["names"]) else ""
    verb = "is a copy" if copies["images"] == 1 else "are copies"
    return (
        f"{copies['images']:,} of {plural(copies['of'], f'{name} image')} {verb} of {other} "
        f"images ({pairs}{more}). Accuracy on such images does not apply to new images."
    )


def data_notes(data: Mapping[str, Any]) -> list[str]:
    """Return the remarks on a data set that its report shows.

    Args:
        data: the record of the stage prepare.
    """
    empty = data["empty_classes"]
    notes = [empty_classes_text(empty, data)] if empty else []
    return notes + [copies_text(each) for each in data["copies"]]
