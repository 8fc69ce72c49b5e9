"""Tests of what needs the extra ``eval``."""

from importlib.util import find_spec

_NEED_EVAL = ["test_embedding_pictures.py", "test_probe.py", "test_smoothness.py"]
collect_ignore = [] if find_spec("sklearn") else _NEED_EVAL
