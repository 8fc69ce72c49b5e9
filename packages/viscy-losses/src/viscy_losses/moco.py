"""MoCo: contrast with a queue of keys of earlier batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from viscy_losses import functional as F
from viscy_losses.contrastive import ContrastiveLoss
from viscy_losses.registry import LossRegistry

__all__ = ["MoCoLoss"]

_UNLABELLED = torch.iinfo(torch.int64).min


@LossRegistry.register("moco")
class MoCoLoss(ContrastiveLoss):
    r"""Tell the key of a cell from the keys of earlier batches: many negatives at any batch size [1]_.

    :math:`\frac1B\sum_i -\log\frac{e^{s(q_i, k_i)/T}}{e^{s(q_i, k_i)/T} + \sum_n e^{s(q_i, u_n)/T}}` for queries q
    (anchors), keys k (positives), and the Q keys u of a queue. Embeddings are (B, D) each. Keys get no gradient: they
    are meant to come from a slowly moving copy of the encoder; of the encoder itself, the queue is a memory bank.

    The queue begins with random directions, the same in every process, and takes up the keys of all processes in
    order of rank, in training mode only. It is part of checkpoints.

    Parameters
    ----------
    temperature : float, default 0.07
        T, larger than 0.
    queue_size : int, default 4096
        Q, at least 1; the keys of several batches.
    dim : int, optional
        D, by default that of the first batch or checkpoint.
    normalize, chunk_size
        As in `ContrastiveLoss`.

    References
    ----------
    .. [1] He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020, arXiv:1911.05722.
    """

    queue: Tensor
    queue_labels: Tensor
    position: Tensor

    def __init__(
        self,
        temperature: float = 0.07,
        queue_size: int = 4096,
        dim: int | None = None,
        *,
        normalize: bool = True,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__(temperature, normalize=normalize, chunk_size=chunk_size, gather_distributed=True)
        if queue_size < 1 or (dim is not None and dim < 1):
            raise ValueError(f"queue_size and dim: found {queue_size} and {dim}, expected at least 1")
        self.register_buffer("queue", torch.empty(queue_size, 0))
        self.register_buffer("queue_labels", torch.full((queue_size,), _UNLABELLED))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))
        if dim is not None:
            self._fill(dim)

    def forward(self, anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Compute the mean loss over the queries; in training mode, take up the keys.

        Parameters
        ----------
        anchor, positive : Tensor, shape (B, D), floating point
            Queries and keys; row i of both is the same cell.
        labels : Tensor, shape (B,), int64, optional
            Keys of equal label in the queue are no negatives.

        Returns
        -------
        dict
            ``"loss"``, shape ().
        """
        F.check_views(anchor, positive, labels)
        if not self.queue.shape[1]:
            self._fill(anchor.shape[1])
        width = self.queue.shape[1]
        if width != anchor.shape[1]:
            raise ValueError(f"embeddings: found {anchor.shape[1]} features, expected {width}, those of the queue")
        if labels is None:
            labels = torch.full((len(anchor),), _UNLABELLED, device=anchor.device)
        labels = labels.to(self.queue_labels)
        key = positive.detach()
        losses = self.contrast(anchor, torch.cat([F.widen(key), F.widen(self.queue)]), self._relation(labels))
        keys, _ = F.gather_rows(key)
        if self.training:
            self._take_up(keys, F.gather_rows(labels)[0])
        return {"loss": self.batch_mean(losses, len(keys))}

    def _relation(self, labels: Tensor) -> F.Relation:
        queued = self.queue_labels.clone()  # the queue moves on before the backward pass

        def relate(rows: slice) -> F.Relations:
            own = torch.arange(len(labels), device=labels.device)[rows]
            others = (labels[own, None] != queued) | (labels[own, None] == _UNLABELLED)
            keys = others.new_zeros(len(own), len(labels))
            return F.Relations(torch.arange(len(own), device=own.device), own, torch.cat([keys, others], dim=1))

        return relate

    @torch.no_grad()
    def _take_up(self, keys: Tensor, labels: Tensor) -> None:
        size = len(self.queue)
        slots = (self.position + torch.arange(len(keys), device=self.queue.device)) % size
        newest = slice(max(len(keys) - size, 0), None)
        self.queue[slots[newest]] = (F.normalize(keys) if self.normalize else keys)[newest].to(self.queue)
        self.queue_labels[slots[newest]] = labels[newest]
        self.position.add_(len(keys)).remainder_(size)

    @torch.no_grad()
    def _fill(self, dim: int) -> None:
        """Give the queue its width, in place: others, such as DistributedDataParallel, hold on to the buffer."""
        random = torch.randn(len(self.queue), dim, generator=torch.Generator().manual_seed(0))
        self.queue.resize_(random.shape).copy_(F.normalize(random))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}queue")
        if saved is not None and not self.queue.shape[1] and saved.ndim == 2 and saved.shape[1]:
            self._fill(saved.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)
