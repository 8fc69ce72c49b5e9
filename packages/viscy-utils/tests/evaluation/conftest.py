"""Tests of what needs the extra ``eval``."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("sklearn") else ["test_[!v]*.py"]
