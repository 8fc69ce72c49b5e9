"""The projection head that a contrastive loss is computed on."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["projection_mlp", "require_batch"]


def projection_mlp(in_dims: int, hidden_dims: int, out_dims: int, norm: bool = True) -> nn.Module:
    """Make the two-layer projection head: linear, batch norm, ReLU, linear, batch norm.

    Parameters
    ----------
    in_dims, hidden_dims, out_dims : int
        Width of the features, between the layers, and of the projection.
    norm : bool, default True
        Whether there is batch normalisation.

    Returns
    -------
    torch.nn.Sequential
        Maps (B, in_dims) to (B, out_dims); parameters sit at the indices 0, 1, 3 and 4, without ``norm`` at 0 and 3.

    Raises
    ------
    ValueError
        If a width is not positive.
    """
    for name, width in (("in_dims", in_dims), ("hidden_dims", hidden_dims), ("out_dims", out_dims)):
        if width < 1:
            raise ValueError(f"{name} of the projection is {width}, expected at least 1")
    return nn.Sequential(
        nn.Linear(in_dims, hidden_dims),
        nn.BatchNorm1d(hidden_dims) if norm else nn.Identity(),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dims, out_dims),
        nn.BatchNorm1d(out_dims) if norm else nn.Identity(),
    )


def require_batch(projection: nn.Module, x: Tensor) -> None:
    """Refuse what batch normalisation cannot do, before it says so in words of its own.

    Parameters
    ----------
    projection : torch.nn.Module
        From :func:`projection_mlp`.
    x : Tensor, shape (B, ...)
        The input of the encoder.

    Raises
    ------
    ValueError
        For a batch of one in training mode, which has no batch statistics.
    """
    normalised = any(isinstance(layer, nn.BatchNorm1d) for layer in projection.modules())
    if normalised and projection.training and x.shape[0] < 2:
        raise ValueError(
            f"found a training batch of {x.shape[0]}, but the batch normalisation of the projection needs at least 2 "
            "samples: raise batch_size, drop the last incomplete batch, or call model.eval()"
        )
