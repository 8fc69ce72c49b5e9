"""A complete small example of virtual staining on simulated stacks."""

from cytoland.demo.run import run_demo

__all__ = ["run_demo"]
