"""Microscopes' files to an OME-Zarr plate: TIFF, OME-TIFF, ImageJ, Micro-Manager, ND2, CZI, LIF, and plugins of bioio.

A reader per format gives positions and their planes (:class:`ImageFile`); a plan says which plane of the plate each
becomes, and what is missing or contradicts (:func:`plan_import`); writing reads plane by plane, and an interrupted
import is continued by its like (:func:`import_images`). Readers need the extra ``images``.
"""

from __future__ import annotations

from viscy_data.images.files import ImageFile, ImagePosition
from viscy_data.images.patterns import FIELDS, NamePattern, propose_pattern
from viscy_data.images.plan import FovPlan, ImportOptions, ImportPlan, plan_import
from viscy_data.images.sources import FORMATS, open_images
from viscy_data.images.units import parse_interval
from viscy_data.images.writing import import_images

__all__ = [
    "FIELDS",
    "FORMATS",
    "FovPlan",
    "ImageFile",
    "ImagePosition",
    "ImportOptions",
    "ImportPlan",
    "NamePattern",
    "import_images",
    "open_images",
    "parse_interval",
    "plan_import",
    "propose_pattern",
]
