"""Small data in the layouts of public sets: CTMC-v1 (videos as plates) and LIVECell (TIFF and COCO files)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from viscy_data.optional import require
from viscy_data.stores import PlateWriter

__all__ = ["LiveCellPaths", "write_ctmc", "write_livecell"]

_CORNERS = 24
_BACKGROUND, _BRIGHT = 128, 90


class LiveCellPaths(NamedTuple):
    """Where images and annotations were written; the names are parameters of ``LiveCellDataModule``."""

    train_val_images: Path
    test_images: Path
    train_annotations: Path
    val_annotations: Path
    test_annotations: Path


def write_ctmc(
    path: str | Path, n_videos: int = 2, n_frames: int = 6, size: tuple[int, int] = (64, 80), *, seed: int = 0
) -> Path:
    """Write videos of drifting discs as a plate, one FOV each, channel "DIC", uint8.

    Parameters
    ----------
    path : str or Path
        Where the store will be.
    n_videos, n_frames : int
        Of the plate, and of each video.
    size : tuple of int
        Height and width.
    seed : int, default 0
        Everything written is a function of it and of the numbers above.
    """
    rng = np.random.default_rng(seed)
    with PlateWriter(path, ["DIC"]) as plate:
        for video in range(n_videos):
            center, step = rng.uniform(0.2, 0.8, (5, 2)) * size, rng.normal(0, 2, (5, 2))
            radius = rng.uniform(4, 8, 5)
            frames = [_draw(center + t * step, radius, size, rng) for t in range(n_frames)]
            plate.write(f"A/{video + 1}/0", np.stack(frames)[:, None, None])
    return Path(path)


def write_livecell(
    root: str | Path,
    n_images: tuple[int, int, int] = (4, 2, 2),
    size: tuple[int, int] = (64, 80),
    n_cells: int = 5,
    *,
    seed: int = 0,
) -> LiveCellPaths:
    """Write images of discs and their outlines.

    Parameters
    ----------
    root : str or Path
        Folder to write into.
    n_images : tuple of int
        To train, to validate and to test.
    size : tuple of int
        Height and width.
    n_cells : int, default 5
        Discs in each image; the last image of a part has none.
    seed : int, default 0
        Everything written is a function of it and of the numbers above.
    """
    root, rng = Path(root), np.random.default_rng(seed)
    folders = {"train": "livecell_train_val_images", "val": "livecell_train_val_images", "test": "livecell_test_images"}
    annotations = {}
    for part, n in zip(folders, n_images, strict=True):
        folder = root / "images" / folders[part]
        folder.mkdir(parents=True, exist_ok=True)
        document: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
        for number in range(n):
            _add_image(document, folder, f"{part}_{number:03d}.tif", size, n_cells if number < n - 1 else 0, rng)
        annotations[part] = root / f"livecell_coco_{part}.json"
        annotations[part].write_text(json.dumps(document))
    images = (root / "images" / folders[part] for part in ("train", "test"))
    return LiveCellPaths(*images, annotations["train"], annotations["val"], annotations["test"])


def _add_image(
    document: dict[str, Any], folder: Path, name: str, size: tuple[int, int], n_cells: int, rng: np.random.Generator
) -> None:
    """Write an image and list its cells."""
    center, radius = rng.uniform(0.2, 0.8, (n_cells, 2)) * size, rng.uniform(4, 8, n_cells)
    require("tifffile", extra="livecell").imwrite(folder / name, _draw(center, radius, size, rng))
    image_id = len(document["images"]) + 1
    document["images"].append({"id": image_id, "file_name": name, "height": size[0], "width": size[1]})
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    # In COCO files the first pixel lies between 0 and 1, its centre at one half.
    for (y, x), r in zip((center + 0.5).tolist(), radius.tolist(), strict=True):
        corners = np.stack([x + r * np.cos(angle), y + r * np.sin(angle)], axis=1)
        cell = {"id": len(document["annotations"]) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0}
        cell |= {"bbox": [x - r, y - r, 2 * r, 2 * r], "area": float(np.pi * r * r)}
        document["annotations"].append(cell | {"segmentation": [corners.ravel().tolist()]})


def _draw(center: np.ndarray, radius: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Draw discs on a noisy ground; uint8, (Y, X)."""
    y, x = np.ogrid[: size[0], : size[1]]
    image = rng.normal(_BACKGROUND, 4, size)
    for (cy, cx), r in zip(center, radius, strict=True):
        image += _BRIGHT * ((y - cy) ** 2 + (x - cx) ** 2 <= r * r)
    return np.clip(image, 0, 255).astype(np.uint8)
