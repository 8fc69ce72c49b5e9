"""COCO annotations: which images there are, and the outlines of their cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from viscy_data.errors import InputError, MissingInputError
from viscy_data.optional import require

__all__ = ["AnnotatedImage", "detections", "read_annotations"]


@dataclass
class AnnotatedImage:
    """An image of a COCO file: its name, and what is outlined in it."""

    file_name: str
    outlines: list[dict[str, Any]] = field(default_factory=list)


def read_annotations(path: str | Path) -> list[AnnotatedImage]:
    """Read a COCO file; images are sorted by name.

    Raises
    ------
    MissingInputError
        If there is no such file.
    InputError
        If it is no COCO file, or outlines something in an image that it does not list.
    """
    if not Path(path).is_file():
        raise MissingInputError(str(path), found="nothing", expected="a JSON file of COCO annotations")
    try:
        document = json.loads(Path(path).read_text())
        images = {image["id"]: AnnotatedImage(image["file_name"]) for image in document["images"]}
        outlines = document.get("annotations") or []
        for outline in outlines.values() if isinstance(outlines, dict) else outlines:
            images[outline["image_id"]].outlines.append(outline)
    except (ValueError, KeyError, TypeError) as err:
        expected = "COCO annotations: images with id and file_name, annotations with image_id"
        raise InputError(str(path), found=f"{type(err).__name__}: {err}", expected=expected) from err
    return sorted(images.values(), key=lambda image: image.file_name)


def detections(outlines: Sequence[dict[str, Any]], size: tuple[int, int]) -> dict[str, Tensor]:
    """Draw outlines.

    Parameters
    ----------
    outlines : sequence of dict
        COCO annotations of one image.
    size : tuple of int
        Height and width of the image.

    Returns
    -------
    dict of str to Tensor
        ``boxes``: float32 (N, 4), x and y of two corners; ``labels``: uint8 zeros (N,); ``masks``: bool (N, Y, X).
    """
    mask = require("pycocotools.mask", extra="livecell")
    boxes, masks = np.zeros((len(outlines), 4), np.float32), np.zeros((len(outlines), *size), bool)
    for number, outline in enumerate(outlines):
        x, y, width, height = outline["bbox"]
        boxes[number] = x, y, x + width, y + height
        drawn = outline["segmentation"]
        if isinstance(drawn, list):  # polygons: parts of one cell
            drawn = mask.merge(mask.frPyObjects(drawn, *size))
        elif isinstance(drawn["counts"], list):
            drawn = mask.frPyObjects(drawn, *size)
        masks[number] = mask.decode(drawn)
    labels = torch.zeros(len(outlines), dtype=torch.uint8)
    return {"boxes": torch.from_numpy(boxes), "labels": labels, "masks": torch.from_numpy(masks)}
