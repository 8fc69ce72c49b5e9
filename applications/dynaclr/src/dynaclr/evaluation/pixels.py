"""The plainest embedding there is: principal components of the pixels of each cell."""

from __future__ import annotations

import numpy as np
import pandas as pd
from rich.progress import track
from sklearn.decomposition import PCA

from dynaclr.datamodule import MultiExperimentDataModule
from viscy_data.channels import center_crop
from viscy_utils.evaluation.draws import draw_rows
from viscy_utils.evaluation.embedded import Embedded

__all__ = ["pixel_pca"]


def pixel_pca(
    data: MultiExperimentDataModule,
    n_components: int = 64,
    *,
    max_fit: int = 4096,
    seed: int = 0,
    raw: bool = False,
) -> Embedded:
    """Embed every cell of the prediction by PCA of its cropped patch.

    Parameters
    ----------
    data : MultiExperimentDataModule
        Its prediction stage gives the cells.
    n_components : int, default 64
        Fewer when there are fewer cells or pixels.
    max_fit : int, default 4096
        The components are fitted on at most so many cells, drawn at random: their patches are held in memory.
    seed : int, default 0
        Of the draw.
    raw : bool, default False
        Take the counts of the store instead of what the normalisations of the config make of them.
    """
    data.setup("predict")
    cells = data.predict_dataset
    chosen = draw_rows(len(cells), max_fit, seed)
    chunks = np.array_split(chosen, -(-len(chosen) // data.batch_size))
    sample = np.concatenate([_pixels(data, cells[rows.tolist()], raw) for rows in track(chunks, "Pixels for PCA")])
    pca = PCA(min(n_components, *sample.shape), random_state=seed).fit(sample)

    features, index = [], []
    for batch in track(data.predict_dataloader(), "Pixel PCA"):
        features.append(pca.transform(_pixels(data, batch, raw)).astype(np.float32))
        index += batch["index"]
    name = "PCA of raw pixels" if raw else "PCA of normalised pixels"
    return Embedded(name, np.concatenate(features), pd.DataFrame(index))


def _pixels(data: MultiExperimentDataModule, batch: dict, raw: bool) -> np.ndarray:
    """Crop, and normalise unless ``raw``, as for the encoder; returns flattened patches (B, C*Z*Y*X)."""
    if raw:
        patches = center_crop(batch["anchor"], data.pipeline.final_size)
    else:
        patches = data.on_after_batch_transfer(data.on_before_batch_transfer(batch, 0), 0)["anchor"]
    return patches.flatten(1).numpy()
