"""Which classes a model predicts, counted over an epoch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["ClassFigures", "ClassMetrics", "ClassTally"]


class ClassTally(Metric):
    """Count predictions by true and predicted class, over batches and processes.

    Parameters
    ----------
    num_classes : int
        K.
    """

    full_state_update = False
    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch.

        Parameters
        ----------
        logits : Tensor, shape (N, K, ...)
            The class of the largest one is predicted.
        target : Tensor, shape (N, ...), integer
        """
        predicted = logits.detach().argmax(dim=1)
        cells = (target.long() * self.num_classes + predicted).reshape(-1)
        found = torch.bincount(cells, minlength=self.num_classes**2)
        self.confusion += found.reshape(self.num_classes, self.num_classes)

    def compute(self) -> Tensor:
        """Return the counts, shape (K, K), int64: rows are true classes, columns predicted ones."""
        return self.confusion

    def take(self) -> ClassMetrics:
        """Return the metrics of what was counted, over all processes, and begin anew."""
        metrics = ClassMetrics(self.compute())
        self.reset()
        return metrics


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of a table of true and predicted classes.

    Parameters
    ----------
    confusion : Tensor, shape (K, K)
        Counts: rows are true classes, columns predicted ones.
    """

    confusion: Tensor

    @property
    def _counts(self) -> Tensor:
        return self.confusion.cpu().double()

    @property
    def accuracy(self) -> float:
        """Share of samples (or pixels) whose class is predicted rightly; NaN when there are none."""
        return float(self._counts.trace() / self._counts.sum())

    @property
    def class_accuracies(self) -> list[float]:
        """Share of each true class that is predicted rightly; NaN for a class that does not occur."""
        return (self._counts.diag() / self._counts.sum(dim=1)).tolist()

    @property
    def balanced_accuracy(self) -> float:
        """Mean of `class_accuracies` over the classes that occur: 1/K for a model that predicts one class."""
        return float(torch.tensor(self.class_accuracies, dtype=torch.float64).nanmean())

    @property
    def f1_scores(self) -> list[float]:
        """F1 score of each class; 0 for a class that neither occurs nor is predicted."""
        counts = self._counts
        total = counts.sum(dim=0) + counts.sum(dim=1)
        return (2 * counts.diag() / total.clamp(min=1)).tolist()

    @property
    def f1_score(self) -> float:
        """F1 score of class 1 when there are two classes, and otherwise the mean over the classes."""
        scores = self.f1_scores
        return scores[1] if len(scores) == 2 else sum(scores) / len(scores)

    @property
    def predicted_shares(self) -> list[float]:
        """Share of the predictions that each class gets."""
        return (self._counts.sum(dim=0) / self._counts.sum()).tolist()

    @property
    def true_shares(self) -> list[float]:
        """Share of the samples that are of each class."""
        return (self._counts.sum(dim=1) / self._counts.sum()).tolist()

    @property
    def worst_class_accuracy(self) -> float:
        """Smallest of `class_accuracies`; NaN when there are no samples."""
        return min((value for value in self.class_accuracies if value == value), default=float("nan"))

    @property
    def majority_share(self) -> float:
        """Largest of `predicted_shares`: 1 for a model that predicts one class."""
        return max(self.predicted_shares)

    def scalars(self) -> dict[str, float]:
        """Return the metrics to log by name; classes that do not occur are left out."""
        if not self._counts.sum():
            return {}
        named = {f"accuracy_class_{k}": value for k, value in enumerate(self.class_accuracies) if value == value}
        overall = {"accuracy": self.accuracy, "f1_score": self.f1_score, "majority_share": self.majority_share}
        return overall | {"balanced_accuracy": self.balanced_accuracy} | named


ClassFigures = ClassMetrics
"""Old name."""
