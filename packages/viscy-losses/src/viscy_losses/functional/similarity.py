"""How alike two embeddings are, always in float32 or better: mixed precision ends here."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_finite", "cosine_similarity", "normalize"]


def normalize(embeddings: Tensor) -> Tensor:
    """Scale every row to length one.

    Parameters
    ----------
    embeddings : Tensor, shape (N, D), floating point

    Returns
    -------
    Tensor, shape (N, D), float32 (float64 when that came in)
        A row of zeros stays zero.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        return torch.nn.functional.normalize(_widen(embeddings), dim=-1)


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
    with torch.autocast(query.device.type, enabled=False):
        unit = normalize(query)
        return unit @ (unit if reference is query else normalize(reference)).T


def check_finite(embeddings: Tensor, name: str = "embeddings") -> None:
    """Refuse rows with NaN or infinite values.

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


def _widen(embeddings: Tensor) -> Tensor:
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()
