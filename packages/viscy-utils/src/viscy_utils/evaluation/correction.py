"""What an experiment adds to all of its cells, learnt on control cells and taken out of embeddings.

Control cells (untreated, uninfected) are alike in all experiments, so that what differs between them is the
experiment's. Each method brings the controls of every experiment onto common ground by one affine map per experiment,
``y = (x - shift) @ matrix + offset``, which then is applied to all of its cells. Nothing but controls is fitted.

Corrections are worth a look before they are used: they are judged by how well a linear probe and neighbours tell the
experiment afterwards, which can disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_data.optional import from_extra
from viscy_utils.evaluation.array_file import load_arrays, save_arrays

with from_extra("eval", package="viscy-utils"):
    from sklearn.covariance import ledoit_wolf

__all__ = ["METHODS", "SCHEMA", "Correction", "Method", "fit_correction", "load_correction", "save_correction"]

Method = Literal["center", "standardize", "tvn", "lot"]
METHODS: tuple[str, ...] = get_args(Method)

SCHEMA = "viscy correction 1"
"""Name and version of the layout of a file, the entry ``schema`` of its JSON."""

_RIDGE = 1.0  # what CORAL adds to the diagonal of both covariances (Sun et al. 2016)
_FEWEST = 2


@dataclass(frozen=True)
class Correction:
    """A fitted correction.

    Attributes
    ----------
    method : {"center", "standardize", "tvn", "lot"}
    common : mapping of str to ndarray
        What all groups are brought to: ``offset`` (K,), and what the method needs to fit another group.
    shifts, matrices : mapping of str to ndarray
        Per group (F,) and (F, K).
    n_controls : mapping of str to int
        How many controls each group was fitted on.
    """

    method: Method
    common: Mapping[str, np.ndarray]
    shifts: Mapping[str, np.ndarray] = field(default_factory=dict)
    matrices: Mapping[str, np.ndarray] = field(default_factory=dict)
    n_controls: Mapping[str, int] = field(default_factory=dict)

    @property
    def n_features(self) -> int:
        """Number of features that go in."""
        return len(self.common["mean"])

    def with_groups(self, features: np.ndarray, groups: np.ndarray, controls: np.ndarray) -> Correction:
        """Fit further groups to the common ground, which stays; groups that are known stay too.

        Parameters
        ----------
        features : ndarray of float, shape (N, F)
        groups : ndarray of str, shape (N,)
        controls : ndarray of bool, shape (N,)

        Raises
        ------
        InputError
            If a new group has fewer than two control cells, or the number of features differs.
        """
        features = self._checked(features)
        new = [name for name in map(str, np.unique(groups)) if name not in self.shifts]
        _check_controls(new, groups, controls)
        own = {name: features[controls & (groups == name)] for name in new}
        maps = {name: _MAPS[self.method](cells, self.common) for name, cells in own.items()}
        return replace(
            self,
            shifts={**self.shifts, **{name: cells.mean(axis=0) for name, cells in own.items()}},
            matrices={**self.matrices, **maps},
            n_controls={**self.n_controls, **{name: len(cells) for name, cells in own.items()}},
        )

    def apply(self, features: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Correct cells.

        Parameters
        ----------
        features : ndarray of float, shape (N, F)
        groups : ndarray of str, shape (N,)
            Each has to be known (`with_groups`).

        Returns
        -------
        ndarray of float32, shape (N, K)
            K is F.

        Raises
        ------
        InputError
            If a group is unknown, or the number of features differs.
        """
        features = self._checked(features)
        corrected = np.empty((len(features), len(self.common["offset"])), dtype=np.float32)
        for name in map(str, np.unique(groups)):
            if name not in self.shifts:
                expected = near_matches(name, self.shifts)
                raise InputError(name, found="no correction of it", expected=expected, fix="fit it on its controls")
            rows = groups == name
            corrected[rows] = (features[rows] - self.shifts[name]) @ self.matrices[name] + self.common["offset"]
        return corrected

    def _checked(self, features: np.ndarray) -> np.ndarray:
        features = np.asarray(features, dtype=np.float64)
        if features.shape[1] != self.n_features:
            raise InputError(
                "features", found=f"{features.shape[1]} per cell", expected=f"{self.n_features}, as when it was fitted"
            )
        return features


def fit_correction(features: np.ndarray, groups: np.ndarray, controls: np.ndarray, method: Method) -> Correction:
    r"""Fit a correction on control cells.

    Parameters
    ----------
    features : ndarray of float, shape (N, F)
        Finite.
    groups : ndarray of str, shape (N,)
        Experiment, plate or whatever is to be taken out.
    controls : ndarray of bool, shape (N,)
        Cells that are alike in all groups.
    method : {"center", "standardize", "tvn", "lot"}
        With means :math:`m_g`, standard deviations :math:`s_g` and covariances :math:`C_g` of a group's controls, and
        means :math:`m` and :math:`C` of these over groups, each group with the same weight:

        - ``center``: :math:`x - m_g + m`.
        - ``standardize``: :math:`(x - m_g) / s_g`; a feature that is constant in the controls is only centred.
        - ``tvn``: typical variation normalization. :math:`(x - m_g) W (W^T C_g W + I)^{-1/2} \sqrt 2`, where
          :math:`W = C^{-1/2}` whitens, followed by CORAL with its ridge of one: see Ando, McLean and Berndl (2017),
          "Improving phenotypic measurements in high-content imaging screens"; Sun, Feng and Saenko (2016), "Return of
          frustratingly easy domain adaptation".
        - ``lot``: linear optimal transport of the group's Gaussian to that of :math:`m` and :math:`C`:
          :math:`m + (x - m_g) C_g^{-1/2} (C_g^{1/2} C C_g^{1/2})^{1/2} C_g^{-1/2}`; see Peyre and Cuturi (2019),
          "Computational optimal transport", remark 2.31.

        Covariances are shrunk (Ledoit and Wolf 2004), so that they can be inverted when controls are few.

    Raises
    ------
    InputError
        If a group has fewer than two control cells.
    """
    features = np.asarray(features, dtype=np.float64)
    groups, controls = np.asarray(groups).astype(str), np.asarray(controls, dtype=bool)
    names = [str(name) for name in np.unique(groups)]
    _check_controls(names, groups, controls)
    own = [features[controls & (groups == name)] for name in names]
    common = _COMMON[method](own) | {"mean": np.mean([cells.mean(axis=0) for cells in own], axis=0)}
    if "offset" not in common:
        common["offset"] = common["mean"]
    return Correction(method, common).with_groups(features, groups, controls)


def _check_controls(names: list[str], groups: np.ndarray, controls: np.ndarray) -> None:
    few = [name for name in names if np.count_nonzero(controls & (groups == name)) < _FEWEST]
    if few:
        raise InputError(
            ", ".join(few),
            found=f"fewer than {_FEWEST} control cells",
            expected="controls in each group",
            fix="name controls that all groups have, or leave these groups out",
        )


def _covariance(cells: np.ndarray) -> np.ndarray:
    return ledoit_wolf(cells)[0]


def _power(symmetric: np.ndarray, exponent: float) -> np.ndarray:
    """Power of a symmetric positive matrix; directions without variance are left as they are."""
    values, vectors = np.linalg.eigh(symmetric)
    kept = values > values.max(initial=0) * 1e-10
    return (vectors * np.where(kept, np.where(kept, values, 1) ** exponent, 1)) @ vectors.T


def _plain(own: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {}


def _at_zero(own: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {"offset": np.zeros(own[0].shape[1])}


def _whitening(own: list[np.ndarray]) -> dict[str, np.ndarray]:
    return _at_zero(own) | {"whitening": _power(np.mean([_covariance(cells) for cells in own], axis=0), -0.5)}


def _target(own: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {"covariance": np.mean([_covariance(cells) for cells in own], axis=0)}


def _identity(cells: np.ndarray, common: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.eye(cells.shape[1])


def _scales(cells: np.ndarray, common: Mapping[str, np.ndarray]) -> np.ndarray:
    spread = cells.std(axis=0)
    return np.diag(1 / np.where(spread > 0, spread, 1))


def _aligned(cells: np.ndarray, common: Mapping[str, np.ndarray]) -> np.ndarray:
    whitening = common["whitening"]
    remaining = whitening.T @ _covariance(cells) @ whitening
    ridge = _RIDGE * np.eye(len(remaining))
    return whitening @ _power(remaining + ridge, -0.5) * np.sqrt(1 + _RIDGE)


def _transport(cells: np.ndarray, common: Mapping[str, np.ndarray]) -> np.ndarray:
    covariance = _covariance(cells)
    root, inverse = _power(covariance, 0.5), _power(covariance, -0.5)
    return inverse @ _power(root @ common["covariance"] @ root, 0.5) @ inverse


# What the groups are brought to, and the matrix that brings a group there.
_COMMON: dict[str, Callable[[list[np.ndarray]], dict[str, np.ndarray]]] = {
    "center": _plain,
    "standardize": _at_zero,
    "tvn": _whitening,
    "lot": _target,
}
_MAPS: dict[str, Callable[[np.ndarray, Mapping[str, np.ndarray]], np.ndarray]] = {
    "center": _identity,
    "standardize": _scales,
    "tvn": _aligned,
    "lot": _transport,
}


def save_correction(
    correction: Correction, path: str | Path, origin: Mapping[str, Any], overwrite: bool = False
) -> None:
    """Save a correction as arrays and JSON; the same one gives the same bytes.

    Parameters
    ----------
    correction : Correction
    path : str or Path
        An ``.npz`` file.
    origin : mapping
        What it was fitted on: plain values.
    overwrite : bool, default False
        Replace an existing file.

    Raises
    ------
    FileExistsError
        If there is one and it may not be replaced.
    """
    names = sorted(correction.shifts)
    arrays = {f"common.{name}": values for name, values in sorted(correction.common.items())}
    arrays["shifts"] = np.stack([correction.shifts[name] for name in names])
    arrays["matrices"] = np.stack([correction.matrices[name] for name in names])
    content = {"method": correction.method, "groups": names, "origin": origin}
    content["n_controls"] = [correction.n_controls[name] for name in names]
    save_arrays(path, SCHEMA, content, arrays, overwrite)


def load_correction(path: str | Path) -> tuple[Correction, dict[str, Any]]:
    """Load a correction; nothing in the file is executed.

    Returns
    -------
    correction : Correction
    content : dict
        The JSON of the file.

    Raises
    ------
    MissingInputError, InputError
        If there is no file, or another one.
    """
    content, arrays = load_arrays(path, SCHEMA, "a correction")
    try:
        names = content["groups"]
        common = {name.removeprefix("common."): values for name, values in arrays.items() if name.startswith("common.")}
        correction = Correction(
            content["method"],
            common,
            dict(zip(names, arrays["shifts"], strict=True)),
            dict(zip(names, arrays["matrices"], strict=True)),
            dict(zip(names, content["n_controls"], strict=True)),
        )
        fits = correction.method in METHODS and {"mean", "offset"} <= set(common)
    except (KeyError, TypeError, ValueError) as err:
        raise InputError(str(path), found=f"a damaged file ({err})", expected="a correction") from err
    if not fits:
        raise InputError(str(path), found=f"the method {correction.method!r}", expected=f"one of {', '.join(METHODS)}")
    return correction, content
