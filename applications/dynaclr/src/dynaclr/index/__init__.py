"""The table of all observations of all experiments, their lineages, and the anchors among them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"multi_experiment": ["MultiExperimentIndex"]}
)
