"""DynaCLR: one encoder for the cells of many time-lapse experiments.

Every public name is loaded on first use, so that importing the package, and with it the command line, stays cheap.
"""

from importlib import import_module

_HOMES = {
    "BetaVaeModule": "engine",
    "ContrastiveModule": "engine",
    "ContrastivePrediction": "engine",
    "ExperimentConfig": "experiment",
    "ExperimentRegistry": "experiment",
    "MultiExperimentDataModule": "datamodule",
    "MultiExperimentIndex": "index",
    "MultiExperimentTripletDataset": "dataset",
    "NTXentHCL": "loss",
    "sample_tau": "tau_sampling",
}

__all__ = [
    "BetaVaeModule",
    "ContrastiveModule",
    "ContrastivePrediction",
    "ExperimentConfig",
    "ExperimentRegistry",
    "MultiExperimentDataModule",
    "MultiExperimentIndex",
    "MultiExperimentTripletDataset",
    "NTXentHCL",
    "sample_tau",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
