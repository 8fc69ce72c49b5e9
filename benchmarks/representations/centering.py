"""An option that is measured and not in the library: projections centred on control cells while training."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dynaclr.engine import ContrastiveModule

_CONTROLS = "uninfected"
_MOMENTUM = 0.9


class CenteredOnControls(ContrastiveModule):
    """Take from the projections of an experiment the running mean of its control cells."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.centers: dict[str, Tensor] = {}

    def views(self, batch: dict[str, Any], objective: Any) -> tuple[Any, ...]:
        """Return the centred projections."""
        (views,) = super().views(batch, objective)
        tracks = self.trainer.datamodule.train_dataset.index.tracks.iloc[batch["observation"].numpy()]
        experiments, conditions = (tracks[name].to_numpy().astype(str) for name in ("experiment", "condition"))
        centers = torch.zeros_like(views.anchor)
        for name in np.unique(experiments):
            rows = torch.from_numpy(experiments == name)
            controls = rows & torch.from_numpy(conditions == _CONTROLS)
            if controls.any():
                self._follow(str(name), views.anchor[controls].detach().mean(0))
            if name in self.centers:
                centers[rows] = self.centers[name]
        return (views._replace(anchor=views.anchor - centers, positive=views.positive - centers),)

    def _follow(self, name: str, mean: Tensor) -> None:
        self.centers[name] = torch.lerp(mean, self.centers.get(name, mean), _MOMENTUM)
