"""Corrections as a step of a probe, fitted on the controls of each fold's training cells alone."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from viscy_utils.evaluation.correction import Correction, Method, fit_correction

__all__ = ["FoldCorrection"]

_EXTRA = 2  # columns behind the features: group, control


class FoldCorrection(TransformerMixin, BaseEstimator):
    """Fit a correction on the controls among training cells, and correct cells.

    Parameters
    ----------
    method : {"center", "standardize", "tvn", "lot"}
        See `viscy_utils.evaluation.correction.fit_correction`.

    Attributes
    ----------
    correction_ : Correction
        After `fit`.
    """

    def __init__(self, method: Method = "center") -> None:
        self.method = method

    @staticmethod
    def pack(features: np.ndarray, groups: np.ndarray, controls: np.ndarray) -> np.ndarray:
        """Put what the step needs beside the features: (N, F) -> (N, F + 2), float64."""
        codes = np.unique(groups, return_inverse=True)[1]
        return np.column_stack([features, codes, controls]).astype(np.float64)

    def fit(self, X: np.ndarray, y: object = None) -> FoldCorrection:
        """Fit the controls among packed cells."""
        features, groups, controls = self._unpacked(X)
        self.correction_: Correction = fit_correction(features, groups, controls, self.method)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Correct packed cells: (N, F + 2) -> (N, F), float32."""
        features, groups, _ = self._unpacked(X)
        return self.correction_.apply(features, groups)

    @staticmethod
    def _unpacked(X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return X[:, :-_EXTRA], X[:, -_EXTRA].astype(int).astype(str), X[:, -1].astype(bool)
