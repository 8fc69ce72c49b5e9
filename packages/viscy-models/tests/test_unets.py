"""U-Nets: keys, numbers, what each option does and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import viscy_models
from viscy_models import Unet2d, Unet25d

GOLDEN = Path(__file__).parent / "golden" / "unet"


@pytest.mark.parametrize("case", sorted(path.stem for path in GOLDEN.glob("Unet*.json")))
def test_keys_shapes_and_outputs_are_those_of_published_checkpoints(case, fill, signed):
    golden = json.loads((GOLDEN / f"{case}.json").read_text())
    model = getattr(viscy_models, golden["model"])(**golden["kwargs"])
    state = [[key, [list(v.shape), str(v.dtype).removeprefix("torch.")]] for key, v in model.state_dict().items()]
    assert state == [[key, entry] for key, entry in golden["state_dict"].items()]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == golden["n_params"]
    with torch.no_grad():
        output = fill(model)(signed(golden["input"])).numpy()
    expected = np.load(GOLDEN / f"{case}.npz")["output"]
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("task", ["seg", "reg"])
@pytest.mark.parametrize("filters", [(), None, [4, 6, 8]])
def test_any_rectangle_of_whole_blocks_keeps_its_size(task, filters):
    options = {"in_channels": 2, "out_channels": 3, "num_blocks": 2, "num_filters": filters, "task": task}
    assert Unet2d(**options).eval()(torch.rand(2, 2, 1, 8, 12)).shape == (2, 3, 1, 8, 12)
    model = Unet25d(in_stack_depth=4, out_stack_depth=2, **options).eval()
    assert model(torch.rand(2, 2, 4, 8, 12)).shape == (2, 3, 2, 8, 12)


def test_as_many_slices_may_come_out_as_go_in():
    model = Unet25d(in_stack_depth=3, out_stack_depth=3, num_blocks=1, num_filters=(2, 3)).eval()
    assert model.bottom_transition_block.kernel_size == (1, 1, 1)
    assert model(torch.rand(1, 1, 3, 4, 4)).shape == (1, 1, 3, 4, 4)


def test_what_is_kept_of_the_shallowest_level_meets_the_last_block():
    """With one level the whole network can be written down."""
    model = Unet2d(num_blocks=1, num_filters=(3, 4), task="reg").eval()
    x = torch.rand(1, 1, 1, 8, 8)
    top = model.down_conv_block_0(x[:, :, 0])
    bottom = model.bottom_transition_block(nn.functional.avg_pool2d(top, 2))
    up = nn.functional.interpolate(bottom, scale_factor=2, mode="bilinear", align_corners=False)
    expected = model.terminal_block(model.up_conv_block_0(torch.cat([up, top], 1)))[:, :, None]
    torch.testing.assert_close(model(x), expected)


def test_segmentation_ends_in_a_rectifier():
    x = torch.randn(2, 1, 1, 8, 8)
    seg, reg = (Unet2d(num_blocks=1, num_filters=(2, 3), task=task).eval() for task in ("seg", "reg"))
    reg.load_state_dict(seg.state_dict())
    torch.testing.assert_close(seg(x), reg(x).relu())


@pytest.mark.parametrize("make", [Unet2d, Unet25d])
@pytest.mark.parametrize("kernel", [5, [5, 5], (5, 5)])
def test_kernel_sizes_may_be_numbers_or_lists(make, kernel):
    name = "kernel_size" if make is Unet2d else "xy_kernel_size"
    model = make(num_blocks=1, num_filters=(2, 3), **{name: kernel})
    shapes = {key: tuple(v.shape) for key, v in model.state_dict().items()}
    assert [shape[-2:] for key, shape in shapes.items() if ".Conv" in key and "terminal" not in key][::2] == [
        (5, 5)
    ] * (6 if make is Unet2d else 4)


@pytest.mark.parametrize("make", [Unet2d, Unet25d])
def test_dropout_acts_in_training_and_not_in_evaluation(make):
    torch.manual_seed(0)
    model = make(num_blocks=1, num_filters=(4, 6), dropout=0.4, task="reg")
    x = torch.rand(2, 1, 1 if make is Unet2d else 5, 8, 8)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
    steady = make(num_blocks=1, num_filters=(4, 6), dropout=0.0, task="reg")
    assert torch.equal(steady(x), steady(x))


@pytest.mark.parametrize("make", [Unet2d, Unet25d])
def test_modules_keep_the_name_of_their_class(make):
    assert make.__name__ == type(make(num_blocks=1)).__name__
    assert "__name__" not in vars(make)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_filters": (4, 8)}, "num_filters has 2 numbers, expected 3: one for each of num_blocks = 2 levels"),
        ({"num_filters": (4, 0, 8)}, "a number of num_filters is 0"),
        ({"task": "segm"}, r"task is 'segm' \(did you mean 'seg'\?\), expected one of seg, reg"),
        ({"dropout": -0.1}, "dropout is -0.1, expected a rate from 0 to"),
        ({"dropout": 1.2}, "dropout is 1.2"),
        ({"num_blocks": 0}, "num_blocks is 0"),
        ({"num_block_layers": 0}, "num_block_layers is 0"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"out_channels": 0}, "out_channels is 0"),
    ],
)
@pytest.mark.parametrize("make", [Unet2d, Unet25d])
def test_wrong_arguments_fail_at_construction(make, changes, message):
    with pytest.raises(ValueError, match=message):
        make(**{"num_blocks": 2, **changes})


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Unet2d, {"kernel_size": (3, 2)}, r"kernel_size is \(3, 2\), expected an odd number or 2 of them"),
        (Unet25d, {"xy_kernel_size": [3, 3, 3]}, "xy_kernel_size is"),
        (Unet25d, {"dropout": 0.6}, "dropout is 0.6, expected a rate from 0 to 0.5"),
        (Unet25d, {"in_stack_depth": 3, "out_stack_depth": 5}, "out_stack_depth is 5, expected at most .* = 3"),
        (Unet25d, {"out_stack_depth": 0}, "out_stack_depth is 0"),
    ],
)
def test_wrong_arguments_of_one_of_them(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


@pytest.mark.parametrize("size", [(2, 1, 16, 16), (1, 2, 16, 16), (1, 1, 18, 16), (1, 1, 16, 6), (1, 16, 16)])
def test_an_input_of_another_shape_is_explained(size):
    expected = r"found an input of shape .*, expected \(B, 1 channels, {} z slices, Y, X\).* multiple of 4"
    with pytest.raises(ValueError, match=expected.format(1)):
        Unet2d(num_blocks=2)(torch.rand(1, *size))
    with pytest.raises(ValueError, match=expected.format(3)):
        Unet25d(num_blocks=2, in_stack_depth=3)(torch.rand(1, *size))


@pytest.mark.parametrize("make", [Unet2d, Unet25d])
def test_checkpointed_blocks_drop_the_same_channels_twice(make):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = make(num_blocks=1, num_filters=(4, 6), dropout=0.4, task="reg", gradient_checkpointing=checkpointing)
        x = torch.rand(2, 1, 1 if make is Unet2d else 5, 8, 8)
        model(x).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1])
