"""Runs to a table and a figure."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from representations.measured import MEASURED
from viscy_utils.reports.files import write_text

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read_runs(path: Path) -> pd.DataFrame:
    """Read the lines of runs, or a table of them; a line that was cut off by a crash is left out."""
    if path.suffix == ".csv":
        return pd.read_csv(path)
    rows = []
    for line in path.read_text(encoding="utf8").splitlines() if path.is_file() else ():
        try:
            run = json.loads(line)
        except json.JSONDecodeError:
            continue
        rows.append({key: value for key, value in run.items() if key not in ("spec", "scores")} | run["scores"])
    return pd.DataFrame(rows)


def write_runs(runs: pd.DataFrame, path: Path) -> None:
    """Write a row per run: what it was and its scores."""
    what = ["setting", "severity", "option", "seed", "held_out", "digest"]
    names = [measured.name for measured in MEASURED]
    rows = runs.sort_values(what[:4])[[*what, *names]]
    write_text(path, rows.to_csv(index=False, float_format="%.4f", lineterminator="\n"))


def markdown(runs: pd.DataFrame) -> str:
    """Write mean and spread over seeds of every score, per setting and severity."""
    text = []
    for (setting, severity), group in runs.groupby(["setting", "severity"], sort=False):
        lines = [f"Setting {setting}, severity {severity}: mean ± standard deviation over seeds", ""]
        lines += ["| option | seeds | " + " | ".join(measured.title for measured in MEASURED) + " |"]
        lines += ["|" + "---|" * (len(MEASURED) + 2)]
        for option, own in group.groupby("option", sort=False):
            lines.append(f"| {option} | {own['seed'].nunique()} | " + " | ".join(_cells(own)) + " |")
        text.append("\n".join(lines))
    return "\n\n".join(text) + "\n"


def _cells(own: pd.DataFrame) -> list[str]:
    values = [own[measured.name] for measured in MEASURED]
    return [f"{each.mean():.3f}" + (f" ± {each.std():.3f}" if len(each) > 1 else "") for each in values]


def differences(runs: pd.DataFrame, names: tuple[str, ...]) -> str:
    """Write the mean change of scores against the baseline on the same plates, and in how many seeds it is better."""
    better = {measured.name: measured.better for measured in MEASURED}
    titles = {measured.name: measured.title for measured in MEASURED}
    where = ["setting", "severity", "seed", "held_out"]
    base = runs[runs["option"] == "baseline"].set_index(where)
    lines = ["| option | seeds | " + " | ".join(titles[name] for name in names) + " |", "|" + "---|" * (len(names) + 2)]
    for option, own in runs[runs["option"] != "baseline"].groupby("option", sort=False):
        own = own.set_index(where)
        shared = own.index.intersection(base.index)
        if not len(shared):
            continue
        cells = []
        for name in names:
            change = (own.loc[shared, name] - base.loc[shared, name]).to_numpy(float)
            wins = int(np.sum(change > 0 if better[name] == "higher" else change < 0))
            cells.append(f"{change.mean():+.3f} ({wins} of {len(change)})")
        lines.append(f"| {option} | {len(shared)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def draw(runs: pd.DataFrame, path: Path) -> None:
    """Draw biology against mixing: a point per option with its spread over seeds, best at the upper left."""
    groups = list(runs.groupby(["setting", "severity"], sort=False))
    figure, axes = plt.subplots(1, len(groups), figsize=(12 * len(groups), 6.5), squeeze=False, layout="constrained")
    for axis, ((setting, severity), group) in zip(axes[0], groups, strict=True):
        colours = plt.get_cmap("tab20")(np.arange(group["option"].nunique()) % 20)
        for number, (option, own) in enumerate(group.groupby("option", sort=False)):
            x, y = own["experiment_neighbors"], own["infection"]
            shape = "s" if option == "baseline" else "o^v"[number // 20 % 3]
            spread = {"xerr": x.std() if len(x) > 1 else None, "yerr": y.std() if len(y) > 1 else None}
            axis.errorbar(
                x.mean(), y.mean(), **spread, fmt=shape, color=colours[number], label=f"{option} ({len(own)})",
                markersize=11 if option == "baseline" else 7, elinewidth=0.6, alpha=0.9,
            )  # fmt: skip
        axis.axvline(0.25, color="0.6", linestyle=":")
        axis.set_xlabel("experiment told by neighbours, balanced accuracy (dotted: chance)")
        axis.set_ylabel("infection in the held-out experiment, balanced accuracy")
        axis.set_title(f"{setting}, {severity}: options (seeds), bars are standard deviations")
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=1)
    figure.savefig(path, dpi=90)
    plt.close(figure)
