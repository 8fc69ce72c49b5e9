"""The data module of a config, without its model and trainer."""

from __future__ import annotations

from functools import partial

from viscy_utils.cli.data_module import load_data_module as load_any

__all__ = ["load_data_module"]

load_data_module = partial(load_any, prog="dynaclr")
