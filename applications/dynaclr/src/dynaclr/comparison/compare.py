"""Train the variants of a configuration one after the other, and report after each."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dynaclr.comparison.figure import draw_curves
from dynaclr.comparison.recorder import EpochRecord
from dynaclr.comparison.report import Row, criteria_table, make_rows, verdict_table, write_reports
from dynaclr.comparison.runs import VariantRun, merge_config, prepare_config, train_variant, wandb_available
from dynaclr.comparison.variants import Variant, read_variants
from viscy_data.errors import InputError
from viscy_data.files import missing_path, replacing

__all__ = ["compare_losses"]

_MARKER = "variants.yml"


def compare_losses(
    base: Path,
    variants: Path,
    output_dir: Path,
    *,
    quick_test: bool = False,
    wandb: bool = True,
    overwrite: bool = False,
) -> list[Row]:
    """Train variants of a configuration with one seed and the same data order, and judge them.

    Leaves in ``output_dir``: ``report.json``, ``table.csv``, ``table.md``, ``curves.png``, ``variants.yml``, and per
    variant a folder with ``config.yml`` (complete: ``dynaclr fit --config`` repeats the run), ``train.log``,
    ``epochs.jsonl``, ``metrics/`` and checkpoints. The reports are written anew after each variant.

    Parameters
    ----------
    base : Path
        Configuration of ``dynaclr fit``.
    variants : Path
        What each variant changes; see `dynaclr.comparison.variants.read_variants`.
    output_dir : Path
        Must not hold anything yet.
    quick_test : bool, default False
        Train for 5 epochs.
    wandb : bool, default True
        Log to Weights & Biases as well, if it is installed.
    overwrite : bool, default False
        Replace an earlier comparison; a folder that holds anything else is refused all the same.

    Returns
    -------
    list of Row
        One per variant, those that crashed included.

    Raises
    ------
    InputError
        If an input is missing, or a variant changes keys that there are not: before anything is trained.
    FileExistsError
        If the folder is taken.
    """
    if not base.is_file():
        raise missing_path(base, expected="a YAML configuration of dynaclr fit")
    listed = read_variants(variants)
    _check_free(output_dir, overwrite)
    configs = _configs(base, listed, variants, output_dir, quick_test=quick_test, wandb=wandb and wandb_available())
    _write_configs(configs, listed, output_dir)
    settings = {"base": str(base), "quick_test": quick_test, "seed": next(iter(configs.values()))["seed_everything"]}
    console = Console()
    runs: list[VariantRun] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for name, config in configs.items():
            task = progress.add_task(name, total=_n_epochs(config))

            def advance(record: EpochRecord, task: Any = task) -> None:
                progress.update(task, completed=record.epoch + 1)

            runs.append(train_variant(name, output_dir / name / "config.yml", advance))
            if runs[-1].error:
                progress.console.print(f"{name} crashed, see {output_dir / name / 'train.log'}", markup=False)
            rows = make_rows(runs)
            write_reports(rows, output_dir, settings)
            with replacing(output_dir / "curves.png", overwrite=True) as temporary:
                draw_curves(runs).savefig(temporary, dpi=110)
    console.print(verdict_table(rows).terminal())
    console.print(criteria_table(rows).terminal())
    return rows


def _check_free(output_dir: Path, overwrite: bool) -> None:
    if not output_dir.exists() or (output_dir.is_dir() and not any(output_dir.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(f"{output_dir} exists: choose another --output-dir, or replace it with --overwrite")
    if not (output_dir / _MARKER).is_file():
        raise FileExistsError(f"{output_dir} is no earlier comparison and is not replaced: choose another --output-dir")


def _configs(
    base: Path, variants: Sequence[Variant], source: Path, output_dir: Path, *, quick_test: bool, wandb: bool
) -> dict[str, dict[str, Any]]:
    """Complete the configuration of every variant before the first is trained."""
    configs = {}
    with TemporaryDirectory() as scratch:
        for variant in variants:
            overrides = Path(scratch) / f"{variant.name}.yml"
            overrides.write_text(yaml.safe_dump(variant.overrides), encoding="utf8")
            try:
                merged = merge_config(base, overrides)
            except InputError as err:
                where = f"{base} with variant {variant.name!r} of {source}"
                raise InputError(where, field=err.field, found=err.found, expected=err.expected, fix=err.fix) from err
            folder = output_dir.absolute() / variant.name
            configs[variant.name] = prepare_config(merged, folder, quick_test=quick_test, wandb=wandb, base=base)
    return configs


def _write_configs(configs: dict[str, dict[str, Any]], variants: Sequence[Variant], output_dir: Path) -> None:
    if output_dir.exists():
        shutil.rmtree(output_dir)
    for name, config in configs.items():
        (output_dir / name).mkdir(parents=True)
        (output_dir / name / "config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf8")
    named = {variant.name: variant.overrides for variant in variants}
    (output_dir / _MARKER).write_text(yaml.safe_dump({"variants": named}, sort_keys=False), encoding="utf8")


def _n_epochs(config: dict[str, Any]) -> int | None:
    epochs = config["trainer"]["max_epochs"]
    return epochs if isinstance(epochs, int) and epochs > 0 else None
