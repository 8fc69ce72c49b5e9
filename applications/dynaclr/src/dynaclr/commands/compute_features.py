"""`dynaclr compute-features`: features of all cells that need no network, in a store like that of embeddings."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from dynaclr.commands.fit_configs import configs_option, load_data, refuse_missing_configs
from viscy_data.errors import InputError
from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.errors import report_errors
from viscy_utils.cli.work_options import work_options

__all__ = ["compute_features"]


@click.command(
    "compute-features",
    context_settings=CONTEXT_SETTINGS,
    epilog="\b\n"
    + """Example:
  dynaclr compute-features -c fit.yml -o features.zarr --masks day1=day1_segmented.zarr --masks day2=day2_segmented.zarr
  dynaclr evaluate embeddings.zarr features.zarr --label condition -o report""",
)
@configs_option
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path), help="Store to write.")
@click.option(
    "--masks",
    multiple=True,
    metavar="[EXPERIMENT=]PLACE",
    help="Label images, for features of shape: a store with FOVs of the same names, or labels/NAME, the label image "
    "NAME inside each FOV (may be repeated).",
)
@click.option("--mask-channel", metavar="NAME", help="Channel of the label images, where they have several.")
@work_options
@click.option("--overwrite", is_flag=True, help="Replace an existing store, and what a stopped run has written.")
def compute_features(
    configs: tuple[Path, ...],
    output: Path,
    masks: tuple[str, ...],
    mask_channel: str | None,
    workers: int | None,
    dask: str | None,
    overwrite: bool,
) -> None:
    """Compute intensity, texture, symmetry, shape and motion of all cells, of the patches that the encoder sees.

    A row per cell, as `predict` writes them, so that whatever reads embeddings reads features: `evaluate`, `info`,
    `reduce-dimensionality`, `train-linear-classifier`, `append-annotations`. Pixels are as stored, of the middle
    slice. Threads share one processor for most of the work; `--dask local` takes them all. What was stopped goes on
    when the command is given again.
    """
    with report_errors("dynaclr"):
        refuse_missing_configs(configs, unread=["patch_store"])
        if mask_channel and not masks:
            raise InputError("--mask-channel", found=mask_channel, expected="--masks beside it")
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        from dynaclr.datamodule import MultiExperimentDataModule
        from dynaclr.evaluation.label_images import find_label_images
        from viscy_data.files import refuse_existing
        from viscy_utils.cli.places import noting_places
        from viscy_utils.evaluation.feature_store import FeatureRun, missing_features

        refuse_existing(output, overwrite, remedy="choose another output, or add --overwrite")
        data = load_data(configs, MultiExperimentDataModule, "dynaclr.datamodule.MultiExperimentDataModule")
        data.patch_store = None  # of all slices; the images themselves are read
        with noting_places(configs):
            data.setup("predict")
        dataset = data.predict_dataset
        run = FeatureRun(
            output,
            dataset,
            dataset.cells["hours_post_infection"].to_numpy(),
            find_label_images(dataset.index, masks, mask_channel) if masks else None,
            data.data_record(),
            {"masks": list(masks), "mask_channel": mask_channel},
        )
        with Progress("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
            advance = partial(progress.advance, progress.add_task("cells", total=len(dataset)))
            names = run.write(overwrite=overwrite, workers=workers, dask=dask, advance=advance)
        click.echo(f"wrote {output}: {len(names)} features of {len(dataset)} cells")
        for line in _missing_text(missing_features(output), len(dataset)):
            click.echo(line)
        click.echo(f"next: dynaclr evaluate {output} -o report")


def _missing_text(missing: dict[str, int], n_cells: int) -> list[str]:
    """Say how many cells lack which features, those that as many cells lack together."""
    lines = []
    for count in dict.fromkeys(missing.values()):
        names = [name for name, own in missing.items() if own == count]
        more = f" and {len(names) - 1} more features" if len(names) > 1 else ""
        lines.append(f"{count} of {n_cells} cells lack {names[0]}{more}")
    if lines:
        lines.append(
            "what is missing is NaN: no object of the label image under the cell, a channel that its store lacks, "
            "pixels that are not finite, or a patch of one value"
        )
    return lines
