from __future__ import annotations

import subprocess
import sys

import pytest

from viscy_data.checks import (
    Option,
    check_options,
    is_count,
    is_names,
    is_number,
    is_pair,
    is_range,
    is_texts,
    near_matches,
)


@pytest.mark.parametrize(
    ("holds", "good", "bad"),
    [
        (is_count, [0, 7], [-1, 1.0, True, "1", None]),
        (lambda value: is_count(value, 1), [1], [0]),
        (is_number, [0, -2.5], [True, float("nan"), float("inf"), "1", None]),
        (lambda value: is_number(value, 0, 1), [0, 1, 0.5], [-0.1, 1.1]),
        (is_pair, [[1, 2], ("a", None)], ["ab", [1], [1, 2, 3], None, {1, 2}]),
        (is_range, [[0, 0], (-1, 2.5)], [[1, 0], [0], "01", [0, None], 3]),
        (lambda value: is_range(value, 0), [[0, 1]], [[-1, 1]]),
        (is_texts, [[], ["a", "a"]], ["a", [1], None]),
        (is_names, [[], ("a", "b")], ["ab", ["a", "a"], [1], None]),
    ],
)
def test_values_are_told_apart(holds, good, bad):
    assert all(holds(value) for value in good)
    assert not any(holds(value) for value in bad)


def test_every_option_that_does_not_hold_is_a_problem():
    options = [
        Option("size", 0, is_count(0, 1), "at least 1", "enlarge it"),
        Option("seed", 3, is_count(3), "a whole number"),
        Option("names", "a", is_names("a"), "a list"),
    ]
    problems = check_options("Reader", options)
    assert [(p.where, p.field, p.found, p.expected, p.fix) for p in problems] == [
        ("Reader", "size", "0", "at least 1", "enlarge it"),
        ("Reader", "names", "'a'", "a list", ""),
    ]


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("Phse", ["Phase", "GFP"], "did you mean 'Phase'?"),
        ("gfp ex488", ["GFP EX488", "Phase"], "did you mean 'GFP EX488'?"),
        ("E1", ["e0", "e1"], "did you mean 'e1'?"),
        ("A/11", ["A/1", "B/2", "A/12"], "did you mean 'A/1' or 'A/12'?"),
        ("xyz", ["Phase", "GFP", "GFP"], "one of 'Phase', 'GFP'"),
        (3, [1, 2], "one of '1', '2'"),
        ("xyz", [], "nothing, as there is none"),
    ],
)
def test_near_names_are_said_or_all(name, known, said):
    assert near_matches(name, known) == said


def test_long_lists_are_cut_and_counted():
    said = near_matches("zz", [f"well{i:02}" for i in range(25)])
    assert said.startswith("one of 'well00'")
    assert said.endswith("'well19' and 5 more")


def test_callers_choose_what_is_said_when_nothing_is_near_and_what_near_is():
    assert near_matches("zz", ["abc"], otherwise="see --help") == "see --help"
    assert near_matches("data.seed", ["data.root"], otherwise="", cutoff=0.9) == ""


def test_checks_cost_nothing_to_import():
    code = "import sys, viscy_data.checks; print(sorted(set(sys.modules) & {'numpy', 'pandas', 'torch', 'zarr'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
