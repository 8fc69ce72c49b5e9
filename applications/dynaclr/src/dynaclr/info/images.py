"""Files of microscopes: what `dynaclr info` says of one, and of a folder of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from dynaclr.info.description import Describer, Description
from viscy_utils.reports.tables import ReportTable

__all__ = ["IMAGES"]

_MOST = 64  # files that are opened


def _recognises(path: Path) -> bool:
    from viscy_data.images.sources import is_image

    inside = [path] if path.is_file() else [*path.glob("*"), *path.glob("*/*")]
    return any(is_image(each) for each in inside)


def _describe(path: Path) -> Description:
    from viscy_data.images.sources import describe_files, find_files

    found = find_files([path])
    positions = [own for each in describe_files(found.files[:_MOST]).values() for own in each]
    layouts = Counter((" ".join(map(str, own.shape)), own.dtype.name) for own in positions)
    table = ReportTable("", ("positions", "T, C, Z, Y, X", "dtype"), [(str(n), *own) for own, n in layouts.items()])
    suffixes = Counter(each.suffix.lower() for each in found.files)
    facts = {
        "files": [f"{count} {suffix}" for suffix, count in suffixes.items()],
        "channels": list(dict.fromkeys(name for own in positions for name in own.channel_names)),
        "looked at": f"the first {_MOST} files" if len(found.files) > _MOST else None,
        "notes": found.notes,
    }
    step = f"dynaclr import-images {path} --output plate.zarr --dry-run"
    return Description("images of a microscope", facts, (table,), (step,))


IMAGES = Describer("images of a microscope", _recognises, _describe)
