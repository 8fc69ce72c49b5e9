"""How a module embeds cells: by statistics of the experiment of each, and as the mean over turns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn

from dynaclr.adaptation import STATISTICS, BatchStatistics, Embed, InputOf, Stage, Statistics, embed_by_experiment
from dynaclr.turns import mean_over_turns

if TYPE_CHECKING:
    from dynaclr.datamodule import MultiExperimentDataModule

__all__ = ["Embedding"]


class Embedding:
    """Embed cells as a prediction or a validation is to, once :meth:`prepare` has been called for it.

    Parameters
    ----------
    batch_statistics : BatchStatistics, optional
        Embed each cell by statistics of its experiment.
    turned : bool
        Whether a prediction is the mean over turns; a validation is not.
    """

    def __init__(self, batch_statistics: BatchStatistics | None, turned: bool) -> None:
        self.batch_statistics, self.turned = batch_statistics, turned
        self._known: dict[Stage, Statistics] = {}

    def prepare(self, stage: Stage, network: nn.Module, data: MultiExperimentDataModule, input_of: InputOf) -> None:
        """Estimate the statistics of each experiment, where they are asked for and not known yet.

        Parameters
        ----------
        stage : {"predict", "val"}
        network : nn.Module
            What will be called, without compilation.
        data : MultiExperimentDataModule
            Set up for the stage.
        input_of : callable
            From a batch to what the network takes.
        """
        if self.batch_statistics is not None and stage not in self._known:
            turned = self.turned and stage == "predict"
            self._known[stage] = self.batch_statistics.of(network, data, stage, turned, input_of)

    def forget(self, stage: Stage) -> None:
        """Forget statistics: the weights may be others now."""
        self._known.pop(stage, None)

    def predict(
        self, embed: Embed, network: nn.Module, images: Tensor, index: Sequence[dict[str, Any]] | None
    ) -> tuple[Tensor, ...]:
        """Embed a batch of a prediction; one without an index neither by statistics of its experiments nor turned.

        Parameters
        ----------
        embed : callable
            Embeds without statistics, perhaps compiled.
        network : nn.Module
            The same without compilation.
        images : Tensor, shape (B, C, Z, Y, X)
        index : sequence of dict, optional
            With the ``experiment`` of each cell.
        """
        if index is None:
            return embed(images)
        if self.batch_statistics is not None:
            experiments = np.array([str(row["experiment"]) for row in index])
            embed = partial(embed_by_experiment, network, experiments=experiments, statistics=self._known["predict"])
        return mean_over_turns(embed, images) if self.turned else embed(images)

    def validated(self) -> Statistics | None:
        """Return the statistics of a validation in progress; None where there are none."""
        return self._known.get("val")

    def record(self) -> dict[str, Any]:
        """Say in plain values what decides a prediction beside weights and data."""
        record = {} if self.batch_statistics is None else {STATISTICS: self.batch_statistics.record()}
        return record | ({"predict_turned": True} if self.turned else {})

    def as_uns(self) -> dict[str, Any]:
        """Return what is stored with the embeddings of a prediction."""
        if self.batch_statistics is None:
            return {}
        return {STATISTICS: self.batch_statistics.as_uns(self._known["predict"])}
