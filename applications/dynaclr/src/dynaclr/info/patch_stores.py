"""Patch stores: what `dynaclr info` says of one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dynaclr.info.description import Describer, Description
from viscy_data.cache import readable_size
from viscy_data.patch_store import is_patch_store, read_record
from viscy_utils.reports.tables import ReportTable

__all__ = ["PATCH_STORE"]


def _describe(path: Path) -> Description:
    record = read_record(path)
    depth, height, width = record.size[1:]
    facts = {
        "cells": record.n_cells,
        "slices": f"{record.first_slice} to {record.first_slice + depth}, end excluded",
        "patches": f"{height} x {width} pixels, {record.size[0]} channels, {record.dtype}",
        "size": f"{readable_size(record.n_bytes)} in {record.n_shards} files",
    }
    fovs = Counter((fov["store"], ", ".join(map(str, fov["channels"]))) for fov in record.fovs)
    table = ReportTable("", ["store", "channels", "FOVs"], [[*key, str(count)] for key, count in fovs.items()])
    return Description("a patch store", facts, (table,), (f"in the data block of the config: patch_store: {path}",))


PATCH_STORE = Describer("a patch store", is_patch_store, _describe)
