"""`dynaclr export-atlas`: embeddings for explorers of embeddings, as a Parquet file."""

from __future__ import annotations

from pathlib import Path

import click

from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.errors import report_errors

__all__ = ["export_atlas"]


@click.command(
    "export-atlas",
    context_settings=CONTEXT_SETTINGS,
    epilog="\b\n"
    + """Example:
  dynaclr export-atlas embeddings.zarr -o atlas.parquet --layout umap
  uvx embedding-atlas atlas.parquet --x projection_x --y projection_y --image image""",
)
@click.argument("embeddings", type=click.Path(path_type=Path))
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Parquet file to write.")
@click.option(
    "--layout",
    help="Entry of obsm, such as X_umap; or umap, pacmap, phate, tsne, pca, computed where the store does not hold it. "
    "[default: the first of these that it holds, else pca]",
)
@click.option("--max-cells", type=click.IntRange(min=1), help="Draw so many at random. [default: all]")
@click.option(
    "--thumbnail-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Pixels of the longer side of a channel; smaller images stay as they are.",
)
@click.option("--no-thumbnails", is_flag=True, help="Coordinates and columns only.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--seed", default=0, show_default=True, help="Of every random draw.")
@report_errors("dynaclr")
def export_atlas(
    embeddings: Path,
    output: Path,
    layout: str | None,
    max_cells: int | None,
    thumbnail_size: int,
    no_thumbnails: bool,
    overwrite: bool,
    seed: int,
) -> None:
    """Write cells with coordinates, all their columns and thumbnails, for embedding-atlas and Hugging Face datasets.

    Thumbnails are the middle slice of what the encoder saw, channels beside each other, one brightness per experiment.
    """
    from viscy_utils.embeddings.kind import refuse_unfinished

    refuse_unfinished(embeddings)
    from dynaclr.evaluation.atlas_export import export_atlas as export

    size = None if no_thumbnails else thumbnail_size
    export(embeddings, output, layout=layout, max_cells=max_cells, thumbnail_size=size, overwrite=overwrite, seed=seed)
