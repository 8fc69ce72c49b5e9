"""Which patches are annotated, and with what: the dataset."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from viscy_data.batches.dataset import PatchDataset
from viscy_data.cell_classification.annotations import annotated_cells
from viscy_data.cells import cells_inside, check_fovs
from viscy_data.errors import raise_all
from viscy_data.patches import DEFAULT_CACHE_POOL_BYTES
from viscy_data.stores import FovInfo, describe_plate
from viscy_data.typing import INDEX_COLUMNS
from viscy_data.windows import PatchWindow

if TYPE_CHECKING:
    import pandas as pd
    from iohub.ngff import Plate

__all__ = ["ClassificationDataset"]

_LEVEL = "fov_statistics"


class ClassificationDataset(PatchDataset):
    """Patches of annotated cells, z-scored by the statistics of their FOV, and their labels.

    ``dataset[i]`` is a sample, ``dataset[[i, j]]`` a batch: the image (1, Z, Y, X) float32, the label (1,) float32
    and, with ``return_indices``, a dict of the index columns; in a batch (B, 1, Z, Y, X), (B, 1), and lists of B.

    Parameters
    ----------
    plate : iohub Plate or sequence of FovInfo
        The images.
    annotation : pandas.DataFrame
        ``fov_name``, ``t``, ``y``, ``x`` in pixels, the label and, when known, the other index columns.
    channel_name : str
        The channel to read.
    z_range : tuple of int
        First slice and the one after the last.
    transform : callable or sequence of callable, optional
        On the normalised image of each sample, (1, Z, Y, X). With one, which may turn, scale or crop, the cell is in
        the middle of what is read and what lies beyond the edge of the image is reflected; without, the patch is moved
        as far as the edge demands. MONAI's random transforms are seeded by the batch.
    initial_yx_patch_size : tuple of int
        Height and width to read.
    return_indices : bool, default False
        Return the index columns as well.
    label_column : str, default "infection_state"
        Column of the labels: whole numbers, or names of :mod:`viscy_data.labels`.
    cache_pool_bytes : int, default ``DEFAULT_CACHE_POOL_BYTES``
        Decoded chunks kept in memory.
    seed : int, default 0
        Of the transforms, together with the positions asked for.

    Attributes
    ----------
    labels : ndarray of int64, shape (N,)
        Class of each sample; -1 where it is not known.

    Raises
    ------
    InputError
        As :func:`annotated_cells`; and for a channel, slice or size that the images do not have.

    Warns
    -----
    UserWarning
        Counting annotations of no cell, cells outside their image, and FOVs without statistics, which are left as
        they are.
    """

    def __init__(
        self,
        plate: Plate | Sequence[FovInfo],
        annotation: pd.DataFrame,
        channel_name: str,
        z_range: tuple[int, int],
        transform: Callable | Sequence[Callable] | None,
        initial_yx_patch_size: tuple[int, int],
        return_indices: bool = False,
        label_column: str = "infection_state",
        *,
        cache_pool_bytes: int = DEFAULT_CACHE_POOL_BYTES,
        seed: int = 0,
    ) -> None:
        self._steps = [deepcopy(step) for step in ([transform] if callable(transform) else transform or ())]
        self.return_indices, self.label_column = return_indices, label_column
        window = PatchWindow(
            z_range,
            initial_yx_patch_size,
            # Seen from the cell alone, everything around it is a margin.
            (1, 1) if self._steps else None,
            where=type(self).__name__,
            read_name="initial_yx_patch_size",
        )
        raise_all(window.problems())
        fovs = describe_plate(plate)
        raise_all(check_fovs(fovs, [channel_name], window, "channel_name"))
        cells = cells_inside(fovs, annotated_cells(annotation, fovs, label_column), window)
        super().__init__(
            cells,
            cells["fov_index"].to_numpy(np.int64),
            fovs,
            [[fov.channel_names.index(channel_name)] for fov in fovs],
            [[channel_name]] * len(fovs),
            window.slices,
            window.read_size[1:],
            window.final_size[1:],
            keys=[channel_name],
            record_columns=INDEX_COLUMNS,
            cache_pool_bytes=cache_pool_bytes,
            seed=seed,
        )
        self.labels = cells["label"].to_numpy(np.int64)
        self._mean, self._std = self._moments(channel_name)

    def __len__(self) -> int:
        return len(self.cells)

    def choose(self, positions: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Take the cells asked for."""
        return {"anchor": positions}

    def __getitem__(self, position: int | Sequence[int]) -> tuple[Any, ...]:
        """Return a sample, or the batch of these positions."""
        if not isinstance(position, int | np.integer):
            return self.__getitems__(position)
        images, labels, *index = self.__getitems__([position])
        return images[0], labels[0], *({name: values[0] for name, values in columns.items()} for columns in index)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Any, ...]:
        """Return images (B, 1, Z, Y, X), labels (B, 1) and, if asked for, a dict of lists of the index columns."""
        batch = super().__getitems__(indices)
        rows = np.asarray(indices, np.int64)
        fov = self.fov_index[rows]
        images = (batch["anchor"] - self._mean[fov]) / self._std[fov]
        if self._steps:
            images = self._transformed(images, batch["rng_seed"])
        labels = torch.from_numpy(self.labels[rows]).float()[:, None]
        if not self.return_indices:
            return images, labels
        records = self.cells[self._record_columns].iloc[rows]
        return images, labels, {name: records[name].tolist() for name in records}

    def _transformed(self, images: Tensor, seed: int) -> Tensor:
        """Transform one sample after the other, each with a seed of its own."""
        seeds = np.random.SeedSequence(seed).generate_state(len(images) * len(self._steps)).tolist()
        done = []
        for image in images:
            for step in self._steps:
                own_seed = seeds.pop()
                if hasattr(step, "set_random_state"):  # one of MONAI, which workers without transforms do not import
                    step.set_random_state(seed=own_seed)
                image = step(image)
            done.append(torch.as_tensor(image).as_subclass(Tensor))
        return torch.stack(done)

    def _moments(self, channel: str) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation per FOV, (F, 1, 1, 1, 1); 0 and 1 where there are none, with a warning."""
        every = np.arange(len(self.fovs))
        levels = [sample.get(channel, {}).get(_LEVEL, {}) for sample in self.statistics.samples(every, 0 * every)]
        used = set(self.fov_index.tolist())
        missing = [
            self.fovs[n].name for n, level in enumerate(levels) if not {"mean", "std"} <= set(level) and n in used
        ]
        if missing:
            warnings.warn(
                f"{len(missing)} of {len(used)} FOVs have no {_LEVEL} of {channel!r} and are not normalised: "
                f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}; viscy preprocess computes them",
                stacklevel=3,
            )
        mean = torch.tensor([float(level.get("mean", 0)) for level in levels])
        std = torch.tensor([float(level.get("std", 0)) for level in levels])
        # An FOV without contrast has nothing to scale.
        shape = (-1, 1, 1, 1, 1)
        return mean.view(shape), torch.where(std > 0, std, 1.0).view(shape)
