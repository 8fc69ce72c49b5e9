"""Where patches lie, compared with a padded image and a search through all starts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viscy_data.placement import Placement, border_shift, border_shifts

SIZES = st.integers(4, 30).flatmap(
    lambda extent: st.integers(1, extent).flatmap(
        lambda read: st.tuples(
            st.just(extent),
            st.just(read),
            st.integers(1, read),
            st.lists(st.floats(0, extent - 0.01), min_size=1, max_size=9),
        )
    )
)


@settings(deadline=None, max_examples=200)
@given(SIZES)
def test_the_final_patch_is_the_one_nearest_to_the_cell_that_lies_in_the_image_and_holds_the_cell(sizes):
    extent, _, final, centers = sizes
    along = Placement(centers, [extent] * len(centers), final, final)
    for number, center in enumerate(centers):
        pixel = min(int(np.floor(center + 0.5)), extent - 1)
        starts = range(extent - final + 1)
        best = min(starts, key=lambda start: abs(start - (pixel - final // 2)))
        assert along.final_start[number] == along.read_start[number] == best
        assert along.place[number] == pixel - best
        assert 0 <= along.place[number] < final
        assert not along.reflected[number]
    assert border_shift(centers, [extent] * len(centers), final).tolist() == np.abs(along.shift).tolist()


@settings(deadline=None, max_examples=200)
@given(SIZES)
def test_with_a_margin_the_cell_is_in_the_middle_of_an_image_padded_by_reflection(sizes):
    extent, read, final, centers = sizes
    if read == final:
        return
    image = np.arange(extent)
    padded = np.pad(image, extent - 1, mode="reflect")
    along = Placement(centers, [extent] * len(centers), read, final)
    for number, source in enumerate(along.source()):
        pixel = min(int(np.floor(centers[number] + 0.5)), extent - 1)
        start = along.read_start[number]
        patch = image[start : start + read][source]
        first = pixel - read // 2
        assert patch.tolist() == padded[first + extent - 1 : first + extent - 1 + read].tolist()
        assert patch[read // 2] == pixel
        assert along.reflected[number] == (patch.tolist() != image[start : start + read].tolist())
        cut = along.cut[number]
        seen = patch[cut : cut + final]
        assert pixel in seen
        wanted = along.final_start[number] + np.arange(final)
        if abs(along.shift[number]) <= min(read // 2 - final // 2, read - final - (read // 2 - final // 2)):
            assert seen.tolist() == wanted.tolist()  # the margin holds the shift: exactly the patch of a prediction


@pytest.mark.parametrize(("center", "shift"), [(5.0, 27), (12.0, 20), (64.0, 0), (123.0, 27)])
def test_shifts_of_the_example(center, shift):
    assert border_shift([center], [128], 64).tolist() == [shift]


def test_shifts_of_cells_of_many_fovs_are_the_larger_of_both_axes():
    rng = np.random.default_rng(0)
    extents = np.array([[20, 40], [30, 12], [64, 64]])
    fov = rng.permutation(np.repeat([0, 1, 2], 2**20 // 3 + 100))  # more than what is computed at a time
    y, x = (rng.uniform(0, extents[fov, axis]) for axis in (0, 1))
    found = border_shifts(y, x, fov, extents, (10, 12))
    assert found.dtype == np.int16
    for number, extent in enumerate(extents):
        own = fov == number
        shifts = [border_shift(c[own], np.full(own.sum(), e), s) for c, e, s in zip((y, x), extent, (10, 12))]  # noqa: B905
        np.testing.assert_array_equal(found[own], np.max(shifts, axis=0))
