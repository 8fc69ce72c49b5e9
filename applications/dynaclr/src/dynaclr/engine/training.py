"""The training modules' base, with reports in the words of our networks."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from viscy_models.checkpoints import mismatches
from viscy_utils.training.module import TrainingModule as SharedTrainingModule

__all__ = ["TrainingModule"]


class TrainingModule(SharedTrainingModule):
    """As :class:`viscy_utils.training.module.TrainingModule`; other weights are told by backbones and settings."""

    def misfits(self, found: Mapping[str, Tensor]) -> list[str]:
        """Say in which settings weights differ."""
        return mismatches(self.state_dict(), found)
