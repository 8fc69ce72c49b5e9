"""Tests of what needs the extra ``triplet``."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("scipy") else ["test_synthetic*.py", "test_testing.py"]
