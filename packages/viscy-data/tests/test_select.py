from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viscy_data.errors import InputError, InputErrors
from viscy_data.select import SelectWell, fovs_named, select_fovs
from viscy_data.stores import FovInfo, FovKey, PlateWriter

NAMES = ("A/1/0", "A/1/1", "A/2/0", "B/1/0")
FOVS = [FovInfo(FovKey("/p.zarr", name), (1, 1, 1, 8, 8), "uint8", ("a",)) for name in NAMES]
WELLS = ("A/1", "A/2", "B/1")


def names(fovs):
    return [fov.name for fov in fovs]


@given(wells=st.none() | st.sets(st.sampled_from(WELLS)), excluded=st.sets(st.sampled_from(NAMES)))
def test_what_is_chosen_is_in_a_well_that_is_named_and_is_not_excluded(wells, excluded):
    chosen = select_fovs(FOVS, None if wells is None else [f"/{well}/" for well in wells], sorted(excluded))
    expected = []
    for name in NAMES:
        if wells is not None and name[:3] not in wells:
            continue
        if name not in excluded:
            expected.append(name)
    assert names(chosen) == expected


def test_an_empty_list_of_wells_takes_none_and_no_list_takes_all():
    assert select_fovs(FOVS, []) == []
    assert select_fovs(FOVS) == FOVS


def test_every_unknown_name_is_refused_with_near_matches():
    with pytest.raises(InputErrors) as caught:
        select_fovs(FOVS, ["A/3"], ["A/1/7", "A/1"], where="/p.zarr", fields=("fit_include_wells", "fit_exclude_fovs"))
    assert [(err.where, err.field, err.found) for err in caught.value.errors] == [
        ("/p.zarr", "fit_include_wells", "'A/3'"),
        ("/p.zarr", "fit_exclude_fovs", "'A/1'"),
        ("/p.zarr", "fit_exclude_fovs", "'A/1/7'"),
    ]
    assert all("'A/1" in err.expected for err in caught.value.errors)


def test_a_text_in_place_of_a_list_is_refused():
    with pytest.raises(InputError, match="the text 'A/1'"):
        select_fovs(FOVS, "A/1")


def test_fovs_are_named_by_themselves_or_by_their_well():
    assert names(fovs_named(FOVS, ["B/1", "/A/1/1"])) == ["A/1/1", "B/1/0"]
    with pytest.raises(InputError, match="dataset_fovs") as caught:
        fovs_named(FOVS, ["C/1"], where="/p.zarr", field="dataset_fovs")
    assert caught.value.found == "'C/1'"


def test_the_mixin_chooses_infos_and_open_positions(tmp_path):
    from iohub.ngff import open_ome_zarr

    path = tmp_path / "plate.zarr"
    with PlateWriter(path, ["a"]) as writer:
        for name in NAMES:
            writer.write(name, np.zeros((1, 1, 1, 8, 8), np.uint8))

    class Chosen(SelectWell):
        _include_wells, _exclude_fovs = ["A/1", "B/1"], ["A/1/0"]

    assert names(Chosen().fovs_to_fit(FOVS)) == ["A/1/1", "B/1/0"]
    assert names(SelectWell().fovs_to_fit(FOVS)) == list(NAMES)
    with open_ome_zarr(path, mode="r") as plate:
        found = Chosen()._filter_fit_fovs(plate)
        assert [position.zgroup.name.strip("/") for position in found] == ["A/1/1", "B/1/0"]
        Chosen._include_wells = ["A/1"]
        with pytest.raises(InputError, match="at least 2"):
            Chosen()._filter_fit_fovs(plate)
