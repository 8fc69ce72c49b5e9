"""Pictures of stored reductions, coloured by columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dynaclr.evaluation.store_configs import PlotEmbeddingsConfig
from dynaclr.evaluation.stores import say
from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_data.files import refuse_existing, replacing
from viscy_utils.cli.yaml_models import read_yaml_model
from viscy_utils.embeddings.reading import read_embeddings
from viscy_utils.evaluation.labels import MAX_CLASSES
from viscy_utils.reports.panels import draw_classes, draw_numbers

__all__ = ["plot_embeddings"]

_PANEL = 4.6  # inches


def plot_embeddings(path: Path) -> list[Path]:
    """Draw reductions of stores as a YAML file says: a picture per reduction, a panel per column.

    Returns
    -------
    list of Path
        The pictures.

    Raises
    ------
    InputError
        If a store has no such reduction, or none of the columns.
    FileExistsError
        If a picture exists and ``overwrite`` is not set.
    """
    config = read_yaml_model(path, PlotEmbeddingsConfig)
    folder, paths = Path(config.output_dir), config.input_paths or [str(config.input_path)]
    targets = {key: folder / f"{key.removeprefix('X_')}.{config.format}" for key in config.embedding_keys}
    for target in targets.values():
        refuse_existing(target, config.overwrite, remedy="choose another output_dir, or set overwrite: true")
    stores = [read_embeddings(each) for each in paths]
    obs = pd.concat([adata.obs for adata in stores], ignore_index=True)
    columns = [name for name in config.color_by if name in obs]
    if not columns:
        asked = ", ".join(config.color_by)
        raise InputError(str(path), field="color_by", found=asked, expected=near_matches(asked, map(str, obs.columns)))
    for name in config.color_by:
        if name not in columns:
            say(f"{name}: no such column, left out")
    points = {key: np.concatenate(list(_points(paths, stores, key))) for key in config.embedding_keys}
    folder.mkdir(parents=True, exist_ok=True)
    for key, target in targets.items():
        figure = _figure(points[key], obs, columns, key, config)
        with replacing(target, overwrite=True) as temporary:
            figure.savefig(temporary, dpi=150, format=config.format)
    say(f"wrote {', '.join(target.name for target in targets.values())} to {folder}")
    say(f"next: look at {next(iter(targets.values()))}")
    return list(targets.values())


def _points(paths: list[str], stores: list, key: str) -> Iterator[np.ndarray]:
    for path, adata in zip(paths, stores, strict=True):
        if key not in adata.obsm:
            known = near_matches(key, adata.obsm.keys(), otherwise="no reduction at all" if not adata.obsm else None)
            fix = "add it with dynaclr reduce-dimensionality"
            raise InputError(path, field="embedding_keys", found=key, expected=known, fix=fix)
        values = np.asarray(adata.obsm[key], dtype=np.float32)
        if values.shape[1] < 2:
            raise InputError(path, field=f"obsm.{key}", found="a single axis", expected="two at least")
        yield values[:, :2]


def _figure(
    points: np.ndarray, obs: pd.DataFrame, columns: list[str], key: str, config: PlotEmbeddingsConfig
) -> Figure:
    usable = np.flatnonzero(np.isfinite(points).all(axis=1))
    # In random order, so that the last group does not cover the others.
    chosen = np.random.default_rng(0).permutation(usable)[: config.max_cells]
    figure = Figure(figsize=(_PANEL * len(columns), _PANEL), layout="constrained")
    figure.suptitle(f"{key.removeprefix('X_')}, {len(chosen):,} of {len(obs):,} cells", fontsize="medium")
    for axis, name in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        values = obs[name].iloc[chosen]
        if pd.api.types.is_numeric_dtype(values) and values.nunique() > MAX_CLASSES // 5:
            draw_numbers(axis, points[chosen], values.to_numpy(dtype=float), name, size=config.point_size)
        else:
            names = values.astype(object).where(values.notna(), "none").astype(str)
            draw_classes(axis, points[chosen], names, size=config.point_size)
        axis.set(title=name, xticks=[], yticks=[])
    return figure
