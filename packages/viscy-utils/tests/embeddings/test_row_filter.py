"""Conditions on rows, against the same choice by pandas, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from viscy_data.errors import InputError
from viscy_utils.embeddings.row_filter import matching_rows

TABLE = pd.DataFrame(
    {"condition": pd.Categorical(["uninfected", "infected", None, "uninfected"]), "t": [0, 5, 7, 9],
     "MOI used": [1.0, np.nan, 2.0, 3.0], "name": ["a", "b", "c'd", None], "good": [True, False, True, True]}
)  # fmt: skip


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("condition == 'uninfected'", [0, 3]),
        ('condition != "uninfected"', [1, 2]),
        ("condition in ['uninfected', 'infected']", [0, 1, 3]),
        ("condition not in ['infected']", [0, 2, 3]),
        ("t >= 5 and not condition == 'infected'", [2, 3]),
        ("(t < 1 or t > 8) and condition == 'uninfected'", [0, 3]),
        ("`MOI used` <= 2", [0, 2]),
        ("t == -1 or t == 7", [2]),
        ('name == "c\'d"', [2]),
        ("good == True", [0, 2, 3]),
        ("name == None", []),
    ],
)
def test_rows_of_which_it_is_true(condition, expected):
    assert np.flatnonzero(matching_rows(TABLE, condition, "--controls")).tolist() == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("conditon == 'uninfected'", "did you mean 'condition'"),
        ("condition = 'uninfected'", "comparisons"),
        ("condition", "comparisons"),
        ("", "comparisons"),
        ("__import__('os').system('true') == 0", "comparisons"),
        ("condition == open('x')", "comparisons"),
        ("name < 3", "comparisons"),
        ("0 < t < 5", "comparisons"),
        ("t == `good`", "comparisons"),
        ("(" * 5000 + "t == 1" + ")" * 5000, "comparisons"),
    ],
)
def test_anything_else_is_refused(condition, message):
    with pytest.raises(InputError, match=message):
        matching_rows(TABLE, condition, "--controls")
