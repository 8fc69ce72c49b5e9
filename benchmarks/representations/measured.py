"""The figures of the table, in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """A figure of the table."""

    name: str
    title: str
    better: str


MEASURED = (
    Measured("infection", "infection, balanced accuracy", "higher"),
    Measured("infection_auc", "infection, AUC", "higher"),
    Measured("mitosis", "mitosis, balanced accuracy", "higher"),
    Measured("mitosis_auc", "mitosis, AUC", "higher"),
    Measured("age_r2", "age, R2", "higher"),
    Measured("onset_error_h", "onset error, h", "lower"),
    Measured("onset_found", "onsets found", "higher"),
    Measured("lineage_at_1", "lineage, recall at 1", "higher"),
    Measured("experiment_probe", "experiment by probe", "lower"),
    Measured("experiment_neighbors", "experiment by neighbours", "lower"),
)
