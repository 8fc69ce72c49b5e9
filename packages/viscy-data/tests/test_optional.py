from __future__ import annotations

import sys

import pytest

from viscy_data.optional import require


def test_a_module_that_is_there_is_returned():
    import os.path

    assert require("os.path", extra="triplet") is os.path


@pytest.mark.parametrize(
    ("whose", "said"),
    [
        ({"extra": "triplet"}, r"absent is needed .*: pip install 'viscy-data\[triplet\]'"),
        ({"extra": "phate", "package": "viscy-utils"}, r"absent is needed .*: pip install 'viscy-utils\[phate\]'"),
    ],
)
def test_one_that_is_not_names_the_extra(whose, said, monkeypatch):
    monkeypatch.setitem(sys.modules, "absent", None)
    with pytest.raises(ImportError, match=said) as caught:
        require("absent.part", **whose)
    assert caught.value.name == "absent"
    assert isinstance(caught.value.__cause__, ImportError)
