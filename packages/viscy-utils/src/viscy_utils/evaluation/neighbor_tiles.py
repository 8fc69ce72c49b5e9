"""Cells beside their positives and their nearest neighbours in the embedding."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from viscy_utils.evaluation.image_tiles import Block, Tile, contrast_limits
from viscy_utils.evaluation.model_outputs import ModelOutputs
from viscy_utils.evaluation.reconstruction_tiles import sharpest_slice

__all__ = ["neighbor_blocks"]

_OWN = "tab:green"


def neighbor_blocks(outputs: ModelOutputs, n_neighbors: int = 3) -> tuple[list[Block], str]:
    """Lay out anchors, positives, and the nearest of all other cells of the batch, by cosine similarity.

    An anchor's own positive, and cells of its lineage where lineages are known, are framed when they are neighbours.

    Parameters
    ----------
    outputs : ModelOutputs
        With embeddings, and positives if there are any. Images are (N, C, Z, Y, X).
    n_neighbors : int, default 3
        At most.

    Returns
    -------
    blocks : list of Block
        One per anchor.
    headline : str
        For how many anchors the own positive is the nearest.
    """
    n = len(outputs.inputs)
    images, names = outputs.inputs, [f"anchor {i + 1}" for i in range(n)]
    embeddings, owner = outputs.embeddings, torch.arange(n)
    if outputs.positives is not None:
        images, names = torch.cat([images, outputs.positives]), [*names, *(f"positive {i + 1}" for i in range(n))]
        embeddings, owner = torch.cat([embeddings, outputs.positive_embeddings]), owner.repeat(2)
    lineage = (owner if outputs.lineage is None else outputs.lineage[owner]).tolist()
    unit = normalize(embeddings.double(), dim=1)
    similarity = (unit[:n] @ unit.T).nan_to_num(nan=-2.0)
    candidates = similarity.clone()
    candidates[torch.arange(n), torch.arange(n)] = -torch.inf  # a cell is not its own neighbour
    nearest = candidates.argsort(dim=1, descending=True, stable=True)[:, : min(n_neighbors, len(images) - 1)]
    blocks = []
    for i in range(n):
        shown = [(i, f"anchor {i + 1}", None)]
        if outputs.positives is not None:
            shown.append((n + i, f"positive\ncos {similarity[i, n + i]:.2f}", None))
        for place, j in enumerate(nearest[i].tolist(), start=1):
            name = "own positive" if j == n + i else names[j]
            frame = _OWN if lineage[j] == lineage[i] else None
            shown.append((j, f"{place}. {name}\ncos {similarity[i, j]:.2f}", frame))
        blocks.append(_block(images, shown, n))
    return blocks, _headline(nearest, n, outputs.positives is not None)


def _headline(nearest: Tensor, n: int, has_positives: bool) -> str:
    if not has_positives or not nearest.numel():
        return "nearest neighbours"
    hits = int((nearest[:, 0] == torch.arange(n) + n).sum())
    return f"nearest neighbours: the own positive is the first for {hits} of {n} cells"


def _block(images: Tensor, shown: list[tuple[int, str, str | None]], n: int) -> Block:
    volumes = [images[number].float().numpy() for number, _, _ in shown]
    anchors = [images[number % n].float().numpy() for number, _, _ in shown]
    slices, reference = [sharpest_slice(volume) for volume in volumes], [sharpest_slice(volume) for volume in anchors]
    rows = []
    for channel in range(images.shape[1]):
        # A pair has the gray scale of its anchor. Cells of other experiments may be brighter: they have their own.
        limits = [contrast_limits(volume[channel, z]) for volume, z in zip(anchors, reference, strict=True)]
        tiles = zip(volumes, slices, shown, limits, strict=True)
        rows.append(
            [
                Tile(volume[channel, z], title if channel == 0 else "", "gray", limit, frame)
                for volume, z, (_, title, frame), limit in tiles
            ]
        )
    return Block(rows, [f"channel {c}" if len(rows) > 1 else "" for c in range(len(rows))])
