"""What is noticed when embeddings are compared that are not of the same cells or not of different encoders."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.origins import origin_notes, origin_of


def cells(name, rows=range(6), origin=None, **columns):
    obs = pd.DataFrame({"experiment": "e", "fov_name": "A/1/0", "track_id": list(rows), "t": 0} | columns)
    return Embedded(name, np.zeros((len(obs), 2), np.float32), obs, origin={} if origin is None else {"origin": origin})


def origin(weights="w", **digests):
    sources = [{"store": store, "fovs": 1, "observations": 6, "digest": digest} for store, digest in digests.items()]
    return {"checkpoint": {"path": "", "weights": weights}, "data": json.dumps({"sources": {"predict": sources}})}


def test_equal_cells_of_stores_that_say_nothing_are_not_worth_a_word():
    assert origin_notes([cells("a"), cells("b")]) == []
    assert origin_of(cells("a")) == {}


def test_cells_that_only_one_has_are_counted():
    (note,) = origin_notes([cells("a"), cells("b", range(2, 9))])
    assert note == "a and b are not of the same cells: 2 only a has, 3 only b has"


@pytest.mark.parametrize(("distance", "n_notes"), [(0.1, 0), (3.0, 1)])
def test_cells_at_other_places_were_tracked_again(distance, n_notes):
    y = np.arange(6.0)
    found = origin_notes([cells("a", y=y, x=0.0), cells("b", y=y + distance * (y > 3), x=0.0)])
    assert len(found) == n_notes
    assert all("2 cells of equal names" in note for note in found)


def test_stores_and_encoders_are_compared_pair_by_pair():
    compared = [
        cells("a", origin=origin("1", plate="x", extra="y")),
        cells("b", origin=origin("2", plate="x")),
        cells("c", origin=origin("1", plate="z", extra="y")),
    ]
    assert origin_notes(compared) == [
        "a and b: only a has extra",
        "a and c are of one encoder: equal weights",
        "a and c are of different cells of plate (6 and 6 observations): tracked again, or other wells?",
        "b and c are of different cells of plate (6 and 6 observations): tracked again, or other wells?",
        "b and c: only c has extra",
    ]


def test_data_that_nobody_knows_are_not_compared():
    stored = origin("1", plate="x") | {"data": json.dumps(None)}
    assert origin_of(cells("a", origin=stored))["sources"] == []
    assert origin_notes([cells("a", origin=stored), cells("b", origin=origin("2", plate="x"))]) == []
