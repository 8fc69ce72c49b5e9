"""Measure what each option does for biology and for the mixing of experiments, on simulated plates of known truth.

``run`` goes on where it was stopped; ``table`` makes the table and the figure of the runs that there are, and ``page``
the tables and the figure of docs/choosing.md, from the runs beside it.

    python benchmarks/representation.py run --setting cheap --seeds 5
    python benchmarks/representation.py table
    python benchmarks/representation.py run --quick
    python benchmarks/representation.py page
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from pathlib import Path

from representations.options import OPTIONS, SETTINGS
from representations.page import fill, kept_runs
from representations.plates import EXPERIMENTS, SEVERITIES
from representations.table import differences, draw, markdown, read_runs, write_runs

from viscy_utils.reports.files import write_text

_QUICK = ("baseline", "untrained", "pixel PCA", "supervised", "AdaBN", "correct: tvn")
_COMPARED = ("infection", "infection_auc", "age_r2", "lineage_at_1", "experiment_probe", "experiment_neighbors")
_PAGE = Path(__file__).parents[1] / "docs" / "choosing.md"


def run(arguments: argparse.Namespace) -> None:
    """Perform the runs that have no line yet."""
    from representations.runs import perform, planned  # torch and Lightning, which a table does without

    for noisy in ("lightning.pytorch", "lightning.fabric", "dynaclr", "viscy_data"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    size = {"hours": 6.0, "n_cells": 10} if arguments.quick else {}
    setting = "quick" if arguments.quick else arguments.setting
    options = arguments.options or list(_QUICK if arguments.quick else OPTIONS)
    seeds = range(arguments.first_seed, arguments.first_seed + (1 if arguments.quick else arguments.seeds))
    severities = arguments.severities or ["medium"]
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = arguments.out / "runs.jsonl"
    done = {(row.digest, row.seed) for row in read_runs(lines).itertuples()}
    runs = list(planned(options, setting, severities, seeds, EXPERIMENTS, **size))
    for number, each in enumerate(runs):
        if each.key in done:
            continue
        result = perform(each, arguments.out / "cache")
        with lines.open("a", encoding="utf8") as file:
            file.write(json.dumps(result) + "\n")
        scores = {name: round(value, 3) for name, value in result["scores"].items()}
        print(f"{number + 1}/{len(runs)} {each.severity} {each.seed} {each.option}: {scores}, {result['seconds']} s")
    print(f"{len(runs)} runs in {lines}; next: python {Path(__file__).name} table --out {arguments.out}")


def table(arguments: argparse.Namespace) -> None:
    """Write the table and the figure."""
    runs = read_runs(arguments.out / "runs.jsonl")
    if runs.empty:
        raise SystemExit(f"no runs in {arguments.out}: begin with `run`")
    order = {name: number for number, name in enumerate(OPTIONS)}
    runs = runs.sort_values("option", key=lambda names: names.map(order), kind="stable")
    parts = [markdown(runs), "Change against the baseline on the same plates (better in so many seeds):\n"]
    parts += [differences(own, _COMPARED) for _, own in runs.groupby(["setting", "severity"], sort=False)]
    write_text(arguments.out / "table.md", "\n".join(parts))
    write_runs(runs, arguments.out / "runs.csv")
    draw(runs, arguments.out / "biology_and_mixing.png")
    print("\n".join(parts))
    print(f"wrote table.md, runs.csv and biology_and_mixing.png in {arguments.out}")


def page(arguments: argparse.Namespace) -> None:
    """Fill the tables of the page and draw its figure."""
    runs = read_runs(_PAGE.with_suffix(".csv"))
    write_text(_PAGE, fill(_PAGE, runs))
    draw(kept_runs(runs), _PAGE.parent / "images" / "choosing.png")
    print(f"wrote the tables and the figure of {_PAGE}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table", "page"))
    parser.add_argument("--out", type=Path, default=Path("representation"), help="folder of lines and cache")
    parser.add_argument("--quick", action="store_true", help="a few options, one seed, small plates: minutes")
    parser.add_argument("--setting", choices=[name for name in SETTINGS if name != "quick"], default="target")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--options", nargs="+", choices=list(OPTIONS), metavar="NAME", help="all by default")
    parser.add_argument("--severities", nargs="+", choices=list(SEVERITIES))
    arguments = parser.parse_args()
    {"run": run, "table": table, "page": page}[arguments.command](arguments)


if __name__ == "__main__":
    main()
