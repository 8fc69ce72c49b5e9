"""`dynaclr evaluate`: the metrics of written embeddings, side by side."""

from __future__ import annotations

from pathlib import Path

import click

from viscy_utils.cli.application import CONTEXT_SETTINGS
from viscy_utils.cli.errors import report_errors

__all__ = ["evaluate"]


@click.command(
    context_settings=CONTEXT_SETTINGS,
    epilog="\b\n"
    + """Example:
  dynaclr evaluate embeddings.zarr --label condition -o report
  dynaclr evaluate trained=a.zarr untrained=b.zarr --labels infection.csv --label infection -o report""",
)
@click.argument("stores", nargs=-1, metavar="[[NAME=]PATH]...")
@click.option(
    "--embeddings",
    "-e",
    multiple=True,
    metavar="[NAME=]PATH",
    help="AnnData zarr written by `dynaclr predict`, as is PATH; give several to compare them.",
)
@click.option(
    "--run",
    "runs",
    multiple=True,
    metavar="RUN",
    help="Embeddings predicted with this run: its name, its folder, or `latest`; may be repeated.",
)
@click.option(
    "--config",
    "-c",
    "configs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Config of the prediction: adds PCA of the pixels of its data block to the comparison.",
)
@click.option("--label", default="condition", show_default=True, help="Column to probe.")
@click.option(
    "--labels",
    multiple=True,
    type=click.Path(path_type=Path),
    help="CSV with the columns experiment, fov_name, track_id, t and the label, when the embeddings do not carry it.",
)
@click.option(
    "--test-experiment",
    "test_experiments",
    multiple=True,
    help="Score the probe on this experiment, trained on the others; without it, cross-validated over FOVs.",
)
@click.option(
    "--correct",
    "corrections",
    multiple=True,
    type=click.Choice(["center", "standardize", "tvn", "lot"]),
    help="Compare with the embeddings corrected by control cells, as `dynaclr correct` does; may be repeated.",
)
@click.option("--controls", metavar="CONDITION", help="Control cells of --correct: \"condition == 'uninfected'\".")
@click.option("--output-dir", "-o", type=click.Path(path_type=Path), required=True, help="Folder of the report.")
@click.option("--overwrite", is_flag=True, help="Replace an existing report.")
@click.option("--seed", default=0, show_default=True, help="Of every random draw.")
@report_errors("dynaclr")
def evaluate(
    stores: tuple[str, ...],
    embeddings: tuple[str, ...],
    runs: tuple[str, ...],
    configs: tuple[Path, ...],
    label: str,
    labels: tuple[Path, ...],
    test_experiments: tuple[str, ...],
    corrections: tuple[str, ...],
    controls: str | None,
    output_dir: Path,
    overwrite: bool,
    seed: int,
) -> None:
    """Probe a label, the mixing of experiments and the smoothness in time of embeddings at PATH.

    Cells without a label are left out and counted. Writes report.html, a page that needs no network: verdict, map of
    cells with tracks and images, tables, curves, origin. Beside it are report.json, report.csv, report.md, report.png,
    mixing.png, curves.csv and curves.png; the main scores are printed.
    """
    from dynaclr.commands.fit_configs import refuse_missing_configs
    from viscy_data.errors import InputError
    from viscy_data.files import refuse_absent
    from viscy_utils.embeddings.kind import refuse_unfinished

    if not stores and not embeddings and not runs:
        raise InputError("dynaclr evaluate", found="no embeddings", expected="--embeddings PATH or --run RUN")
    refuse_missing_configs(configs)
    for path in labels:
        refuse_absent(path, expected="a CSV file of labels")
    named = _named((*stores, *embeddings, *map(_of_run, runs)))
    for path in named.values():
        refuse_unfinished(path)
    from dynaclr.evaluation.report import evaluate_embeddings

    evaluate_embeddings(
        named,
        label,
        output_dir,
        pixel_configs=configs,
        labels=labels,
        test_experiments=test_experiments,
        corrections=corrections,
        controls=controls,
        overwrite=overwrite,
        seed=seed,
    )
    page = output_dir / "report.html"
    click.echo(f"next: look at {page if page.exists() else page.with_suffix('.png')}")  # the page needs the extra eval


def _of_run(name: str) -> str:
    """Name the embeddings of a run as an entry of ``--embeddings``, called like the run."""
    from viscy_utils.runs.choice import embeddings_of
    from viscy_utils.runs.folder import find_run

    found = find_run(name)
    return f"{found.path.name}={embeddings_of(found)}"


def _named(entries: tuple[str, ...]) -> dict[str, str]:
    """Take names and paths apart; a store without a name is called like its file."""
    from viscy_data.errors import InputError

    named: dict[str, str] = {}
    for entry in entries:
        name, _, path = entry.partition("=") if "=" in entry else (Path(entry).stem, "", entry)
        if name in named:
            raise InputError(
                f"--embeddings {entry}",
                found=f"a second store called {name!r}, beside {named[name]}",
                fix=f"give names, such as -e first={named[name]} -e second={path}",
            )
        named[name] = path
    return named
