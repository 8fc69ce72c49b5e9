"""Write a plate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from viscy_data.files import refuse_existing, replacing
from viscy_data.stores.names import canonical_fov_name, canonical_store

__all__ = ["ALL_CHUNKS", "PlateWriter", "pipeline_of_all_chunks"]

_AXES = [
    {"name": "T", "type": "time", "unit": "second"},
    {"name": "C", "type": "channel"},
    *({"name": name, "type": "space", "unit": "micrometer"} for name in "ZYX"),
]
ALL_CHUNKS = {"write_empty_chunks": True}
"""Configuration of arrays that we write: a chunk that is not there is one that was lost."""

_WHITE, _FULL_RANGE = "FFFFFF", {"start": 0.0, "end": 65535.0, "min": 0.0, "max": 65535.0}


@contextmanager
def pipeline_of_all_chunks() -> Iterator[None]:
    """Arrays that are opened inside keep to ``ALL_CHUNKS``, whichever pipeline of codecs another library has set.

    The one of zarrs, which iohub sets for the whole process, leaves out chunks of nothing but zeros in any case.
    """
    import zarr

    with zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}):
        yield


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
        Chunk shape (T, C, Z, Y, X); by default one stack of one channel and time.
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
        self._shards = tuple(shards) if shards is not None else None
        _check_shards(version, self._chunks, self._shards)
        self._replacing = replacing(self.path)
        self._plate: Any = None
        self._fovs_of: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        import zarr

        temporary = self._replacing.__enter__()
        self._plate = zarr.open_group(temporary, mode="w-", zarr_format=3 if self._version == "0.5" else 2)
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
            Size of one step along each axis, in seconds and micrometres.
        """
        self.create(fov_name, array.shape, array.dtype, scale)[...] = array

    def create(
        self,
        fov_name: str,
        shape: Sequence[int],
        dtype: np.dtype | str = "float32",
        scale: Sequence[float] | None = None,
    ) -> Any:
        """Make one FOV of zeros, to be written to in parts.

        Parameters
        ----------
        fov_name : str
            ``row/column/fov``.
        shape : sequence of int
            (T, C, Z, Y, X).
        dtype : numpy dtype, default "float32"
        scale : sequence of 5 floats, optional
            As for :meth:`write`.

        Returns
        -------
        zarr.Array
            Without a chunk on disk.
        """
        if self._plate is None:
            raise RuntimeError("PlateWriter writes inside the with block of the writer")
        if len(shape) != 5 or shape[1] != len(self._channel_names):
            raise ValueError(
                f"{fov_name}: array of shape {tuple(shape)}, expected TCZYX with {len(self._channel_names)} channels"
            )
        row, column, fov = canonical_fov_name(fov_name).split("/")
        position = self._plate.create_group(f"{row}/{column}/{fov}")
        self._describe(position, self._position_metadata(fov, [1.0] * 5 if scale is None else scale))
        options = {"dimension_names": list("TCZYX")} if self._version == "0.5" else {}
        with pipeline_of_all_chunks():
            array = position.create_array(
                self._array_key,
                shape=tuple(shape),
                dtype=dtype,
                chunks=self._chunks or (1, 1, *shape[2:]),
                shards=self._shards,
                compressors=_compressor(self._version),
                chunk_key_encoding={"name": "default" if self._version == "0.5" else "v2", "separator": "/"},
                fill_value=0,
                config=ALL_CHUNKS,
                **options,
            )
        self._fovs_of.setdefault(f"{row}/{column}", []).append(fov)
        return array

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for well, fovs in self._fovs_of.items():
                images = [{"acquisition": 0, "path": fov} for fov in fovs]
                self._describe(self._plate[well], {"well": {"version": self._version, "images": images}})
            self._describe(self._plate, {"plate": {"version": self._version, **_plate_metadata(list(self._fovs_of))}})
        self._plate = None
        self._replacing.__exit__(kind, error, trace)

    def _describe(self, group: Any, metadata: dict[str, Any]) -> None:
        """Write OME metadata, which version 0.5 keeps together under one key."""
        group.attrs.put({"ome": {"version": self._version, **metadata}} if self._version == "0.5" else metadata)

    def _position_metadata(self, fov: str, scale: Sequence[float]) -> dict[str, Any]:
        transform = {"type": "scale", "scale": [float(step) for step in scale]}
        dataset = {"path": self._array_key, "coordinateTransformations": [transform]}
        channels = [
            {"label": name, "active": True, "color": _WHITE, "window": _FULL_RANGE} for name in self._channel_names
        ]
        return {
            "multiscales": [{"version": self._version, "name": fov, "axes": _AXES, "datasets": [dataset]}],
            "omero": {"version": self._version, "name": fov, "channels": channels},
        }


def _plate_metadata(wells: Sequence[str]) -> dict[str, Any]:
    """List rows, columns and wells, in the order in which they were written."""
    rows, columns = (list(dict.fromkeys(well.split("/")[part] for well in wells)) for part in (0, 1))
    places = [(well, *well.split("/")) for well in wells]
    return {
        "acquisitions": [{"id": 0}],
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": [
            {"path": well, "rowIndex": rows.index(row), "columnIndex": columns.index(column)}
            for well, row, column in places
        ],
    }


def _compressor(version: str) -> Any:
    if version == "0.5":
        from zarr.codecs import BloscCodec

        return BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
    from numcodecs import Blosc

    return Blosc(cname="zstd", clevel=1, shuffle=Blosc.BITSHUFFLE)


def _check_shards(version: str, chunks: tuple[int, ...] | None, shards: tuple[int, ...] | None) -> None:
    if shards is None:
        return
    if version == "0.4":
        raise ValueError("shards need version 0.5: Zarr v2 has none")
    if chunks is None or any(shard % chunk for shard, chunk in zip(shards, chunks, strict=True)):
        raise ValueError(f"shards {shards} must be a multiple of chunks {chunks} along every axis")
