"""Reductions of stored embeddings, of one store or of several together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.progress import Progress

from dynaclr.evaluation.store_configs import ReduceDimensionalityConfig
from dynaclr.evaluation.stores import refuse_replacing, say, write_store
from viscy_data.errors import InputError, reading_input
from viscy_utils.cli.yaml_models import read_yaml_model
from viscy_utils.embeddings.reading import read_embeddings
from viscy_utils.embeddings.reductions import reduce_features, require_reductions

__all__ = ["reduce_dimensionality"]


def reduce_dimensionality(path: Path) -> None:
    """Add reductions to stores as a YAML file says; those of several stores are fitted on all cells together.

    Raises
    ------
    InputError
        If features are not finite or stores have different numbers of them, or there are reductions of before.
    """
    config = read_yaml_model(path, ReduceDimensionalityConfig)
    requested = config.requested()
    paths = config.input_paths or [str(config.input_path)]
    end = "" if config.input_paths is None else "_combined"
    keys = {method: f"X_{method}{end}" for method in requested}
    stores = [read_embeddings(each) for each in paths]
    for each, adata in zip(paths, stores, strict=True):
        if not config.overwrite_keys:
            refuse_replacing(adata, each, config.output_path, obsm=keys.values())
    with reading_input("looking for the reductions"):
        require_reductions(requested)
    features, usable = _features(paths, [np.asarray(adata.X) for adata in stores])
    ends = np.cumsum([adata.n_obs for adata in stores])[:-1]
    with Progress(transient=True) as progress:
        for method, options in progress.track(requested.items(), description="Reducing"):
            with reading_input(f"computing {method}"):
                values = reduce_features(method, features[usable], options)
            padded = np.full((len(features), values.shape[1]), np.nan, dtype=np.float32)
            padded[usable] = values
            for adata, part in zip(stores, np.split(padded, ends), strict=True):
                adata.obsm[keys[method]] = part
    places = [
        write_store(adata, each, config.output_path, config.overwrite_keys)
        for each, adata in zip(paths, stores, strict=True)
    ]
    if not usable.all():
        say(f"{(~usable).sum()} cells have features that are not finite, and no reduced ones.")
    say(f"wrote obsm {', '.join(keys.values())} to {', '.join(map(str, places))}.")
    say(f"next: dynaclr plot-embeddings, with embedding_keys: [{', '.join(keys.values())}]")


def _features(paths: list[str], parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        found = ", ".join(f"{part.shape[1]} in {path}" for path, part in zip(paths, parts, strict=True))
        raise InputError("input_paths", found=f"features: {found}", expected="embeddings of one encoder")
    features = np.concatenate(parts)
    return features, np.isfinite(features).all(axis=1)
