"""YAML: what is read is what was meant, and what cannot have been meant is refused."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from viscy_data.errors import InputError, MissingInputError
from viscy_data.yaml_reading import DuplicateKeyError, dump_yaml, parse_yaml, read_mapping, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e1", 30.0),
        ("1e-4", 1e-4),
        ("-2.5E+3", -2500.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("12", 12),
        ("-7", -7),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0", 0),
        ("0:30", "0:30"),
        ("1:30:00", "1:30:00"),
        ("010", "010"),
        ("000000", "000000"),
        ("2024-05-02", "2024-05-02"),
        ("A/1/0", "A/1/0"),
        ("1e", "1e"),
        ("0x", "0x"),
        ("0x_", "0x_"),
        ("0b_", "0b_"),
        ("null", None),
        ("true", True),
    ],
)
def test_a_scalar_is_what_it_looks_like(text, value):
    found = parse_yaml(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


_TEXT = st.text() | st.from_regex(r"[-+0-9.:eE_xb]{1,6}", fullmatch=True)  # also what could be taken for numbers
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(_VALUES)
@example({"\x85": "a\u2028b"})
def test_what_is_written_is_read_again(value):
    assert parse_yaml(dump_yaml(value)) == value
    assert yaml.safe_load(dump_yaml(value)) == value


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("a: 1\nb: 2\na: 3", "a", (1, 3)),
        ("experiments:\n  - name: x\n    wells: {A: 1, B: 2,\n      A: 3}", "A", (3, 4)),
        ("one: {two: {three: 1}}\nother:\n  - - key: 1\n      'key': 2", "key", (3, 4)),
        ("1: a\n2: b\n1: c", 1, (1, 3)),
        ("base: &b {x: 1,\n  x: 2}\nmore: {<<: *b}", "x", (1, 2)),
        ("more:\n  <<: {x: 1,\n    x: 2}", "x", (2, 3)),
        ("a: &a {x: 1}\nmore:\n  <<: [*a, {y: 1,\n    y: 2}]", "y", (3, 4)),
        ("a: &a {x: 1}\nb: &b {y: 1}\nmore:\n  <<: *a\n  <<: *b", "<<", (4, 5)),
        ("a: &a {x: {y: 1,\n  y: 2}}", "y", (1, 2)),
        ("name: &n k\nmore: {*n : 1,\n  k: 2}", "k", (1, 3)),  # where the name stands
        ("yes: 1\ntrue: 2", True, (1, 2)),
    ],
)
def test_a_key_given_twice_is_refused_with_both_lines(text, key, lines, tmp_path):
    with pytest.raises(DuplicateKeyError) as caught:
        parse_yaml(text)
    assert (caught.value.key, caught.value.first, caught.value.second) == (key, *lines)
    path = tmp_path / "experiments.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"given twice, in lines {lines[0]} and {lines[1]}") as caught:
        read_yaml(path)
    assert (caught.value.where, caught.value.field) == (str(path), str(key))


def test_a_key_may_override_one_that_is_merged_in():
    assert parse_yaml("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  x: 3")["more"] == {"x": 3, "y": 2}
    text = "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nmore: {<<: [*b, {x: 3, z: 4}]}"
    assert parse_yaml(text)["more"] == {"x": 1, "y": 2, "z": 4}


@pytest.mark.parametrize(
    "text", ["a: !!int x", "a: !!float x", "a: !!timestamp 2024-13-01", "? [1]\n: a", "a: 1\n---\nb: 2"]
)
def test_what_contradicts_itself_is_no_yaml(text):
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)


def test_objects_are_not_made():
    with pytest.raises(yaml.YAMLError):
        parse_yaml("!!python/object/apply:os.getcwd []")


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "fit.yml"
    with pytest.raises(MissingInputError, match="no such file"):
        read_yaml(path)
    (tmp_path / "fit.yaml").write_text("a: 1")
    with pytest.raises(MissingInputError, match=r"did you mean 'fit.yaml'\?"):
        read_yaml(path)
    with pytest.raises(MissingInputError, match=r"no folder .*nowhere"):
        read_yaml(tmp_path / "nowhere" / "fit.yml")
    with pytest.raises(InputError, match="a folder"):
        read_yaml(tmp_path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no text"):
        read_yaml(path)
    path.write_text("a: [1\nb: 2")
    with pytest.raises(InputError, match=r"no YAML: .*line 2"):
        read_yaml(path)


@pytest.mark.parametrize(("text", "found"), [("", "an empty file"), ("# only words", "an empty file"), ("- 1", "list")])
def test_a_file_without_keys_is_refused(tmp_path, text, found):
    path = tmp_path / "fit.yml"
    path.write_text(text)
    with pytest.raises(InputError, match=found):
        read_mapping(path)
    path.write_text("a: 1")
    assert read_mapping(path) == {"a": 1}
