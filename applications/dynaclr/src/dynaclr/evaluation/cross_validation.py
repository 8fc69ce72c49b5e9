"""Cross-validation of linear classifiers as a configuration says."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from viscy_data.errors import InputError
from viscy_data.files import refuse_existing
from viscy_utils.cli.yaml_models import read_yaml_model
from viscy_utils.evaluation.linear_classifier import load_and_combine_datasets
from viscy_utils.evaluation.linear_classifier_config import LinearClassifierCrossValidationConfig
from viscy_utils.evaluation.linear_classifier_validation import CrossValidation, cross_validate
from viscy_utils.reports.files import write_text
from viscy_utils.reports.numbers import number
from viscy_utils.reports.tables import ReportTable

__all__ = ["cross_validate_from_config"]

_FIGURES = ("precision", "recall", "f1", "auroc")


def cross_validate_from_config(path: Path, *, overwrite: bool = False) -> CrossValidation:
    """Cross-validate a classifier, print its figures, and write ``{summary,classes,folds}.csv``.

    Parameters
    ----------
    path : Path
        YAML of `viscy_utils.evaluation.linear_classifier_config.LinearClassifierCrossValidationConfig`.
    overwrite : bool, default False
        Replace existing tables.
    """
    config = read_yaml_model(path, LinearClassifierCrossValidationConfig)
    folder = Path(config.output_dir)
    targets = {name: folder / f"{name}.csv" for name in ("summary", "classes", "folds")}
    for target in targets.values():
        refuse_existing(target, overwrite, remedy="choose another output_dir or add --overwrite")
    options = config.model_dump(include={"by", "n_folds", "use_scaling", "n_pca_components", "random_seed"})
    params = config.model_dump(include={"max_iter", "class_weight", "solver"})
    try:
        cells = load_and_combine_datasets(config.train_datasets, config.task)
        found = cross_validate(cells, config.task, classifier_params=params, **options)
    except InputError:
        raise
    except ValueError as err:
        raise InputError(str(path), field="train_datasets", found=str(err)) from err
    console = Console(soft_wrap=True)
    for table in (_summary_table(found, config.task), _classes_table(found.classes)):
        console.print(table.terminal())
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in targets.items():
        write_text(target, getattr(found, name).to_csv())
    console.print(
        f"wrote {', '.join(path.name for path in targets.values())} to {folder}\n"
        "next: dynaclr train-linear-classifier, on all cells",
        markup=False,
    )
    return found


def _summary_table(found: CrossValidation, task: str) -> ReportTable:
    rows = [
        (str(name).replace("_", " "), _interval(row["value"], row["low"], row["high"]), number(row["chance"]))
        for name, row in found.summary.iterrows()
    ]
    cells = f"{found.folds['n_test'].sum()} cells"
    title = f"{task}: {len(found.folds)} folds by {found.split_by}, {cells}, 95 % intervals over lineages"
    return ReportTable(title, ("metric", "held-out cells", "chance"), rows)


def _classes_table(classes: pd.DataFrame) -> ReportTable:
    rows = [
        (
            str(name),
            f"{row['n_cells']:.0f} cells\n{row['n_lineages']:.0f} lineages",
            *(_interval(row[each], row[f"{each}_low"], row[f"{each}_high"]) for each in _FIGURES),
        )
        for name, row in classes.iterrows()
    ]
    return ReportTable("Each class against the others", ("class", "", *_FIGURES), rows)


def _interval(value: float, low: float, high: float) -> str:
    return number(value) if pd.isna(low) else f"{number(value)} [{number(low)}, {number(high)}]"
