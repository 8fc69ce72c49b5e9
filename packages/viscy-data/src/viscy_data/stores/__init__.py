"""OME-Zarr stores: the FOVs of plates and of images that are in none, their attributes, and writing a plate.

Reading takes the small JSON documents of the store and one chunk to try its codec, so a plate of hundreds of FOVs is
listed in milliseconds and no file stays open; OME-NGFF 0.4 (Zarr v2) and 0.5 (Zarr v3) and any order of axes look the
same to the caller.

>>> import tempfile, numpy as np
>>> path = tempfile.mkdtemp() + "/plate.zarr"
>>> with PlateWriter(path, ["Phase", "GFP"]) as plate:
...     plate.write("A/1/0", np.zeros((3, 2, 1, 64, 64), np.float32))
>>> [fov] = read_plate(path)
>>> fov.name, fov.well, fov.shape, fov.channel_names
('A/1/0', 'A/1', (3, 2, 1, 64, 64), ('Phase', 'GFP'))
"""

from __future__ import annotations

from viscy_data.stores.arrays import open_array
from viscy_data.stores.attributes import read_attributes, update_attributes, update_attributes_of
from viscy_data.stores.faults import read_block, read_stack
from viscy_data.stores.growing import GrowingPlate
from viscy_data.stores.names import FovInfo, FovKey, canonical_fov_name, canonical_store, well_of
from viscy_data.stores.policy import (
    DEFAULT_STORAGE,
    BadFovs,
    StoragePolicy,
    UsableFovs,
    left_out_text,
    usable_fovs,
    why_left_out,
)
from viscy_data.stores.reading import describe_plate, describe_position, read_fov, read_plate
from viscy_data.stores.sources import Source, fov_keys, read_fovs, refuse_missing, source_paths
from viscy_data.stores.writing import PlateWriter

__all__ = [
    "DEFAULT_STORAGE",
    "BadFovs",
    "FovInfo",
    "FovKey",
    "GrowingPlate",
    "PlateWriter",
    "Source",
    "StoragePolicy",
    "UsableFovs",
    "canonical_fov_name",
    "canonical_store",
    "describe_plate",
    "describe_position",
    "fov_keys",
    "left_out_text",
    "open_array",
    "read_attributes",
    "read_block",
    "read_fov",
    "read_fovs",
    "read_plate",
    "read_stack",
    "refuse_missing",
    "source_paths",
    "update_attributes",
    "update_attributes_of",
    "usable_fovs",
    "well_of",
    "why_left_out",
]
