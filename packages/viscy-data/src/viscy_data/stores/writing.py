"""Write a plate, through iohub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from viscy_data.files import refuse_existing, replacing
from viscy_data.stores.names import canonical_fov_name, canonical_store

__all__ = ["PlateWriter"]


class PlateWriter:
    """Write an HCS OME-Zarr plate, one FOV after the other.

    The plate is written beside its place and renamed when the ``with`` block ends; if the block fails, nothing stays.

    Parameters
    ----------
    path : str or Path
        Where the plate will be.
    channel_names : sequence of str
        Names along the channel axis, the same for all FOVs.
    version : {"0.5", "0.4"}, default "0.5"
        OME-NGFF version: 0.5 is Zarr v3, 0.4 is Zarr v2.
    chunks : sequence of int, optional
        Chunk shape (T, C, Z, Y, X); iohub's choice by default.
    shards : sequence of int, optional
        Shard shape (T, C, Z, Y, X), a multiple of ``chunks``; version 0.5 only.
    array_key : str, default "0"
        Name of the array in each FOV.

    Raises
    ------
    FileExistsError
        If something is at ``path`` already.
    ValueError
        For shards that do not fit the chunks or the version.
    """

    def __init__(
        self,
        path: str | Path,
        channel_names: Sequence[str],
        *,
        version: Literal["0.4", "0.5"] = "0.5",
        chunks: Sequence[int] | None = None,
        shards: Sequence[int] | None = None,
        array_key: str = "0",
    ) -> None:
        self.path = Path(canonical_store(path))
        refuse_existing(self.path)
        self._channel_names, self._version, self._array_key = list(channel_names), version, array_key
        self._chunks = tuple(chunks) if chunks is not None else None
        self._shards_ratio = _shards_ratio(version, self._chunks, shards)
        self._replacing = replacing(self.path)
        self._plate: Any = None

    def __enter__(self) -> Self:
        from iohub.ngff import open_ome_zarr

        self._plate = open_ome_zarr(
            self._replacing.__enter__(),
            layout="hcs",
            mode="w-",
            channel_names=self._channel_names,
            version=self._version,
        )
        return self

    def write(self, fov_name: str, array: np.ndarray, scale: Sequence[float] | None = None) -> None:
        """Write the pixels of one FOV.

        Parameters
        ----------
        fov_name : str
            ``row/column/fov``.
        array : ndarray, shape (T, C, Z, Y, X)
            Stored in its own dtype.
        scale : sequence of 5 floats, optional
            Size of one step along each axis.
        """
        from iohub.ngff import TransformationMeta

        if self._plate is None:
            raise RuntimeError("PlateWriter.write is called inside the with block of the writer")
        if array.ndim != 5 or array.shape[1] != len(self._channel_names):
            raise ValueError(
                f"{fov_name}: array of shape {array.shape}, expected TCZYX with {len(self._channel_names)} channels"
            )
        row, column, fov = canonical_fov_name(fov_name).split("/")
        transform = None if scale is None else [TransformationMeta(type="scale", scale=[float(step) for step in scale])]
        options = {} if self._shards_ratio is None else {"shards_ratio": self._shards_ratio}
        position = self._plate.create_position(row, column, fov)
        position.create_image(self._array_key, array, chunks=self._chunks, transform=transform, **options)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._plate.close()
        self._plate = None
        self._replacing.__exit__(kind, error, trace)


def _shards_ratio(version: str, chunks: tuple[int, ...] | None, shards: Iterable[int] | None) -> tuple[int, ...] | None:
    """Express shards in chunks, as iohub asks for them."""
    if shards is None:
        return None
    shards = tuple(shards)
    if version == "0.4":
        raise ValueError("shards need version 0.5: Zarr v2 has none")
    if chunks is None or any(shard % chunk for shard, chunk in zip(shards, chunks, strict=True)):
        raise ValueError(f"shards {shards} must be a multiple of chunks {chunks} along every axis")
    return tuple(shard // chunk for shard, chunk in zip(shards, chunks, strict=True))
