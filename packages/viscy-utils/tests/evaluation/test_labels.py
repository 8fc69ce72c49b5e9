"""Labels of cells in whatever form tables have them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from viscy_data.errors import InputError
from viscy_utils.evaluation.embedded import Embedded
from viscy_utils.evaluation.labels import add_labels, is_missing, only_labelled, read_label_table

CELLS = pd.DataFrame({"experiment": "one", "fov_name": "A/1/0", "track_id": [1, 1, 2, 2], "t": [0, 1, 0, 1]})
LABELS = CELLS.assign(state=list("abab"))


def embedded(**columns) -> Embedded:
    return Embedded("cells", np.ones((4, 2), np.float32), CELLS.assign(**columns))


@pytest.mark.parametrize(
    "written",
    ["", "  ", "nan", " NaN ", "None", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "<NA>", None, np.nan, pd.NA],
)
def test_what_stands_for_nothing_is_missing(written):
    assert is_missing(np.array(["a", written], dtype=object)).tolist() == [False, True]


@pytest.mark.parametrize("written", ["none", "no", "0", 0, False, "-", "nano", "unknown"])
def test_what_may_be_a_class_is_not_missing(written):
    assert is_missing(np.array(["a", written], dtype=object)).tolist() == [False, False]


@pytest.mark.parametrize(
    ("labels", "kept"),
    [
        (pd.Categorical(["a", None, "b", "b"]), ["a", "b", "b"]),
        (pd.Categorical(["a", "unknown", "b", " "]), ["a", "b"]),
        (pd.array(["a", None, "b", "b"], dtype="string"), ["a", "b", "b"]),
        (pd.array([1, None, 2, 1], dtype="Int64"), [1, 2, 1]),
        ([True, None, False, True], [True, False, True]),
        ([1.0, np.nan, 2.0, 1.0], [1.0, 2.0, 1.0]),
        (["a", "a ", " b", "b"], ["a", "a", "b", "b"]),
        (["a", "Unknown", " UNKNOWN", "b"], ["a", "b"]),
    ],
    ids=str,
)
def test_labels_of_any_type_keep_their_classes(labels, kept):
    found = only_labelled(embedded(state=labels), "state")
    assert found.obs["state"].tolist() == kept
    assert sum(each.n_cells for each in found.left_out) == 4 - len(kept)


@pytest.mark.parametrize("fov", ["/A/1/0/", "A\\1\\0", "\\A\\1\\0", " A/1/0 ", "A//1/0", "./A/1/0"])
def test_fovs_of_any_spelling_are_found(fov):
    found = add_labels(embedded(), LABELS.assign(fov_name=fov, experiment=" one"), "state", source="labels.csv")
    assert found.obs["state"].tolist() == list("abab")


@pytest.mark.parametrize("kind", [str, float, "Int64"])
def test_numbers_of_any_type_are_found(kind):
    table = LABELS.assign(track_id=LABELS["track_id"].astype(kind), t=LABELS["t"].astype(kind))
    assert add_labels(embedded(), table, "state", source="labels.csv").obs["state"].tolist() == list("abab")


@pytest.mark.parametrize("column", ["track_id", "t"])
def test_a_table_of_other_ids_is_refused_with_column_and_value(column):
    table = LABELS.assign(**{column: ["1", "cell7", "x", ""]})
    with pytest.raises(InputError, match=rf"labels\.csv, field {column}\n  found    'cell7'"):
        add_labels(embedded(), table, "state", source="labels.csv")


def test_a_label_is_one_whatever_the_length_of_its_table(tmp_path):
    """Long tables are read in parts, of which each would choose its own type."""
    path = tmp_path / "labels.csv"
    path.write_text("state\n" + "1\n" * 400_000 + "x\n")
    assert set(read_label_table(path)["state"]) == {"1", "x"}


def test_a_packed_table_is_that_which_was_packed(tmp_path):
    LABELS.to_csv(tmp_path / "labels.csv.gz", index=False)
    pd.testing.assert_frame_equal(read_label_table(tmp_path / "labels.csv.gz"), LABELS)


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_a_table_of_a_spreadsheet_is_refused_with_what_is_between_its_columns(tmp_path, separator, name):
    pd.DataFrame({"fov_name": ["A/1/0"], "t": [0], "state": ["b"]}).to_csv(
        tmp_path / "a.csv", sep=separator, index=False
    )
    with pytest.raises(InputError, match=rf"a\.csv\n  found    {name} between columns: .*\n  expected commas\n  fix"):
        read_label_table(tmp_path / "a.csv")
