"""How alike two embeddings are, always in float32 or better: mixed precision ends here."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = [
    "check_finite",
    "check_views",
    "cosine_similarity",
    "full_precision",
    "normalize",
    "scaled_similarity",
    "widen",
]


def widen(embeddings: Tensor) -> Tensor:
    """Convert to float32; float64 stays what it is."""
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def full_precision(embeddings: Tensor) -> AbstractContextManager:
    """Make a context in which autocast leaves operations on the device of a tensor alone."""
    device = embeddings.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def normalize(embeddings: Tensor) -> Tensor:
    """Scale every row to length one.

    Parameters
    ----------
    embeddings : Tensor, shape (N, D), floating point

    Returns
    -------
    Tensor, shape (N, D), float32 (float64 when that came in)
        A row of zeros stays zero and has no gradient: it has no direction that could change.
    """
    with full_precision(embeddings):
        rows = widen(embeddings)
        return torch.nn.functional.normalize(rows, dim=-1).masked_fill((rows == 0).all(dim=-1, keepdim=True), 0)


def cosine_similarity(query: Tensor, reference: Tensor) -> Tensor:
    """Cosine of the angle between every row of one tensor and every row of another.

    Parameters
    ----------
    query : Tensor, shape (N, D), floating point
    reference : Tensor, shape (M, D), floating point

    Returns
    -------
    Tensor, shape (N, M), float32 (float64 when that came in)
        Computed in that precision under autocast too: divided by a temperature of 0.07, the rounding of a 16-bit cosine
        moves the loss by several percent.
    """
    with full_precision(query):
        unit = normalize(query)
        return unit @ (unit if reference is query else normalize(reference)).T


def scaled_similarity(
    query: Tensor, reference: Tensor, temperature: float | Tensor = 1.0, *, cosine: bool = True
) -> Tensor:
    """Divide the similarity of every row of one tensor with every row of another by a temperature.

    Parameters
    ----------
    query : Tensor, shape (N, D), floating point
    reference : Tensor, shape (M, D), floating point
    temperature : float or Tensor of shape (), default 1.0
        Larger than 0; it may have a gradient.
    cosine : bool, default True
        Whether rows are scaled to length one first; otherwise plain inner products.

    Returns
    -------
    Tensor, shape (N, M), float32 (float64 when that came in)
    """
    with full_precision(query):
        if cosine:
            return cosine_similarity(query, reference) / temperature
        return widen(query) @ widen(reference).T / temperature


def check_views(anchor: Tensor, positive: Tensor, labels: Tensor | None = None) -> None:
    """Refuse views that are not two of the same cells, and labels that are not theirs.

    Parameters
    ----------
    anchor, positive : Tensor, shape (B, D), floating point
        At least one cell; row i of both is the same one.
    labels : Tensor, shape (B,), optional

    Raises
    ------
    ValueError
        For other shapes; on the CPU also for NaN or infinite values, naming the rows. Elsewhere they would be an answer
        to wait for, at every step: there they reach the loss, and the training loop looks for them now and then.
    """
    if anchor.ndim != 2 or anchor.shape != positive.shape or not len(anchor):
        found = f"{tuple(anchor.shape)} and {tuple(positive.shape)}"
        raise ValueError(f"anchor and positive: found shapes {found}, expected (batch, features) twice")
    if labels is not None and labels.shape != anchor.shape[:1]:
        raise ValueError(f"labels: found shape {tuple(labels.shape)}, expected ({len(anchor)},), one of each cell")
    if anchor.device.type == "cpu":
        check_finite(anchor, "anchor embeddings")
        check_finite(positive, "positive embeddings")


def check_finite(embeddings: Tensor, name: str = "embeddings") -> None:
    """Refuse rows with NaN or infinite values; the program waits for the device of the embeddings.

    Parameters
    ----------
    embeddings : Tensor, shape (N, D)
    name : str, default "embeddings"
        What the message calls them.

    Raises
    ------
    ValueError
        Naming the first such rows.
    """
    finite = torch.isfinite(embeddings).all(dim=1)
    if finite.all():
        return
    rows = torch.nonzero(~finite).flatten().tolist()
    shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
    raise ValueError(
        f"{name}: {len(rows)} of {len(embeddings)} rows hold NaN or infinite values (row {shown}); "
        "look for such pixels in these samples, or for weights that have diverged"
    )
