"""What every batched random transform shares: draws per sample, an own generator, one draw for all keys.

A batched transform takes (B, C, Z, Y, X), or (B, C, Y, X), and treats every sample on its own: whether it is
transformed is decided per sample with probability ``prob``, and its parameters are drawn per sample. Parameters are
drawn on the CPU, so that a seed means the same on every device and nothing waits for a GPU.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

from viscy_transforms._blocks import blocks, empty, memory_format_of, one_by_one

__all__ = [
    "BatchedRandom",
    "BatchedRandomd",
    "as_range",
    "full_precision",
    "in_float",
    "may_be_nonfinite",
    "moved",
    "per_sample",
]

_MAX_SEED = 2**63 - 1
_WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}  # there and back, exactly


class BatchedRandom(RandomizableTransform):
    """Template of a random transform of a batch.

    A subclass says which parameters it needs (:meth:`_draw`) and what it does with them (:meth:`_transform`).

    Parameters
    ----------
    prob : float, default 0.1
        Probability of each sample to be transformed, independent of the others.

    Notes
    -----
    Random numbers come from the transform's own generator once :meth:`set_random_state` was called, directly or by
    MONAI's ``Compose``, and from torch's global generator before. A NaN stays where it is: it neither changes the
    parameters of its sample nor reaches further than the support of a filter.
    """

    computes = True
    """Whether values are computed (in float32 or float64), or only moved (any dtype)."""

    needs_field = False
    """Whether ``_transform`` needs random numbers for every pixel, which it draws from ``self._field``."""

    places = False
    """Whether parameters are places in the image, so that all keys must have its size."""

    takes_out = False
    """Whether ``_transform`` takes ``out=``, memory to write the result to, which saves a pass over it."""

    block_bytes = 16 << 20
    """How much of a batch a CPU works on at a time. Measured: benchmarks/transforms.py."""

    def __init__(self, prob: float = 0.1) -> None:
        if not 0.0 <= prob <= 1.0:
            raise ValueError(f"prob of {type(self).__name__} is {prob}, expected a probability between 0 and 1")
        super().__init__(prob)
        self._generator: torch.Generator | None = None
        self._selected = torch.zeros(0, dtype=torch.bool)
        self._parameters: tuple[Tensor, ...] = ()
        self._size: tuple[int, ...] = ()
        self._field_seed = 0
        self._field: torch.Generator | None = None

    def set_random_state(
        self,
        seed: int | None = None,
        state: np.random.RandomState | None = None,
        generator: torch.Generator | None = None,
    ) -> BatchedRandom:
        """Give the transform a generator of its own, seeded from MONAI's random state, or the one passed.

        Parameters
        ----------
        seed : int, optional
            Same seed, same draws.
        state : numpy.random.RandomState, optional
            Alternative to the seed. Without seed, state and generator the seed comes from the operating system.
        generator : torch.Generator, optional
            To draw from instead; on the CPU, where parameters are drawn for data on any device.

        Raises
        ------
        ValueError
            If the generator belongs to another device.
        """
        if generator is not None:
            if generator.device.type != "cpu":
                raise ValueError(f"generator is on {generator.device}, expected one on the CPU")
            self._generator = generator
            return self
        super().set_random_state(seed=seed, state=state)
        self._generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        return self

    def randomize(self, data: Tensor) -> None:
        """Draw for every sample whether it is transformed, and the parameters.

        Parameters
        ----------
        data : Tensor, shape (B, C, ...)
            Only its shape is used.
        """
        self._selected, self._size = self._rand(data.shape[0]) < self.prob, tuple(data.shape[2:])
        with torch.autocast("cpu", enabled=False):  # matrices of 16 bit would miss the pixel
            self._parameters = self._draw(data)
        self._field_seed = self._seed() if self.needs_field else 0
        self._do_transform = any(self._selected.tolist())

    def __call__(self, data: Tensor, randomize: bool = True) -> Tensor:
        """Transform the samples that were selected.

        Parameters
        ----------
        data : Tensor, shape (B, C, Z, Y, X) or (B, C, Y, X)
            Not modified; returned itself when no sample was selected.
        randomize : bool, default True
            Whether to draw anew or to use the last draw again.

        Returns
        -------
        Tensor
            Same dtype and memory format; integers become float32 where values are computed.
        """
        if randomize:
            self.randomize(data)
        if len(self._selected) != data.shape[0]:
            raise ValueError(
                f"{type(self).__name__} was drawn for a batch of {len(self._selected)}, found {data.shape[0]}"
            )
        if self.places and tuple(data.shape[2:]) != self._size:
            raise ValueError(
                f"{type(self).__name__} was drawn for images of {self._size}, found {tuple(data.shape[2:])}; "
                "all keys need one size"
            )
        if not any(self._selected.tolist()):
            return data
        if self.needs_field:
            # Anew for every key, so that keys of one shape get one pattern on whatever device they are.
            self._field = torch.Generator(data.device).manual_seed(self._field_seed)
        with full_precision(data):
            out = self._in_blocks(data) if self.computes else moved(data, self._in_blocks)
        self._field = None
        return out

    def _in_blocks(self, data: Tensor) -> Tensor:
        memory_format = memory_format_of(data)
        selected = blocks(self._selected, data, self.block_bytes)
        if selected == [slice(0, len(data))] and not (self.takes_out and one_by_one(data)):
            return self._apply(data, self._parameters).contiguous(memory_format=memory_format)
        dtype = torch.float32 if self.computes and not data.is_floating_point() else data.dtype
        out = empty(self._shape(data), dtype, data, memory_format)
        for rows in selected:
            self._transform_rows(data, rows, out)
        for rows in blocks(~self._selected, data, self.block_bytes):
            if isinstance(rows, slice):
                out[rows].copy_(data[rows])
            else:
                rows = rows.to(data.device, non_blocking=True)
                out.index_copy_(0, rows, data.index_select(0, rows).to(dtype))
        return out

    def _transform_rows(self, data: Tensor, rows: slice | Tensor, out: Tensor) -> None:
        """Transform some samples into their places in ``out``."""
        parameters = tuple(parameter[rows] for parameter in self._parameters)
        if isinstance(rows, slice):
            place = out[rows]
            changed = self._apply(data[rows], parameters, None if data.requires_grad else place)
            if changed is not place:
                place.copy_(changed)
        else:
            rows = rows.to(data.device, non_blocking=True)
            out.index_copy_(0, rows, self._apply(data.index_select(0, rows), parameters))

    def _apply(self, data: Tensor, parameters: tuple[Tensor, ...], out: Tensor | None = None) -> Tensor:
        working = in_float(data) if self.computes else data
        parameters = tuple(parameter.to(data.device, non_blocking=True) for parameter in parameters)
        if self.computes:
            parameters = tuple(p.to(working.dtype) if p.is_floating_point() else p for p in parameters)
        fits = self.takes_out and out is not None and out.dtype == working.dtype
        changed = self._transform(working, *parameters, **({"out": out} if fits else {}))
        return changed.to(data.dtype) if data.is_floating_point() else changed

    def _shape(self, data: Tensor) -> tuple[int, ...]:
        """Return the shape of the result."""
        return tuple(data.shape)

    @abstractmethod
    def _draw(self, data: Tensor) -> tuple[Tensor, ...]:
        """Return parameters, each on the CPU with the batch as its first axis."""

    @abstractmethod
    def _transform(self, data: Tensor, *parameters: Tensor) -> Tensor:
        """Return a new tensor for the selected samples and their parameters, or ``out`` filled if that was given."""

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._generator)

    def _uniform(self, shape: int | tuple[int, ...], low: float, high: float) -> Tensor:
        return self._rand(*((shape,) if isinstance(shape, int) else shape)) * (high - low) + low

    def _seed(self) -> int:
        """Draw a seed for the field of random numbers, which is made on the device of the data."""
        return torch.randint(_MAX_SEED, (1,), generator=self._generator).tolist()[0]


class BatchedRandomd(MapTransform, RandomizableTransform):
    """Dictionary form of a batched random transform: one draw, applied to every key.

    Parameters
    ----------
    keys : str or iterable of str
        Entries to transform; they hold batches of the same size.
    transform : BatchedRandom
        What is applied.
    allow_missing_keys : bool, default False
        Whether absent keys are passed over.
    """

    def __init__(self, keys: str | Iterable[str], transform: BatchedRandom, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, transform.prob)
        self.transform = transform

    def set_random_state(
        self,
        seed: int | None = None,
        state: np.random.RandomState | None = None,
        generator: torch.Generator | None = None,
    ) -> BatchedRandomd:
        """Seed the transform; see :meth:`BatchedRandom.set_random_state`."""
        if generator is not None:
            self.transform.set_random_state(generator=generator)
            return self
        super().set_random_state(seed=seed, state=state)
        self.transform.set_random_state(seed=int(self.R.randint(2**31)))
        return self

    def randomize(self, data: Mapping[Hashable, Any]) -> None:
        """Draw for the batch of the first key that is there."""
        self.transform.randomize(data[self.first_key(data)])

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Transform the keys alike.

        Parameters
        ----------
        sample : dict
            Batches under ``keys``, anything under other keys. Not modified.

        Returns
        -------
        dict
            A new dictionary.
        """
        out = dict(sample)
        keys = list(self.key_iterator(out))
        if keys:
            self.randomize(out)
        for key in keys:
            out[key] = self.transform(out[key], randomize=False)
        return out


def per_sample(parameter: Tensor, data: Tensor) -> Tensor:
    """View a parameter of shape (B,) or (B, C) so that it broadcasts against (B, C, ...)."""
    return parameter.reshape(*parameter.shape, *(1,) * (data.ndim - parameter.ndim))


def full_precision(data: Tensor) -> AbstractContextManager:
    """Make a context in which autocast leaves alone what is done to a tensor."""
    device = data.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()


def moved(data: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Move pixels about in a type that torch has the operations for: unsigned integers go through wider ones."""
    wider = _WIDER.get(data.dtype)
    return move(data) if wider is None else move(data.to(wider)).to(data.dtype)


def in_float(data: Tensor) -> Tensor:
    """Return the tensor in a precision to compute in: float32, or float64 as it is."""
    return data if data.dtype in (torch.float32, torch.float64) else data.float()


def may_be_nonfinite(data: Tensor) -> bool:
    """Say whether to expect NaN or infinity: looked up on the CPU, and taken for granted where asking would wait."""
    return data.device.type != "cpu" or not np.isfinite(data.detach().sum().numpy())


def as_range(name: str, value: float | Sequence[float], symmetric: bool = False) -> tuple[float, float]:
    """Read a range that may be given as one number.

    Parameters
    ----------
    name : str
        Of the argument, for the message.
    value : float or sequence of two floats
        A number x is the range (x, x), or (-abs(x), abs(x)) when symmetric. A pair is sorted.
    symmetric : bool, default False
        What one number means.

    Raises
    ------
    ValueError
        If the value is neither a number nor a pair of numbers.
    """
    if isinstance(value, int | float | np.number):
        return (-abs(float(value)), abs(float(value))) if symmetric else (float(value), float(value))
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray) or len(value) != 2:
        raise ValueError(f"{name} is {value!r}, expected a number or a pair (low, high)")
    low, high = sorted(float(bound) for bound in value)
    return low, high
