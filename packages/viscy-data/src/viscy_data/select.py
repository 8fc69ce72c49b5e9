"""Which FOVs of a plate are used: wells to take, FOVs to leave out, by name.

>>> from viscy_data.stores import FovInfo, FovKey
>>> fovs = [FovInfo(FovKey("p.zarr", name), (1, 1, 1, 8, 8), "uint8", ("a",)) for name in ("A/1/0", "A/1/1", "B/1/0")]
>>> [fov.name for fov in select_fovs(fovs, include_wells=["A/1"], exclude_fovs=["A/1/1"])]
['A/1/0']
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from viscy_data.checks import near_matches
from viscy_data.errors import InputError, raise_all
from viscy_data.stores import FovInfo, FovKey, canonical_fov_name, describe_position, well_of

if TYPE_CHECKING:
    from iohub.ngff import Plate, Position

__all__ = ["SelectWell", "fovs_named", "select_fovs"]


def select_fovs(
    fovs: Sequence[FovInfo],
    include_wells: Sequence[str] | None = None,
    exclude_fovs: Sequence[str] | None = None,
    *,
    where: str = "",
    fields: tuple[str, str] = ("include_wells", "exclude_fovs"),
    left_out: Iterable[FovKey] = (),
) -> list[FovInfo]:
    """Choose FOVs by the names of wells and FOVs.

    Parameters
    ----------
    fovs : sequence of FovInfo
        Of one or more plates.
    include_wells : sequence of str, optional
        Take only the FOVs of these wells (``A/1``); all by default. Slashes at the ends do not matter.
    exclude_fovs : sequence of str, optional
        Leave out the FOVs of these names (``A/1/0``).
    where : str, optional
        The store or config, for messages.
    fields : pair of str, default ("include_wells", "exclude_fovs")
        How the user knows the two options.
    left_out : iterable of FovKey, default ()
        FOVs that are not among ``fovs`` since they cannot be read: names that may be given.

    Returns
    -------
    list of FovInfo
        In the order of ``fovs``; it may be empty.

    Raises
    ------
    InputError
        Naming, with near matches, every name that no FOV has, or an option that is one text instead of a list.
    """
    names = [fov.name for fov in fovs] + [key.name for key in left_out]
    wells, wrong_wells = _known(include_wells, map(well_of, names), where, fields[0])
    excluded, wrong_fovs = _known(exclude_fovs, names, where, fields[1])
    raise_all(wrong_wells + wrong_fovs)
    taken = fovs if include_wells is None else [fov for fov in fovs if fov.well in wells]
    return [fov for fov in taken if fov.name not in excluded]


def fovs_named(
    fovs: Sequence[FovInfo],
    names: Sequence[str],
    *,
    where: str = "",
    field: str = "",
    left_out: Iterable[FovKey] = (),
) -> list[FovInfo]:
    """Choose the FOVs that a list names, by themselves or by their well; see :func:`select_fovs`.

    Returns
    -------
    list of FovInfo
        In the order of ``fovs``.

    Raises
    ------
    InputError
        As :func:`select_fovs`.
    """
    usable = [fov.name for fov in fovs] + [key.name for key in left_out]
    known = [name for own in usable for name in (well_of(own), own)]
    wanted, wrong = _known(names, known, where, field)
    raise_all(wrong)
    return [fov for fov in fovs if fov.name in wanted or fov.well in wanted]


class SelectWell:
    """Mixin of data modules that restrict fitting to wells and leave FOVs out.

    Attributes
    ----------
    _include_wells, _exclude_fovs : sequence of str or None
        As for :func:`select_fovs`; set by the data module.
    """

    _include_wells: Sequence[str] | None = None
    _exclude_fovs: Sequence[str] | None = None

    def fovs_to_fit(self, fovs: Sequence[FovInfo], where: str = "") -> list[FovInfo]:
        """Choose the FOVs to fit, see :func:`select_fovs`; the split needs at least two of them."""
        left_out = getattr(self, "left_out_fovs", ())
        return select_fovs(fovs, self._include_wells, self._exclude_fovs, where=where, left_out=left_out)

    def _filter_fit_fovs(self, plate: Plate) -> list[Position]:
        """Choose positions of an open plate: for subclasses that were written for VisCy v2.2."""
        described = [(describe_position(position), position) for _, position in plate.positions()]
        chosen = self.fovs_to_fit([fov for fov, _ in described])
        if len(chosen) < 2:
            raise InputError("the plate", found=f"{len(chosen)} FOVs to fit", expected="at least 2")
        return [position for fov, position in described if fov in chosen]


def _known(
    asked: Sequence[str] | None, known: Iterable[str], where: str, field: str
) -> tuple[set[str], list[InputError]]:
    """Return the names in their canonical spelling, and what is wrong with them."""
    place = {"where": where or field, "field": field if where else ""}
    if isinstance(asked, str):
        fix = f"write [{asked}]"
        return set(), [InputError(**place, found=f"the text {asked!r}", expected="a list of names", fix=fix)]
    names = {canonical_fov_name(name) for name in asked or ()}
    known = sorted(set(known))
    unknown = sorted(names.difference(known))
    return names, [
        InputError(**place, found=repr(name), expected=near_matches(name, known), fix="correct the name")
        for name in unknown
    ]
