"""Patches of cells, copied once out of whole images into a store that is laid out for sampling.

A batch of random cells decodes far more pixels than it keeps where images are chunked by plane. A patch store holds one
uncompressed box per cell, so that reading a patch is copying it. It is a cache: batches are the same bit for bit, and a
store of other cells, channels, slices or pixels is refused.

``boxes`` says which boxes there are, ``layout`` how they lie on disk, ``writing`` and ``reading`` the rest.
"""

from __future__ import annotations

from viscy_data.patch_store.boxes import CellBoxes
from viscy_data.patch_store.layout import SCHEMA_VERSION, StoreRecord, is_patch_store, read_record
from viscy_data.patch_store.reading import StoredPatches
from viscy_data.patch_store.writing import PatchStorePlan, write_patch_store

__all__ = [
    "SCHEMA_VERSION",
    "CellBoxes",
    "PatchStorePlan",
    "StoreRecord",
    "StoredPatches",
    "is_patch_store",
    "read_record",
    "write_patch_store",
]
