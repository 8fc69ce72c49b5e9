"""`dynaclr cache-patches`: copy the patches of all cells of a config once, for training to read."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from dynaclr.commands.fit_configs import config_arguments, configs_option, load_data, refuse_missing_configs
from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.errors import report_errors
from viscy_utils.cli.work_options import work_options

__all__ = ["cache_patches"]


@click.command(
    "cache-patches",
    context_settings=CONTEXT_SETTINGS,
    epilog="\b\nExample:\n  dynaclr cache-patches -c fit.yml -o patches.zarr",
)
@configs_option
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Store to write.")
@work_options
def cache_patches(configs: tuple[Path, ...], output: Path, workers: int | None, dask: str | None) -> None:
    """Copy the patches of all cells, with the margin that augmentation needs, into a store that is read faster.

    For images in large chunks, such as whole planes, of which a batch needs little. Batches of `fit`, `validate` and
    `predict` stay the same bit for bit. A copy that was stopped goes on when the command is given again. Each worker
    holds some 200 MB.
    """
    with report_errors("dynaclr"):
        refuse_missing_configs(configs, unread=["patch_store"])
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        from viscy_data.batches import BatchDataModule
        from viscy_data.cache import readable_size
        from viscy_data.files import refuse_existing
        from viscy_data.patch_store import PatchStorePlan, write_patch_store
        from viscy_utils.cli.places import noting_places

        refuse_existing(output)
        expected = "a data module of cells, such as dynaclr.datamodule.MultiExperimentDataModule"
        data = load_data(configs, BatchDataModule, expected)
        with noting_places(configs):
            plan = PatchStorePlan.of(output, data.cell_boxes())
        record, to_write = plan.record, plan.bytes_to_write
        size = " x ".join(map(str, record.size))
        click.echo(f"{record.n_cells} cells of {size} {record.dtype}: {readable_size(record.n_bytes)}")
        missing = sum(len(record.shard(number)) for number in plan.missing_shards())
        if missing < record.n_cells:
            click.echo(f"a stopped copy goes on: {readable_size(to_write)} are missing")
        with Progress("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
            task = progress.add_task("cells", total=record.n_cells, completed=record.n_cells - missing)
            advance = partial(progress.advance, task)
            write_patch_store(plan, workers=workers, dask=dask, advance=advance)
        click.echo(f"wrote {output}")
        click.echo(f"next: dynaclr fit {config_arguments(configs)} --data.init_args.patch_store {output}")
