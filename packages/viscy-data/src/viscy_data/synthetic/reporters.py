"""What a reporter shows: textures inside a cell, from smooth random fields in the cell's own coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["REPORTERS", "CellStamps", "autofluorescence", "infected_reporter", "phase_contrast"]


@dataclass(frozen=True)
class CellStamps:
    """Geometry and random fields of the cells of one frame, each array (n_cells, Z, S, S) or broadcastable.

    Parameters
    ----------
    radius : ndarray
        Cell radius in pixels.
    distance : ndarray
        0 at the centre, 1 at the outline of the cell.
    nucleus : ndarray
        The same for the nucleus.
    sharpness : float
        Pixels over which outlines fade.
    fine, medium, coarse : ndarray
        Random fields of unit variance and increasing grain.
    nucleus_radius : float
        Radius of the nucleus relative to the cell.
    """

    radius: np.ndarray
    distance: np.ndarray
    nucleus: np.ndarray
    fine: np.ndarray
    medium: np.ndarray
    coarse: np.ndarray
    nucleus_radius: float = 0.42

    @property
    def inside(self) -> np.ndarray:
        """1 inside the cell, 0 outside."""
        return np.clip((1 - self.distance) * self.radius + 0.5, 0, 1)

    @property
    def in_nucleus(self) -> np.ndarray:
        """1 inside the nucleus, 0 outside."""
        return np.clip((1 - self.nucleus) * self.nucleus_radius * self.radius + 0.5, 0, 1)

    @property
    def in_cytoplasm(self) -> np.ndarray:
        """1 in the cell but not in its nucleus."""
        return self.inside * (1 - 0.9 * self.in_nucleus)


def _bell(x: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * x * x)


def _reticular(cell: CellStamps) -> np.ndarray:
    """Endoplasmic reticulum: a net of tubules, denser towards the nucleus, and the nuclear envelope."""
    net = _bell(cell.medium / 0.3) + 0.5 * _bell(cell.fine / 0.3)
    envelope = _bell((cell.nucleus - 1.1) / 0.12)
    return cell.in_cytoplasm * (0.2 + net) * np.exp(-1.1 * cell.distance) + 0.25 * envelope


def _filamentous(cell: CellStamps) -> np.ndarray:
    """Mitochondria: short threads and dots in part of the cytoplasm."""
    threads = (_bell(cell.medium / 0.22) + 0.4 * _bell(cell.fine / 0.3)) * np.clip(cell.coarse + 0.6, 0, 1.4)
    return cell.in_cytoplasm * (0.12 + 1.5 * threads) * np.clip(1.25 - cell.distance, 0, 1)


def _chromatin(cell: CellStamps) -> np.ndarray:
    """Nucleus: filled, with grains of chromatin; little signal in the cytoplasm."""
    return cell.in_nucleus * np.clip(0.9 + 0.22 * cell.medium, 0.3, None) + 0.12 * cell.inside


def _rim(cell: CellStamps) -> np.ndarray:
    """Membrane: the outline with ruffles, and faint folds over the cell."""
    outline = _bell((cell.distance - 0.93) * cell.radius / 1.3) * np.clip(1 + 0.35 * cell.coarse, 0.2, None)
    return outline + cell.inside * (0.18 + 0.25 * _bell(cell.medium / 0.25))


def _punctate(cell: CellStamps) -> np.ndarray:
    """Lysosomes: separate dots, more of them near the nucleus."""
    dots = np.clip(cell.fine - 1.0, 0, 1.2)
    return cell.in_cytoplasm * (0.15 + 2.5 * dots * np.clip(1.3 - cell.distance, 0, 1))


REPORTERS: dict[str, Callable[[CellStamps], np.ndarray]] = {
    "er": _reticular,
    "lysosome": _punctate,
    "membrane": _rim,
    "mito": _filamentous,
    "nucleus": _chromatin,
}
"""Texture of each reporter, by the name that ``ExperimentSpec.reporter`` takes."""


def infected_reporter(
    healthy: np.ndarray, cell: CellStamps, aggregates: np.ndarray, progress: np.ndarray
) -> np.ndarray:
    """Move the reporter from where it belongs into aggregates beside the nucleus.

    Parameters
    ----------
    healthy : ndarray
        Texture of the reporter, (n_cells, Z, S, S).
    aggregates : ndarray
        Sum of bells of height 1, the same shape.
    progress : ndarray
        0 healthy to 1 infected, broadcastable.

    Returns
    -------
    ndarray
        The same total per cell as ``healthy``: infection changes the texture, not the amount.
    """
    total = healthy.sum((1, 2, 3), keepdims=True)
    gathered = aggregates * cell.inside
    gathered *= total / np.maximum(gathered.sum((1, 2, 3), keepdims=True), 1e-6)
    share = 0.6 * progress
    return (1 - share) * healthy + share * gathered


def phase_contrast(cell: CellStamps, halo: np.ndarray, rounding: np.ndarray, progress: np.ndarray) -> np.ndarray:
    """Label-free contrast: a dome with granules, a dark rim and a bright halo; signed, 0 without a cell.

    A dividing cell is round with a strong halo; an infected one has coarser granules and a slightly brighter halo.

    Parameters
    ----------
    cell : CellStamps
        Geometry and random fields.
    halo : ndarray
        Height of the halo of a healthy cell.
    rounding, progress : ndarray
        0 to 1 around a division, and 0 healthy to 1 infected.

    Returns
    -------
    ndarray, shape (n_cells, Z, S, S)
    """
    edge = (cell.distance - 1) * cell.radius
    ring = (halo + 0.30 * rounding + 0.05 * progress) * _bell((edge - 1.8) / 1.3)
    rim = -(0.22 + 0.1 * rounding) * _bell((edge + 1.2) / 1.1)
    dome = (0.16 + 0.2 * rounding) * np.sqrt(np.clip(1 - cell.distance**2, 0, None))
    grain = (0.09 - 0.06 * progress) * cell.fine + (0.03 + 0.27 * progress) * cell.medium
    envelope = 0.08 * _bell((cell.nucleus - 1) / 0.12)
    return ring + rim + dome + cell.in_cytoplasm * grain * (1 - 0.6 * rounding) - envelope * (1 - rounding)


def autofluorescence(cell: CellStamps) -> np.ndarray:
    """Diffuse, unspecific signal of the whole cell, as unused channels show it."""
    return 0.3 * cell.inside * np.clip(1 + 0.1 * cell.coarse - 0.4 * cell.distance, 0, None)
