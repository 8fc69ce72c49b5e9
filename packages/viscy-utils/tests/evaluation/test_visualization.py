"""Pictures of reconstructions and of nearest neighbours."""

from __future__ import annotations

import random
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from viscy_utils.evaluation.image_tiles import contrast_limits
from viscy_utils.evaluation.model_outputs import evaluating, run_model
from viscy_utils.evaluation.reconstruction_tiles import mean_ssim, sharpest_slice
from viscy_utils.evaluation.visualization import draw_outputs, plot_reconstructions

pyplot = pytest.importorskip("matplotlib.pyplot")
structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity

Named = namedtuple("Named", ["reconstruction", "mu"])


@dataclass
class Record:
    recon_x: torch.Tensor


class Model(nn.Module):
    """Returns ``form(images * factor)``."""

    def __init__(self, form=lambda image: image, factor=0.5):
        super().__init__()
        self.form, self.factor = form, nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        assert not self.training
        assert not torch.is_grad_enabled()
        return self.form(x * self.factor)


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def shown(axes):
    return np.asarray(axes.images[0].get_array())


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


FORMS = {
    "tensor": lambda image: image,
    "tuple": lambda image: (image.mean((2, 3, 4)), image),
    "recon_x": lambda image: {"mu": image, "recon_x": image},
    "reconstruction": lambda image: {"latent": torch.zeros(len(image), 3), "reconstruction": image},
    "namespace": lambda image: SimpleNamespace(recon_x=image, mean=torch.zeros(len(image), 3), loss=None),
    "named tuple": lambda image: Named(image, torch.zeros(len(image), 3)),
    "dataclass": Record,
    "without z": lambda image: image[:, :, 0],
    "bfloat16": lambda image: image.bfloat16(),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_output_is_understood(form, tmp_path):
    x = images(3, 1, 1, 12, 14)
    path = tmp_path / "new" / "picture.png"
    figure = plot_reconstructions(Model(FORMS[form]), [x], "cpu", save_path=path, show=False)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(figure.axes) == 9
    for sample in range(3):
        left, middle, right = figure.axes[3 * sample : 3 * sample + 3]
        np.testing.assert_allclose(shown(left), x[sample, 0, 0], rtol=1e-6)
        np.testing.assert_allclose(shown(middle), x[sample, 0, 0] / 2, rtol=1e-2)
        np.testing.assert_allclose(shown(right), -x[sample, 0, 0] / 2, rtol=1e-2)
        assert left.images[0].get_clim() == middle.images[0].get_clim()


BATCHES = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, torch.zeros(len(x), dtype=torch.long)),
    "list": lambda x: [x],
    "anchor": lambda x: {"anchor": x, "positive": x + 1, "index": [{}] * len(x)},
    "source": lambda x: {"index": [0] * len(x), "source": x},
    "of several loaders": lambda x: {"first": {"image": x}, "second": {"image": x + 1}},
}


@pytest.mark.parametrize("form", BATCHES)
def test_any_form_of_batch_is_understood(form):
    x = images(5, 1, 12, 14)
    figure = plot_reconstructions(Model(), [BATCHES[form](x[:2]), BATCHES[form](x[2:])], "cpu", 3, show=False)
    np.testing.assert_allclose([shown(axes) for axes in figure.axes[::3]], x[:3, 0], rtol=1e-6)


def test_titles_hold_the_error_and_the_similarity_of_the_whole_stack():
    x = images(2, 2, 3, 16, 18)
    noise = images(2, 2, 3, 16, 18, seed=1) / 5
    figure = plot_reconstructions(Model(lambda image: image + noise, 1.0), [x], "cpu", show=False)
    true, made = x.double().numpy(), (x + noise).double().numpy()
    for sample in range(2):
        errors, similarities = [], []
        for channel in range(2):
            a, b = true[sample, channel], made[sample, channel]
            errors.append(((a - b) ** 2).mean())
            span = a.max() - a.min()
            similarities.append(np.mean([structural_similarity(a[z], b[z], data_range=span) for z in range(3)]))
            title = figure.axes[6 * sample + 3 * channel + 1].get_title()
            assert f"MSE {errors[-1]:.3g}  SSIM {similarities[-1]:.3f}" in title
        overall = figure.axes[6 * sample].get_title()
        assert f"MSE {np.mean(errors):.3g}  SSIM {np.mean(similarities):.3f}" in overall


def test_the_slice_with_most_contrast_is_shown():
    x = images(1, 2, 7, 12, 12) * 0.01
    x[0, 0, 5, 3:8, 3:8] += 1
    figure = plot_reconstructions(Model(), [x], "cpu", show=False)
    assert "z 5 of 0-6" in figure.axes[0].get_title()
    np.testing.assert_allclose(shown(figure.axes[0]), x[0, 0, 5])
    np.testing.assert_allclose(shown(figure.axes[3]), x[0, 1, 5])


def test_a_bright_channel_does_not_outweigh_the_others_in_the_choice_of_the_slice():
    dim, bright = np.random.default_rng(0).random((2, 1, 5, 6, 6))
    dim[0, 1] *= 20
    volume = np.concatenate([dim, dim, 1000 * (bright + 5)])
    assert sharpest_slice(volume) == 1
    assert sharpest_slice(np.zeros((2, 5, 6, 6))) == 2
    assert sharpest_slice(np.full((1, 4, 6, 6), np.nan)) in (1, 2)


@pytest.mark.parametrize("form", ["one channel", "no channel axis", "one-hot", "floating point"])
def test_class_maps_are_compared_by_accuracy(form):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, 4, 9, 9), generator=generator)
    guesses = torch.randint(0, 3, (2, 4, 9, 9), generator=generator)
    logits = nn.functional.one_hot(guesses, 3).movedim(-1, 1) * 4.0 - 2
    one_hot = nn.functional.one_hot(labels, 3).movedim(-1, 1).float()
    inputs = {"one channel": labels[:, None], "no channel axis": labels, "one-hot": one_hot}
    x = inputs.get(form, labels[:, None].float())
    figure = plot_reconstructions(Model(lambda _: {"recon_x": logits}), [x], "cpu", show=False)
    assert len(figure.axes) == 6
    for sample in range(2):
        left, middle, right = figure.axes[3 * sample : 3 * sample + 3]
        accuracy = np.mean([a == b for a, b in zip(labels[sample].flatten(), guesses[sample].flatten(), strict=True)])
        assert f"accuracy {accuracy:.1%}" in middle.get_title()
        np.testing.assert_array_equal(shown(right), shown(left) != shown(middle))


def test_a_target_that_is_not_the_input_is_shown_beside_it():
    x, y = images(2, 1, 5, 12, 12), images(2, 2, 1, 12, 12, seed=1)
    model = Model(lambda image: image[:, :, :1].expand(-1, 2, -1, -1, -1))
    figure = plot_reconstructions(model, [{"source": x, "target": y}], "cpu", show=False)
    first = figure.axes[:4]
    assert [axes.get_title().split("\n")[0] for axes in first] == ["input", "target 1", "reconstruction", "difference"]
    np.testing.assert_allclose(shown(first[1]), y[0, 0, 0])
    error = ((y[0] - x[0, :, :1] / 2) ** 2).mean()
    assert f"MSE {error:.3g}" in first[1].get_title()


def test_modes_gradients_device_and_random_state_are_left_as_they_were():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Dropout(0.5), Model())
    model.train()
    model[1].eval()  # frozen
    modes = [module.training for module in model.modules()]
    statistics = {name: value.clone() for name, value in model.state_dict().items()}
    loader = DataLoader(TensorDataset(images(8, 1, 8, 8)), batch_size=2, shuffle=True)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    first = plot_reconstructions(model, loader, "cpu", 4, show=False)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, statistics[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    torch.rand(7)
    assert titles(first) == titles(plot_reconstructions(model, loader, "cpu", 4, show=False))


def test_modes_are_put_back_when_the_model_fails():
    model = nn.Sequential(nn.Dropout(), nn.Linear(3, 3)).train()
    with pytest.raises(RuntimeError, match="shape"):
        plot_reconstructions(model, [images(2, 1, 8, 8)], "cpu", show=False)
    assert all(module.training for module in model.modules())


def test_parts_are_not_told_to_train():
    """``train`` of a module may do more than set a flag: freezing, merging weights."""

    class Frozen(nn.Module):
        def train(self, mode=True):
            raise AssertionError("nobody asked for that")

    model = Frozen()
    with evaluating(model):
        assert not model.training
    assert model.training


@pytest.mark.parametrize(
    ("model", "batches", "number", "message"),
    [
        (Model(), [], 6, "empty"),
        (Model(), [images(2, 1, 8, 8)], 0, "num_samples must be at least 1, found 0"),
        (Model(lambda image: image.flatten(1)), [images(2, 1, 8, 8)], 2, r"no images of the size of its input \(1, 8"),
        (
            Model(lambda image: {"recon_x": image[..., 1:]}),
            [images(2, 1, 8, 8)],
            2,
            r"recon_x: found shape \(2, 1, 8, 7",
        ),
        (Model(lambda image: image.expand(-1, 3, -1, -1)), [images(2, 1, 8, 8)], 2, "3 channels and its target 1"),
        (Model(), [{"index": 3}], 2, "no images in a batch with the keys index"),
        (Model(), ["text"], 2, "no images in a batch of type str"),
        (Model(lambda image: None), [images(2, 1, 8, 8)], 2, "returned NoneType with neither images"),
    ],
)
def test_what_cannot_be_drawn_is_refused(model, batches, number, message):
    with pytest.raises(ValueError, match=message):
        plot_reconstructions(model, batches, "cpu", number, show=False)


def test_awkward_values_are_drawn(tmp_path):
    x = torch.stack([torch.zeros(2, 8, 8), torch.full((2, 8, 8), torch.nan), torch.rand(2, 8, 8)])
    x[2, 0, 0, 0] = torch.inf
    figure = plot_reconstructions(Model(), [x], "cpu", save_path=tmp_path / "a.png", show=False)
    assert "MSE 0  SSIM 1.000" in figure.axes[1].get_title()
    assert "MSE nan  SSIM nan" in figure.axes[7].get_title()
    tiny = plot_reconstructions(Model(), [torch.rand(1, 1, 2, 40)], "cpu", save_path=tmp_path / "b.png", show=False)
    assert "SSIM nan" in tiny.axes[1].get_title()
    assert contrast_limits(np.array([[np.nan]])) == (0, 1)
    assert contrast_limits(np.eye(100)[:2]) == (0, 1)  # two bright pixels: percentiles see none
    assert np.isnan(mean_ssim(np.zeros((1, 8, 8)), np.full((1, 8, 8), np.inf)))


def test_pyplot_is_touched_only_to_show(monkeypatch):
    seen = []
    monkeypatch.setattr(pyplot, "show", lambda: seen.append(len(pyplot.get_fignums())))
    pyplot.close("all")
    plot_reconstructions(Model(), [images(2, 1, 8, 8)], "cpu", show=False)
    assert (seen, pyplot.get_fignums()) == ([], [])
    plot_reconstructions(Model(), [images(2, 1, 8, 8)], "cpu")
    assert (seen, pyplot.get_fignums()) == ([1], [])


def test_neighbours_are_those_of_the_largest_cosine():
    directions = torch.tensor([[1.0, 0], [0, 1], [-1, 0.2]])
    anchors = directions[:, :, None, None, None].expand(-1, -1, 3, 8, 8) + images(3, 2, 3, 8, 8) / 100
    positives = anchors.flip(0)  # that of the middle one is its own; the others lie on the opposite side
    model = Model(lambda image: (image.mean((2, 3, 4)) * 0, image.mean((2, 3, 4))))
    outputs = run_model(model, [{"anchor": anchors, "positive": positives}], "cpu", 10)
    figure = draw_outputs(outputs, "epoch 3")
    assert figure.get_suptitle() == "epoch 3   nearest neighbours: the own positive is the first for 1 of 3 cells"
    assert len(figure.axes) == 3 * 2 * 5
    first_row = [title.split("\n")[0] for title in titles(figure)[:5]]
    assert first_row[:3] == ["anchor 1", "positive", "1. positive 3"]
    views = torch.cat([anchors, positives]).mean((2, 3, 4))
    cosines = nn.functional.cosine_similarity(views[0], views).tolist()
    expected = sorted(range(1, 6), key=lambda j: -cosines[j])[:3]
    found = [float(title.split("cos ")[1]) for title in titles(figure)[2:5]]
    np.testing.assert_allclose(found, [cosines[j] for j in expected], atol=0.0051)
    np.testing.assert_allclose(shown(figure.axes[2]), positives[2, 0].numpy()[sharpest_slice(positives[2].numpy())])
    middle = figure.axes[10:15]
    assert middle[2].get_title().startswith("1. own positive")
    assert {axes.spines["top"].get_linewidth() for axes in middle[:2]} == {0.5}
    assert middle[2].spines["top"].get_linewidth() > 1


def test_cells_of_one_lineage_are_framed_and_positives_may_be_missing():
    batch = {"anchor": images(4, 1, 1, 8, 8), "lineage": torch.tensor([5, 5, 7, 8])}
    outputs = run_model(Model(lambda image: {"features": image.mean((2, 3)).flatten(1)}), [batch], "cpu", 4)
    figure = draw_outputs(outputs)
    assert figure.get_suptitle() == "nearest neighbours"
    framed = [axes.get_title().split("\n")[0][3:] for axes in figure.axes if axes.spines["top"].get_linewidth() > 1]
    assert sorted(framed) == ["anchor 1", "anchor 2"]


def test_embeddings_that_are_not_finite_and_a_lone_cell_are_drawn():
    outputs = run_model(Model(lambda image: image.flatten(1) * torch.nan), [images(3, 1, 8, 8)], "cpu", 3)
    assert len(draw_outputs(outputs).axes) == 9
    outputs = run_model(Model(lambda image: image.flatten(1)), [images(1, 1, 8, 8)], "cpu", 3)
    assert len(draw_outputs(outputs).axes) == 1
