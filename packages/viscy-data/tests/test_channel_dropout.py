import pytest
import torch

from viscy_data.channel_dropout import ChannelDropout


def empty_channels(x):
    return (x == 0).flatten(2).all(dim=2)


def test_each_listed_channel_of_each_sample_is_dropped_with_probability_p():
    x = torch.ones(4000, 3, 2)
    gone = empty_channels(ChannelDropout([1, 2], p=0.3)(x, torch.Generator().manual_seed(0))).float()
    assert gone[:, 0].sum() == 0
    assert gone[:, 1:].mean(dim=0) == pytest.approx([0.3, 0.3], abs=0.03)
    assert (gone[:, 1] * gone[:, 2]).mean() == pytest.approx(0.09, abs=0.02)
    assert (x == 1).all()


def test_off_unless_training():
    x = torch.ones(4, 2, 1, 3, 3)
    assert ChannelDropout([1], p=1.0).eval()(x) is x
    assert ChannelDropout([1], p=0.0)(x) is x
    assert ChannelDropout([], p=1.0)(x) is x


@pytest.mark.parametrize("n_channels", [1, 2, 5])
def test_no_sample_loses_all_channels(n_channels):
    gone = empty_channels(ChannelDropout(list(range(n_channels)), p=1.0)(torch.ones(200, n_channels, 4)))
    assert (gone.sum(dim=1) == n_channels - 1).all()
    if n_channels > 1:
        # which one stays is a fair choice
        assert (~gone).float().mean(dim=0) == pytest.approx([1 / n_channels] * n_channels, abs=0.15)


def test_the_channel_that_stays_is_one_with_content():
    x = torch.ones(50, 3, 4)
    mask = torch.ones(50, 3, dtype=torch.bool)
    mask[:, 0] = False
    x[:, 0] = 0
    gone = empty_channels(ChannelDropout([1, 2], p=1.0)(x, mask=mask))
    assert (gone[:, 1:].sum(dim=1) == 1).all()


def test_a_sample_without_content_is_left_to_itself():
    out = ChannelDropout([0, 1], p=1.0)(torch.zeros(3, 2, 4), mask=torch.zeros(3, 2, dtype=torch.bool))
    assert (out == 0).all()


def test_fill_dtype_and_generator():
    dropout = ChannelDropout([0], p=1.0, fill=-1.5)
    out = dropout(torch.ones(2, 2, 3, dtype=torch.float16))
    assert out.dtype == torch.float16
    assert (out[:, 0] == -1.5).all()
    draws = [ChannelDropout([0], p=0.5)(torch.ones(64, 2, 1), torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*draws)


def test_a_given_generator_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    ChannelDropout([0], p=0.5)(torch.ones(8, 2, 1), torch.Generator())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("p", [-1, 7, 1.01, float("nan")])
def test_probabilities_outside_the_unit_interval_are_refused(p):
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        ChannelDropout([0], p=p)


@pytest.mark.parametrize("channels", [[-1], [1, 1]])
def test_impossible_channels_are_refused(channels):
    with pytest.raises(ValueError, match="distinct positions"):
        ChannelDropout(channels)


def test_a_channel_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="channel 5 does not exist, the images have 2"):
        ChannelDropout([5])(torch.ones(1, 2, 3))
