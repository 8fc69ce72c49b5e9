"""Names of annotated cell states and the integers they are stored as; -1 is always unknown."""

from __future__ import annotations

__all__ = [
    "LABEL_CELL_CYCLE_STATE",
    "LABEL_CELL_DIVISION_STATE",
    "LABEL_CELL_REMODELING_STATE",
    "LABEL_INFECTION_STATE",
]

LABEL_INFECTION_STATE = {"uninfected": 0, "infected": 1, "unknown": -1}

LABEL_CELL_DIVISION_STATE = {"interphase": 0, "mitosis": 1, "unknown": -1}

LABEL_CELL_CYCLE_STATE = {
    "G1": 0,
    "S": 1,
    "G2": 2,
    "prophase": 3,
    "metaphase": 4,
    "anaphase": 5,
    "telophase": 6,
    "unknown": -1,
}

LABEL_CELL_REMODELING_STATE = {"no_remodel": 0, "remodeling": 1, "unknown": -1}
