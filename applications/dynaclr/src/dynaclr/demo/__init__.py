"""The main job on simulated experiments: a config that is left on disk, and what it reaches."""

from dynaclr.demo.run import run_demo

__all__ = ["run_demo"]
