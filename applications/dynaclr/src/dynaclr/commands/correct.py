"""`dynaclr correct`: what an experiment adds to all of its cells, taken out by means of control cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.errors import report_errors

__all__ = ["correct"]


@click.command(
    "correct",
    context_settings=CONTEXT_SETTINGS,
    epilog="\b\n"
    + """Example:
  dynaclr correct embeddings.zarr --controls "condition == 'uninfected'" --method lot --save-transform lot.npz
  dynaclr correct new_plate.zarr --controls "condition == 'uninfected'" --transform lot.npz""",
)
@click.argument("embeddings", type=click.Path(path_type=Path))
@click.option("--by", default="experiment", show_default=True, help="Column of what is to be taken out.")
@click.option(
    "--controls",
    required=True,
    metavar="CONDITION",
    help="Cells that are alike in all experiments, such as: \"condition == 'uninfected' and t < 20\".",
)
@click.option(
    "--method",
    type=click.Choice(["center", "standardize", "tvn", "lot"]),
    help="Mean, mean and spread, typical variation normalization with CORAL, linear optimal transport.",
)
@click.option(
    "--transform",
    type=click.Path(path_type=Path),
    help="Apply a saved correction instead; experiments that it does not know are fitted on their own controls.",
)
@click.option("--label", help="Column that has to remain readable: probed before and after.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Store to write. [default: into EMBEDDINGS]")
@click.option("--save-transform", type=click.Path(path_type=Path), help="File (.npz) for the correction.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier correction or output.")
@click.option("--seed", default=0, show_default=True, help="Of every random draw.")
@report_errors("dynaclr")
def correct(seed: int, **options: Any) -> None:
    """Correct embeddings by control cells, fitted on nothing else.

    Writes obsm `X_corrected`, with its origin in uns, and shows how well the experiment is told before and after.
    """
    from viscy_data.errors import InputError
    from viscy_data.files import refuse_absent
    from viscy_utils.embeddings.kind import refuse_unfinished

    if (options["method"] is None) == (options["transform"] is None):
        raise InputError("dynaclr correct", found="neither or both", expected="one of --method and --transform")
    if options["transform"] is not None:
        refuse_absent(options["transform"], expected="a correction of embeddings")
    refuse_unfinished(options["embeddings"])
    from dynaclr.evaluation.correction import Request, correct_embeddings

    correct_embeddings(Request(**options), seed=seed)
