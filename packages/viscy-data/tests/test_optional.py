from __future__ import annotations

import sys

import pytest

from viscy_data.optional import from_extra, require


def test_a_module_that_is_there_is_returned():
    import os.path

    assert require("os.path", extra="triplet") is os.path


def import_in_body(extra, **whose):
    with from_extra(extra, **whose):
        import absent.part  # noqa: F401


@pytest.mark.parametrize("use", [lambda **whose: require("absent.part", **whose), import_in_body])
@pytest.mark.parametrize(
    ("whose", "said"),
    [
        ({"extra": "triplet"}, r"absent is needed .*: pip install 'viscy-data\[triplet\]'"),
        ({"extra": "phate", "package": "viscy-utils"}, r"absent is needed .*: pip install 'viscy-utils\[phate\]'"),
    ],
)
def test_one_that_is_not_names_the_extra(use, whose, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "absent", None)
    with pytest.raises(ImportError, match=said) as caught:
        use(**whose)
    assert caught.value.name == "absent"
    assert isinstance(caught.value.__cause__, ImportError)
