"""Images of LIVECell: alone to train, with the outlines of their cells to test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from viscy_data.batches.samples import SampleDataset
from viscy_data.errors import MissingInputError, raise_all
from viscy_data.livecell.annotations import detections, read_annotations
from viscy_data.optional import require

if TYPE_CHECKING:
    from monai.transforms import Compose, MapTransform, Transform

__all__ = ["LiveCellDataset", "LiveCellTestDataset"]


class LiveCellDataset(SampleDataset):
    """TIFF images: ``{"source": (1, 1, Y, X)}``, float32.

    ``dataset[3]`` is the list of its patches, one unless the transform makes more; ``dataset[[3, 1]]`` is a batch.

    Parameters
    ----------
    images : sequence of Path
        Files.
    transform : Compose, optional
        Of one sample.
    seed : int, default 0
        With epoch and position, determines everything random.

    Raises
    ------
    MissingInputError
        Naming the files that there are not.
    ImportError
        Without tifffile: ``pip install 'viscy-data[livecell]'``.
    """

    seeds_batches = True

    def __init__(self, images: Sequence[Path], transform: Transform | Compose | None = None, *, seed: int = 0) -> None:
        super().__init__(transform, seed)
        require("tifffile", extra="livecell")
        self.images = [Path(path) for path in images]
        raise_all(
            MissingInputError(str(path), found="nothing", expected="an image that the annotations list")
            for path in self.images
            if not path.is_file()
        )

    def __len__(self) -> int:
        return len(self.images)

    def read(self, position: int) -> dict[str, Any]:
        """Read an image."""
        pixels = require("tifffile", extra="livecell").imread(self.images[position])
        return {"source": torch.from_numpy(np.asarray(pixels, np.float32))[None, None]}

    def source_digests(self) -> list[dict[str, Any]]:
        """Say which images there are: their folder, number, and a digest of names and sizes."""
        digest = hashlib.blake2b(digest_size=16)
        for path in self.images:
            digest.update(repr((path.name, path.stat().st_size)).encode())
        folder = str(self.images[0].parent) if self.images else ""
        n = len(self.images)
        return [{"store": folder, "fovs": n, "observations": n, "digest": digest.hexdigest()}]


class LiveCellTestDataset(LiveCellDataset):
    """Images with what is to be found in them.

    ``dataset[3]`` is a sample; in a batch ``detections`` and ``file_name`` are lists.

    Parameters
    ----------
    image_dir : str or Path
        Folder of the images.
    transform : MapTransform or Compose, optional
        Of one sample. It does not move the outlines.
    annotations : str or Path
        COCO file.
    load_target : bool, default False
        Add ``target``: the image itself, which is transformed by its own key.
    load_labels : bool, default False
        Add ``detections`` (``boxes``, ``labels``, ``masks``; see
        :func:`viscy_data.livecell.annotations.detections`) and ``file_name``.
    """

    seeds_batches = False
    uncollated = ("detections", "file_name")

    def __init__(
        self,
        image_dir: str | Path,
        transform: MapTransform | Compose | None,
        annotations: str | Path,
        load_target: bool = False,
        load_labels: bool = False,
    ) -> None:
        self.annotated = read_annotations(annotations)
        super().__init__([Path(image_dir) / image.file_name for image in self.annotated], transform)
        self.load_target, self.load_labels = load_target, load_labels
        if load_labels:
            require("pycocotools.mask", extra="livecell")

    def read(self, position: int) -> dict[str, Any]:
        """Read an image and the outlines in it."""
        sample = super().read(position)
        if self.load_target:
            sample["target"] = sample["source"].clone()
        if self.load_labels:
            image = self.annotated[position]
            sample["detections"] = detections(image.outlines, tuple(sample["source"].shape[-2:]))
            sample["file_name"] = image.file_name
        return sample

    def item(self, patches: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the sample."""
        return patches[0]
