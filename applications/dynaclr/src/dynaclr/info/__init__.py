"""What is at a path, in a few lines: one describer per kind of thing, and a registry that asks them in turn."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"description": ["Describer", "Description"], "registry": ["DESCRIBERS", "describe"]},
)
