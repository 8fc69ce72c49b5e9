"""`dynaclr build-index`: read the tracking tables of all experiments once and keep the result."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from dynaclr.early_checks import refuse_missing_experiments
from dynaclr.positives import PositiveScope
from viscy_data.errors import InputError
from viscy_data.stores import BadFovs, StoragePolicy, left_out_text
from viscy_utils.cli.errors import report_errors
from viscy_utils.cli.work_options import work_options

__all__ = ["build_index"]


@click.command(
    "build-index",
    epilog="\b\nExample:\n  dynaclr build-index experiments.yml index.parquet",
)
@click.argument("experiments", type=click.Path(path_type=Path))
@click.argument("index", type=click.Path(path_type=Path))
@click.option(
    "--tau-range",
    type=(float, float),
    default=(0.5, 2.0),
    show_default=True,
    metavar="FIRST LAST",
    help="Hours between anchor and positive.",
)
@click.option(
    "--patch-size",
    type=(int, int),
    default=(1, 1),
    metavar="Y X",
    help="Pixels that the model sees (final_yx_patch_size): with them an .arrow file holds all that training needs.",
)
@click.option(
    "--positive-scope",
    type=click.Choice(get_args(PositiveScope)),
    default="descendants",
    show_default=True,
    help="Whose observations are positives.",
)
@click.option("--include-wells", multiple=True, metavar="WELL", help="Take only this well (may be repeated).")
@click.option("--exclude-fovs", multiple=True, metavar="FOV", help="Leave out this FOV (may be repeated).")
@click.option(
    "--bad-fovs",
    type=click.Choice(get_args(BadFovs)),
    default="stop",
    show_default=True,
    help="Stop at FOVs that cannot be read, or leave them out, counted and named.",
)
@work_options
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def build_index(
    experiments: Path,
    index: Path,
    tau_range: tuple[float, float],
    patch_size: tuple[int, int],
    positive_scope: PositiveScope,
    include_wells: tuple[str, ...],
    exclude_fovs: tuple[str, ...],
    bad_fovs: BadFovs,
    workers: int | None,
    dask: str | None,
    overwrite: bool,
) -> None:
    """Save the table of cells of EXPERIMENTS (a YAML file) as INDEX.

    INDEX.parquet is small; INDEX.arrow is mapped into memory by all processes that use it, and costs none a copy.
    Give INDEX to the data module as `index_path`, with the same wells, FOVs and `storage.bad_fovs`. Patch size, z
    range, conditions and channels are taken from the configs when it is loaded; it has to be built again when tracks
    or stores change.
    """
    with report_errors("dynaclr"):
        if index.exists() and not overwrite:
            raise InputError(str(index), found="a file", expected="nothing", fix="add --overwrite to replace it")
        refuse_missing_experiments({"experiments_yaml": str(experiments)})
        from dynaclr.experiment import ExperimentRegistry
        from dynaclr.index import MultiExperimentIndex

        # A table of tracks holds neither channels nor patches: choices that no experiment can fail.
        storage = StoragePolicy(bad_fovs)
        registry = ExperimentRegistry.from_yaml(experiments, training_channels="all", storage=storage)
        built = MultiExperimentIndex(
            registry,
            slice(0, 1),
            patch_size,
            tau_range,
            include_wells=include_wells or None,
            exclude_fovs=exclude_fovs or None,
            positive_scope=positive_scope,
            dask_address=dask,
            workers=workers,
        )
        built.save(index, overwrite=overwrite)
        click.echo(built.summary())
        if registry.left_out:
            click.echo(left_out_text(registry.left_out))
        click.echo(f"wrote {index} ({index.stat().st_size / 1e6:.1f} MB)")
        options = f" --data.init_args.storage.bad_fovs {bad_fovs}" if registry.left_out else ""
        click.echo(f"next: dynaclr fit --config fit.yml --data.init_args.index_path {index}{options}")
