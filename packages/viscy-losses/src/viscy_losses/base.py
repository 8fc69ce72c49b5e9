"""What all losses have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["BaseLoss"]


class BaseLoss(nn.Module, ABC):
    """A loss that returns named tensors.

    Losses of two views of B cells are called as ``loss(anchor, positive, labels=None)`` with embeddings (B, D), and
    labels (B,) of cells that are relatives: one lineage, or one class. Losses of classes are called as
    ``loss(logits, target)``.
    """

    @abstractmethod
    def forward(self, *inputs: Tensor | None) -> dict[str, Tensor]:
        """Compute the loss.

        Returns
        -------
        dict
            ``"loss"``, shape (), float32 or better; and what else there is to look at, by name.
        """

    def forward_pairs(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> Tensor:
        """Compute the loss of two views of the same cells, as a training loop wants it.

        Parameters
        ----------
        anchor, positive : Tensor, shape (B, D), floating point
            Row i of both is the same cell.
        labels : Tensor, shape (B,), integer, optional
            Cells of equal label are relatives, such as those of one lineage.

        Returns
        -------
        Tensor, shape ()
        """
        return self(anchor, positive, labels)["loss"]
