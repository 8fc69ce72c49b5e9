"""The learning rate over the steps of a run."""

from __future__ import annotations

import math

import pytest

from viscy_utils.training.schedule import warmup_cosine


def test_the_rate_rises_in_a_line_and_falls_along_half_a_cosine():
    factors = [warmup_cosine(step, 4, 12) for step in range(13)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    for step in range(4, 13):
        assert factors[step] == pytest.approx(math.cos(math.pi * (step - 4) / 16) ** 2)
    assert warmup_cosine(100, 4, 12) == pytest.approx(0, abs=1e-12)


def test_the_rise_may_begin_above_zero():
    assert [warmup_cosine(step, 2, 8, start=0.5) for step in range(3)] == [0.75, 1.0, 1.0]
    assert warmup_cosine(0, 0, 8, start=0.5) == 1.0
