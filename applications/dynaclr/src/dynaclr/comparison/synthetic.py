"""Label images of simulated cells in which one class is rare: something to compare losses on, without a file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from viscy_data.synthetic import ExperimentSpec, render_fov, simulate_tracks

__all__ = ["LabelImages", "LabelImagesDataModule"]

_FOV_PX = 192


class LabelImages(Dataset):
    """Label images in memory.

    Parameters
    ----------
    maps : ndarray, shape (N, 1, 1, Y, X), float32
        Whole numbers.
    """

    def __init__(self, maps: NDArray[np.float32]) -> None:
        self.maps = torch.from_numpy(maps)

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, number: int) -> dict[str, object]:
        """Return ``anchor`` (1, 1, Y, X) and ``index``, the number of the image."""
        return {"anchor": self.maps[number], "index": {"id": number}}


class LabelImagesDataModule(LightningDataModule):
    """Patches around simulated cells, cut into classes by the brightness of a reporter.

    The shares of the classes over the pixels of a split are those asked for: with the default ones the brightest
    7 % of the pixels, which with the reporter ``nucleus`` are nuclei, are class 1.

    Parameters
    ----------
    shares : sequence of float, default (0.93, 0.07)
        Of the pixels that each class has, darkest first.
    n_train, n_val : int, default 256 and 128
        Images, of different FOVs.
    patch_size : int, default 24
        Pixels in Y and X.
    batch_size : int, default 16
    seed : int, default 0
        Of the simulation; the order of the training images follows the global seed.
    reporter : str, default "nucleus"
        A key of `viscy_data.synthetic.REPORTERS`.

    Raises
    ------
    ValueError
        For shares that are not positive or do not add up to 1, and sizes that are not positive.
    """

    def __init__(
        self,
        shares: Sequence[float] = (0.93, 0.07),
        n_train: int = 256,
        n_val: int = 128,
        patch_size: int = 24,
        batch_size: int = 16,
        seed: int = 0,
        reporter: str = "nucleus",
    ) -> None:
        super().__init__()
        if len(shares) < 2 or min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ValueError(
                f"shares: found {list(shares)}, expected positive numbers, one per class, that add up to 1"
            )
        for name, value in (("n_train", n_train), ("n_val", n_val), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name}: found {value}, expected at least 1")
        if not 1 <= patch_size <= _FOV_PX:
            raise ValueError(f"patch_size: found {patch_size}, expected 1 to {_FOV_PX}")
        self.save_hyperparameters()
        self.shares, self.seed, self.reporter = tuple(shares), seed, reporter
        self.n_train, self.n_val = n_train, n_val
        self.patch_size, self.batch_size = patch_size, batch_size
        self._train: LabelImages | None = None
        self._val: LabelImages | None = None

    def setup(self, stage: str | None = None) -> None:
        """Simulate the images, once."""
        if self._train is not None:
            return
        self._train, self._val = self._label("train", self.n_train), self._label("val", self.n_val)

    def train_dataloader(self) -> DataLoader:
        """Return shuffled training images."""
        return DataLoader(self._train, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Return validation images in order."""
        return DataLoader(self._val, self.batch_size)

    def predict_dataloader(self) -> DataLoader:
        """Return validation images in order."""
        return self.val_dataloader()

    def _label(self, split: str, n: int) -> LabelImages:
        images = self._simulate(split, n)
        levels = np.quantile(images, np.cumsum(self.shares)[:-1])
        return LabelImages(np.digitize(images, levels).astype(np.float32))

    def _simulate(self, split: str, n: int) -> NDArray[np.float32]:
        """Render FOVs until there are n patches of the reporter, (n, 1, 1, Y, X)."""
        spec = ExperimentSpec(
            split,
            reporter=self.reporter,
            fovs_per_well=n,  # more than enough
            n_frames=6,
            n_cells=16,
            shape=(1, _FOV_PX, _FOV_PX),
            interval_minutes=60.0,
        )
        patches: list[NDArray[np.float32]] = []
        fovs = iter(spec.fov_conditions)
        while len(patches) < n:
            name = next(fovs)
            truth = simulate_tracks(spec, name, seed=self.seed)
            movie = render_fov(spec, truth, name, seed=self.seed)[:, spec.channel_names.index(spec.reporter_channel)]
            patches += [self._cut(movie[int(cell.t)], cell.y, cell.x) for cell in truth.itertuples()]
        stacked = np.stack(patches[:n])[:, None]
        # Pixels are whole counts; a fraction decides between equal ones, so that a class gets its share.
        return stacked + np.random.default_rng(self.seed).random(stacked.shape, dtype=np.float32)

    def _cut(self, stack: NDArray[np.float32], y: float, x: float) -> NDArray[np.float32]:
        """Cut the patch around a cell out of (1, Y, X), moved inside at the border."""
        size = self.patch_size
        top, left = (int(np.clip(round(center) - size // 2, 0, _FOV_PX - size)) for center in (y, x))
        return stack[:, top : top + size, left : left + size]
