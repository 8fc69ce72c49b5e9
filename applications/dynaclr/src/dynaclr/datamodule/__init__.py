"""The data of several experiments for Lightning: split, loaders, and what happens to a batch on the device."""

from dynaclr.datamodule.module import MultiExperimentDataModule

__all__ = ["MultiExperimentDataModule"]
