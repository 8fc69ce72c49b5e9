"""DynaCLR: one encoder for the cells of many time-lapse experiments.

Every public name is loaded on first use, so that importing the package, and with it the command line, stays cheap.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "datamodule": ["MultiExperimentDataModule"],
        "dataset": ["MultiExperimentTripletDataset"],
        "engine": ["BetaVaeModule", "ContrastiveModule", "ContrastivePrediction"],
        "experiment": ["ExperimentConfig", "ExperimentRegistry"],
        "foundation_engine": ["FoundationModule"],
        "index": ["MultiExperimentIndex"],
        "loss": ["NTXentHCL"],
        "tau_sampling": ["sample_tau"],
    },
)
