"""What the transforms of a config ask of the data: patches per window, slices beyond the window."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from math import ceil
from typing import Any

from monai.transforms import MapTransform, MultiSampleTrait, RandAffined

from viscy_data.errors import InputError

__all__ = ["patches_per_window", "slices_to_read", "without_keys"]


def patches_per_window(augmentations: Iterable[Any], batch_size: int, where: str) -> int:
    """Return how many patches the augmentations make of a window.

    Raises
    ------
    InputError
        If a batch cannot be made of whole windows.
    """
    n_patches = 1
    for transform in augmentations:
        if isinstance(transform, MultiSampleTrait):
            n_patches *= int(getattr(transform, "cropper", transform).num_samples)
    if batch_size % n_patches:
        raise InputError(
            where,
            field="batch_size",
            found=str(batch_size),
            expected=f"a multiple of {n_patches}, the patches that the augmentations make of a window (num_samples)",
        )
    return n_patches


def slices_to_read(augmentations: Iterable[Any], z_window_size: int, where: str) -> int:
    """Return how many slices training reads, so that scaling along z has something to fill the window with.

    Raises
    ------
    InputError
        If there are several affine transforms, or a range is reversed.
    """
    affine = [transform for transform in augmentations if isinstance(transform, RandAffined)]
    if len(affine) > 1:
        raise InputError(where, field="augmentations", found=f"{len(affine)} RandAffined", expected="at most one")
    ranges = affine[0].rand_affine.rand_affine_grid.scale_range if affine else ()
    if not ranges or ranges[0] is None:
        return z_window_size
    low, high = ranges[0] if isinstance(ranges[0], tuple | list) else (-ranges[0], ranges[0])
    if low > high:
        found = f"scale_range of z from {low} to {high}"
        raise InputError(where, field="augmentations (RandAffined)", found=found, expected="the smaller one first")
    if high <= 0:
        return z_window_size
    expanded = ceil(z_window_size * (1 + high))
    return max(z_window_size, expanded - expanded % 2)


def without_keys(transforms: Iterable[Any], absent: Iterable[str]) -> list[Any]:
    """Return the transforms for samples that lack some keys, such as target channels in prediction."""
    absent, kept = set(absent), []
    for transform in transforms:
        keys = set(getattr(transform, "keys", ())) if isinstance(transform, MapTransform) else set()
        if keys and keys <= absent:
            continue
        if keys & absent:
            transform = deepcopy(transform)
            transform.allow_missing_keys = True
        kept.append(transform)
    return kept
