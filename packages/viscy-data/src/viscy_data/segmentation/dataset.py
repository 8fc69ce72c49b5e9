"""Frames of predicted labels with those of true ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import ShortTensor

from viscy_data.batches.samples import SampleDataset
from viscy_data.batches.stacks import FovStacks
from viscy_data.errors import InputError, raise_all
from viscy_data.stores import FovInfo, describe_plate
from viscy_data.typing import SegmentationSample

if TYPE_CHECKING:
    from iohub.ngff import Plate

__all__ = ["SLICE", "SegmentationDataset"]

SLICE = "a slice by its number, from 0 or, negative, from the end"


class SegmentationDataset(SampleDataset):
    """Frames of predicted and of true labels, of the FOVs of one name in two plates.

    ``dataset[i]`` is a frame, ``dataset[[i, j]]`` a batch: ``pred`` and ``target``, int16, (Y, X) or, for ranges of
    slices, (Z, Y, X); ``position_idx`` (number of the FOV in the plate of targets) and ``time_idx``.

    Parameters
    ----------
    pred_dataset, target_dataset : iohub Plate or sequence of FovInfo
        FOVs of the targets decide; predictions of other FOVs are left out, with a warning.
    pred_channel, target_channel : str
        Channels by name.
    pred_z_slice, target_z_slice : int or slice
        One slice, or a range of them.
    img_name : str, default "0"
        Array of each FOV.

    Raises
    ------
    InputError
        A ValueError, naming every FOV without prediction, of other length or size, or without the slices. While
        reading: labels that are not whole numbers of 16 bits.
    """

    def __init__(
        self,
        pred_dataset: Plate | Sequence[FovInfo],
        target_dataset: Plate | Sequence[FovInfo],
        pred_channel: str,
        target_channel: str,
        pred_z_slice: int | slice,
        target_z_slice: int | slice,
        img_name: str = "0",
    ) -> None:
        super().__init__()
        target, pred = describe_plate(target_dataset), describe_plate(pred_dataset)
        by_name = {fov.name: fov for fov in pred}
        raise_all(
            InputError(
                fov.where, found="no prediction of this FOV", expected=f"one in {pred[0].store if pred else '?'}"
            )
            for fov in target
            if fov.name not in by_name
        )
        if surplus := sorted(by_name.keys() - {fov.name for fov in target}):
            warnings.warn(f"{len(surplus)} predicted FOVs have no target and are left out: {surplus[:5]}", stacklevel=2)
        options = {"array_key": img_name, "with_statistics": False}
        self._target = FovStacks(target, [target_channel], **options)
        self._pred = FovStacks([by_name[fov.name] for fov in target], [pred_channel], **options)
        pairs = list(zip(self._pred.fovs, self._target.fovs, strict=True))
        raise_all(_differences(pairs, pred_z_slice, target_z_slice))
        self._z = {"pred": pred_z_slice, "target": target_z_slice}
        self._n_frames = [fov.shape[0] for fov in self._target.fovs]
        self._frames = [(number, t) for number, n_frames in enumerate(self._n_frames) for t in range(n_frames)]

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, position: int) -> SegmentationSample:
        """Return a frame."""
        fov, t = self._frames[position]
        return {
            "pred": self._labels("pred", self._pred, fov, t),
            "target": self._labels("target", self._target, fov, t),
            "position_idx": fov,
            "time_idx": t,
        }

    def item(self, patches: list[SegmentationSample]) -> SegmentationSample:
        """Return the frame itself."""
        return patches[0]

    def source_digests(self) -> list[dict[str, Any]]:
        """Say which frames of which stores there are."""
        return [source for stacks in (self._pred, self._target) for source in stacks.source_digests(self._n_frames)]

    def _labels(self, role: str, stacks: FovStacks, fov: int, t: int) -> ShortTensor:
        z, info = self._z[role], stacks.fovs[fov]
        planes = range(info.shape[2])[z]
        first, depth = (planes, 1) if isinstance(planes, int) else (planes.start, len(planes))
        values = stacks.read(fov, t, first, depth)[0]
        labels = values.to(torch.int16)
        wrong = values[labels.to(values.dtype) != values]
        if len(wrong):
            raise InputError(
                f"{info.where}, frame {t}",
                field=f"{role}_channel",
                found=f"the value {float(wrong[0]):g}",
                expected="labels: whole numbers from -32768 to 32767",
                fix="choose the channel of the labels, or number them anew in every frame",
            )
        return labels[0] if isinstance(planes, int) else labels


def _differences(
    pairs: Sequence[tuple[FovInfo, FovInfo]], pred_z: int | slice, target_z: int | slice
) -> list[InputError]:
    """Return a problem for every FOV whose frames cannot be compared."""
    problems = []
    for fovs in pairs:
        found = []
        for fov, z in zip(fovs, (pred_z, target_z), strict=True):
            try:
                planes = range(fov.shape[2])[z]
            except IndexError:
                problems.append(InputError(fov.where, found=f"{fov.shape[2]} slices, not slice {z}", expected=SLICE))
                continue
            depth = 0 if isinstance(planes, int) else len(planes)
            if isinstance(planes, range) and (planes.step != 1 or not depth):
                problems.append(InputError(fov.where, field="z_slice", found=str(z), expected="a range of slices"))
            found.append((fov.shape[0], depth or 1, *fov.shape[3:]))
        if len(found) == 2 and found[0] != found[1]:
            pred, target = (f"{t} frames of {' x '.join(map(str, size))} pixels" for t, *size in found)
            problems.append(InputError(fovs[0].where, found=pred, expected=f"as the target, {target}"))
    return problems
