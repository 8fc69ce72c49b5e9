"""Stacking channels, splitting batches."""

from __future__ import annotations

import pytest
import torch

import viscy_transforms as vt


def test_channels_are_stacked_in_the_order_of_the_map(signed):
    sample = {name: signed((1, 2, 3, 4), name) for name in ("a", "b", "c")}
    out = vt.StackChannelsd({"source": ["b", "a"], "target": "c"})({**sample, "index": 0})
    assert list(out) == ["source", "target"]
    assert torch.equal(out["source"], torch.cat([sample["b"], sample["a"]]))
    assert torch.equal(out["target"], sample["c"])


def test_channels_of_batches_are_stacked_as_channels(signed):
    x = signed((5, 1, 2, 3, 4))
    assert vt.StackChannelsd({"source": ["a", "b"]})({"a": x, "b": x})["source"].shape == (5, 2, 2, 3, 4)


def test_a_missing_channel_is_named(signed):
    with pytest.raises(KeyError, match="phase"):
        vt.StackChannelsd({"source": "phase"})({"a": signed((1, 2, 3, 4))})


def test_a_batch_is_split_into_its_samples(batch):
    samples = vt.Decollate()(batch)
    assert len(samples) == 8
    assert all(torch.equal(torch.as_tensor(one), other) for one, other in zip(samples, batch, strict=True))
