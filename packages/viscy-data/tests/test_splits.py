from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viscy_data.errors import InputError
from viscy_data.splits import FovSplit
from viscy_data.stores import FovInfo, FovKey


def fovs_of(names, store="/p.zarr"):
    return [FovInfo(FovKey(store, name), (1, 1, 1, 8, 8), "uint8", ("a",)) for name in names]


NAMES = st.sets(st.integers(0, 30), min_size=2, max_size=20).map(lambda ns: [f"A/1/{n}" for n in sorted(ns)])


@given(names=NAMES, ratio=st.floats(0.01, 0.99), seed=st.integers(0, 9), data=st.data())
def test_every_fov_is_on_one_side_and_neither_side_is_empty(names, ratio, seed, data):
    split = FovSplit.draw(fovs_of(names), ratio, seed)
    assert sorted(split.train + split.val) == sorted(names)
    assert len(split.train) == min(max(int(ratio * len(names)), 1), len(names) - 1)
    shuffled = data.draw(st.permutations(names))
    assert FovSplit.draw(fovs_of(shuffled), ratio, seed) == split
    train, val = split.sides(fovs_of(shuffled))
    assert ([fov.name for fov in train], [fov.name for fov in val]) == (sorted(split.train), sorted(split.val))


def test_seeds_give_different_splits():
    fovs = fovs_of([f"A/1/{n}" for n in range(10)])
    assert len({FovSplit.draw(fovs, 0.5, seed).train for seed in range(10)}) > 5


def test_a_single_fov_cannot_be_split():
    with pytest.raises(InputError, match=r"(?s)^config\n  found    1 FOVs to fit.*at least 2"):
        FovSplit.draw(fovs_of(["A/1/0"]), 0.5, 0, where="config")


def test_a_kept_split_says_what_is_new_and_what_is_gone():
    split = FovSplit("/p.zarr", ("A/1/0", "A/1/1"), ("A/1/2",))
    fovs = fovs_of(["A/1/3", "A/1/2", "A/1/0"])
    assert split.is_of(fovs)
    with pytest.warns(UserWarning, match="a split is kept") as caught:
        train, val = split.sides(fovs)
    texts = [str(warning.message) for warning in caught]
    assert "1 FOVs are not in it and are left out: ['A/1/3']" in texts[0]
    assert "1 FOVs of it are not among those to fit: ['A/1/1']" in texts[1]
    assert ([fov.name for fov in train], [fov.name for fov in val]) == (["A/1/0"], ["A/1/2"])


def test_a_split_belongs_to_its_plate():
    split = FovSplit("/p.zarr", ("A/1/0",), ("A/1/1",))
    assert not split.is_of(fovs_of(["A/1/0", "A/1/1"], "/other.zarr"))
    assert not split.is_of(fovs_of(["A/1/0", "B/1/0"]))
