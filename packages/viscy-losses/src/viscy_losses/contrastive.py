"""What losses have in common that tell the cells of a batch from one another."""

from __future__ import annotations

from torch import Tensor

from viscy_losses import functional as F
from viscy_losses.base import BaseLoss
from viscy_losses.temperature import LearnedTemperature, check_temperature

__all__ = ["ContrastiveLoss"]


class ContrastiveLoss(BaseLoss):
    """Contrast each view of a cell with all views of all cells.

    By itself it is InfoNCE. A derived loss says with `query_losses` what else is made of the similarities of a query;
    one whose pairs are others overrides `forward`.

    Parameters
    ----------
    temperature : float or LearnedTemperature, default 0.07
        Larger than 0.
    normalize : bool, default True
        Whether embeddings are scaled to length one, so that similarities are cosines.
    chunk_size : int, optional
        Rows of the similarity matrix at a time. Same value and gradient; memory O(B x chunk_size) for some more time.
    gather_distributed : bool, default False
        Whether cells of the other processes are contrasted too. The mean of the losses over the processes, and the
        gradients once these are averaged, are those of one process with the whole batch.

    Raises
    ------
    ValueError
        For parameters out of range; when called, for views that do not match and for NaN, naming the rows.
    """

    def __init__(
        self,
        temperature: float | LearnedTemperature = 0.07,
        *,
        normalize: bool = True,
        chunk_size: int | None = None,
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"chunk_size: found {chunk_size}, expected None or at least 1")
        learned = isinstance(temperature, LearnedTemperature)
        self._temperature = temperature if learned else check_temperature(temperature)
        self.normalize = normalize
        self.chunk_size = chunk_size
        self.gather_distributed = gather_distributed

    @property
    def temperature(self) -> float | Tensor:
        """The temperature; a tensor with gradient where it is learned."""
        return self._temperature() if isinstance(self._temperature, LearnedTemperature) else self._temperature

    def compute_similarity(self, query: Tensor, reference: Tensor) -> Tensor:
        """Compute logits: similarities divided by the temperature.

        Parameters
        ----------
        query : Tensor, shape (N, D), floating point
        reference : Tensor, shape (M, D), floating point

        Returns
        -------
        Tensor, shape (N, M), float32 (float64 when that came in)
        """
        return F.scaled_similarity(query, reference, self.temperature, cosine=self.normalize)

    def query_losses(self, logits: Tensor, relations: F.Relations) -> Tensor:
        """Compute the loss of each of R queries; by default -log softmax of the positive.

        Parameters
        ----------
        logits : Tensor, shape (R, M)
            From `compute_similarity`.
        relations : Relations
            Positive pairs and negatives of these queries.

        Returns
        -------
        Tensor, shape (R,)
        """
        return F.info_nce(logits, relations, 1.0)

    def forward(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the mean loss over the 2B views.

        Parameters
        ----------
        anchor, positive : Tensor, shape (B, D), floating point
            Row i of both is the same cell.
        labels : Tensor, shape (B,), integer, optional
            Cells of equal label are no negatives of one another.

        Returns
        -------
        dict
            ``"loss"``, shape ().
        """
        stacked = self.stack_views(anchor, positive, labels)
        losses = self.contrast(stacked.queries, stacked.views, F.view_relations(stacked))
        return {"loss": self.batch_mean(losses, len(stacked.views))}

    def stack_views(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> F.StackedViews:
        """Check two views of B cells and stack them: those of this process, or of all."""
        F.check_views(anchor, positive, labels)
        return (F.gather_views if self.gather_distributed else F.stack_views)(anchor, positive, labels)

    def contrast(self, query: Tensor, reference: Tensor, relation: F.Relation) -> Tensor:
        """Compute the loss of each of N queries, whole or in blocks."""

        def block(rows: slice, part: Tensor, reference: Tensor) -> tuple[Tensor]:
            return (self.query_losses(self.compute_similarity(part, reference), relation(rows)),)

        return F.in_blocks(block, query, reference, self.chunk_size)[0]

    def pair_losses(self, query: Tensor, reference: Tensor, relation: F.Relation) -> F.PairLosses:
        """Compute the loss of each positive pair of N queries, for losses that have one term per pair."""

        def block(rows: slice, part: Tensor, reference: Tensor) -> F.PairLosses:
            relations = relation(rows)
            losses = self.query_losses(self.compute_similarity(part, reference), relations)
            return F.PairLosses(losses, relations.query + rows.start, relations.positive)

        return F.PairLosses(*F.in_blocks(block, query, reference, self.chunk_size))

    def batch_mean(self, losses: Tensor, n_total: int) -> Tensor:
        """Average over the whole batch, of which this process may hold an unequal share of the losses."""
        return losses.sum() * ((F.world_size() if self.gather_distributed else 1) / n_total)
