"""BetaVaeModule under a real Trainer, with tiny autoencoders."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from dynaclr import BetaVaeModule
from dynaclr.imbalance import BalancedCrossEntropy
from viscy_losses import FocalLoss
from viscy_models import BetaVae25D, BetaVaeMonai

GOLDEN = Path(__file__).parent / "golden" / "vae"
SIDE = 8


class TinyVae(nn.Module):
    """A convolution and a linear layer each way; flat images, or stacks with ``dims=3``."""

    def __init__(self, in_channels=1, out_channels=1, latent_dim=3, dims=2):
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        self.shape = (out_channels, *([1] if dims == 3 else []), SIDE, SIDE)
        self.latent_dim = latent_dim
        self.encoder = nn.Sequential(conv(in_channels, 2, 1), nn.Flatten(), nn.Linear(2 * SIDE**2, 2 * latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, math.prod(self.shape)), nn.Unflatten(1, self.shape))

    def forward(self, x):
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * logvar) if self.training else mean
        return SimpleNamespace(recon_x=self.decoder(z), mean=mean, logvar=logvar, z=z)


class Stub(nn.Module):
    """Returns what it was told, and the input turned down a little."""

    def __init__(self, mean, logvar):
        super().__init__()
        self.mean, self.logvar = mean, logvar
        self.scale = nn.Parameter(torch.tensor(0.9))

    def forward(self, x):
        return SimpleNamespace(recon_x=self.scale * x + 0.05, mean=self.mean, logvar=self.logvar, z=self.mean)


class Recorder(Callback):
    def __init__(self):
        self.rates, self.epochs = [], []

    def on_train_batch_end(self, trainer, *args):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch:
            self._keep(trainer)

    def on_train_end(self, trainer, module):
        self._keep(trainer)

    def _keep(self, trainer):  # the epoch is over: the module has logged all there is
        self.epochs.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def _signed(shape, name):
    """Values in (-1, 1) from the integer hash that the golden README describes."""
    h = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(zlib.crc32(name.encode()))
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    return torch.from_numpy((2 * (h / 2**32) - 1).astype(np.float32).reshape(shape))


def _images(n=4, n_batches=2, channels=1):
    generator = torch.Generator().manual_seed(0)
    shape = (n, channels, 1, SIDE, SIDE)
    return DataLoader([{"anchor": torch.randn(shape, generator=generator)} for _ in range(n_batches)], batch_size=None)


def _label_images(n=8, n_batches=3, seed=0):
    """Label images with one pixel in eight of class 1: a bar whose place varies."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(n_batches):
        maps = torch.zeros(n, 1, 1, SIDE, SIDE)
        for image, row in zip(maps, torch.randint(SIDE, (n,), generator=generator), strict=True):
            image[0, 0, row] = 1
        batches.append({"anchor": maps, "index": {"t": torch.arange(n)}})
    return DataLoader(batches, batch_size=None)


def _module(vae=None, **options):
    torch.manual_seed(0)
    return BetaVaeModule(vae or TinyVae(), example_input_array_shape=(1, 1, 1, SIDE, SIDE), **options)


def _label_module(in_channels=1, n_classes=2, **options):
    torch.manual_seed(0)
    return _module(TinyVae(in_channels, n_classes), num_classes=n_classes, **options)


def _trainer(path, logger=False, **options):
    defaults = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    defaults |= {"enable_checkpointing": False, "log_every_n_steps": 1, "default_root_dir": path, "logger": logger}
    return Trainer(**(defaults | options))


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "elbo.json").read_text()), ids=lambda c: f"{c['reduction']}{c['B']}"
)
def test_golden_losses(case):
    n = case["B"]
    stub = Stub(_signed((n, 6), "vae_mu"), 2 * _signed((n, 6), "vae_lv"))
    module = BetaVaeModule(stub, nn.MSELoss(reduction=case["reduction"]), beta=case["beta"])
    found = module(_signed((n, 1, 2, 4, 4), "vae_x"))
    assert set(found) == {"recon_x", "z", "mu", "logvar", "recon_loss", "kl_loss", "total_loss"}
    for name in ("recon_loss", "kl_loss", "total_loss"):
        assert found[name].item() == pytest.approx(case[name], rel=1e-6), name


@pytest.mark.parametrize("case", json.loads((GOLDEN / "beta_schedule.json").read_text()))
def test_golden_schedules_and_zero_is_zero(case):
    expected = {int(epoch): value for epoch, value in case.pop("beta_at_epoch").items()}
    module = BetaVaeModule(TinyVae(), **case)
    for epoch, value in expected.items():
        found = module.beta_schedule.at(epoch)
        assert found == pytest.approx(value, abs=2e-15)
        assert value > 1e-14 or found == 0


def test_without_weight_the_divergence_does_not_count():
    module = BetaVaeModule(Stub(torch.full((2, 3), 5.0), torch.zeros(2, 3)), beta=0)
    found = module(torch.zeros(2, 1, 1, 4, 4))
    assert found["total_loss"] == found["recon_loss"]
    assert module.beta == 0


@pytest.mark.parametrize("value", [100.0, -100.0])
def test_extreme_variance_gives_a_finite_divergence(value):
    module = BetaVaeModule(Stub(torch.zeros(2, 3), torch.full((2, 3), value)))
    clamped = math.copysign(20.0, value)
    expected = 3 * 0.5 * (math.exp(clamped) - 1 - clamped)
    assert module(torch.zeros(2, 1, 1, 4, 4))["kl_loss"].item() == pytest.approx(expected, rel=1e-6)


def test_default_losses_are_not_shared():
    assert _module().loss_function is not _module().loss_function


def test_other_losses_keep_their_value():
    x = _signed((2, 1, 1, SIDE, SIDE), "x")
    module = _module(loss_function=nn.L1Loss()).eval()
    output = module(x)
    assert output["recon_loss"].item() == pytest.approx((output["recon_x"] - x).abs().mean().item(), rel=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_flat_and_deep_models_keep_the_shape_of_the_input(dims):
    x = torch.zeros(2, 1, 1, SIDE, SIDE)
    assert _module(TinyVae(dims=dims))(x)["recon_x"].shape == x.shape


def test_a_flat_model_refuses_stacks():
    with pytest.raises(ValueError, match="found 3 z slices, expected one, as the model is 2D"):
        _module()(torch.zeros(2, 1, 3, SIDE, SIDE))


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
class TestRuns:
    """Everything that needs a Trainer."""

    def _fit(self, module, tmp_path, train, val=None, **options):
        recorder = Recorder()
        trainer = _trainer(tmp_path, callbacks=[recorder], **options)
        trainer.fit(module, train, val)
        return recorder

    @pytest.mark.parametrize("logger", [False, "csv", "tensorboard"])
    @pytest.mark.parametrize("make", [_module, _label_module], ids=["images", "labels"])
    def test_any_logger(self, make, logger, tmp_path):
        loggers = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
        batches = _images if make is _module else _label_images
        module = make(log_enhanced_visualizations=True, log_enhanced_visualizations_frequency=1)
        chosen = loggers[logger](tmp_path) if logger else False
        recorder = self._fit(module, tmp_path, batches(), batches(), logger=chosen)
        names = ["loss/{}/total", "loss/{}/reconstruction", "loss/{}/kl", "beta/{}", "kl/dim_2/{}", "kl/active_dims/{}"]
        statistics = ["mean_avg", "std_avg", "mean_max", "std_max", "active_dims", "effective_dim", "utilization"]
        names += [f"latent_statistics/{name}/{{}}" for name in statistics]
        if make is _label_module:
            names += ["metrics/accuracy/{}", "metrics/accuracy_class_1/{}", "metrics/majority_share/{}"]
        expected = {name.format(stage) for name in names for stage in ("train", "val")}
        expected |= {f"diagnostics/{part}_{kind}_norm" for part in ("encoder", "decoder") for kind in ("grad", "param")}
        expected |= {f"diagnostics/{name}" for name in ("recon_has_nan", "recon_has_inf", "input_has_nan")}
        expected |= {f"diagnostics/{name}" for name in ("latent_has_nan", "recon_max_val", "recon_min_val")}
        assert expected <= recorder.epochs[0].keys()
        assert all(math.isfinite(value) for value in recorder.epochs[0].values())

    def test_pictures_reach_a_logger_that_takes_them(self, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        logger = TensorBoardLogger(tmp_path)
        module = _module(log_enhanced_visualizations=True, log_enhanced_visualizations_frequency=2)
        self._fit(module, tmp_path, _images(), _images(), logger=logger, max_epochs=3)
        events = EventAccumulator(logger.log_dir)
        events.Reload()
        named = {f"latent_traversal/dim_{i}" for i in range(3)} | {f"latent_interpolation/pair_{i}" for i in range(2)}
        named |= {"factor_traversal_matrix", "train_reconstructions", "val_reconstructions"}
        assert set(events.Tags()["images"]) == named
        assert [image.step for image in events.Images("val_reconstructions")] == [0, 1, 2]
        assert [image.step for image in events.Images("factor_traversal_matrix")] == [0, 2]
        assert set(events.Tags()["histograms"]) == {f"latent_distributions/dim_{i}_val" for i in range(3)}

    def test_pictures_do_not_change_the_training(self, tmp_path):
        runs = []
        for every in (None, 1):
            options = {"log_enhanced_visualizations": every is not None}
            module = _module(**options, log_enhanced_visualizations_frequency=every or 30, lr=1e-2)
            torch.manual_seed(1)
            logger = TensorBoardLogger(tmp_path / str(every))
            runs.append(self._fit(module, tmp_path, _images(), _images(), logger=logger, max_epochs=2).epochs)
        assert [epoch["loss/val/total"] for epoch in runs[0]] == [epoch["loss/val/total"] for epoch in runs[1]]

    def test_warmup_and_cosine_reach_the_optimizer(self, tmp_path):
        module = _module(lr=1e-3, lr_schedule="WarmupCosine", warmup_epochs=1)
        recorder = self._fit(module, tmp_path, _images(n_batches=4), max_epochs=3)
        assert recorder.rates[:4] == pytest.approx([0.5e-3, 0.75e-3, 1e-3, 1e-3])
        assert recorder.rates[-1] < 0.05e-3

    def test_beta_follows_the_epochs(self, tmp_path):
        module = _module(beta=1.0, beta_schedule="linear", beta_min=0.0, beta_warmup_epochs=2)
        recorder = self._fit(module, tmp_path, _images(), max_epochs=3)
        assert [epoch["beta/train"] for epoch in recorder.epochs] == [0.0, 0.5, 1.0]
        first = recorder.epochs[0]
        assert first["loss/train/total"] == pytest.approx(first["loss/train/reconstruction"])

    def test_figures_of_an_epoch_are_those_of_all_its_pixels(self, tmp_path):
        module = _label_module(lr=0.0)
        recorder = self._fit(module, tmp_path, _label_images(), _label_images(n=5, seed=3))
        module.eval()
        right, pixels, rare_right, rare, ones, kl = 0, 0, 0, 0, 0, []
        for batch in _label_images(n=5, seed=3):
            output = module.model(batch["anchor"][:, :, 0])
            predicted, truth = output.recon_x.argmax(1), batch["anchor"][:, 0, 0]
            right, pixels = right + (predicted == truth).sum(), pixels + truth.numel()
            rare_right, rare = rare_right + ((predicted == 1) & (truth == 1)).sum(), rare + (truth == 1).sum()
            ones += (predicted == 1).sum()
            normal = torch.distributions.Normal(output.mean.double(), (0.5 * output.logvar.double()).exp())
            kl.append(torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)))
        logged, kl = recorder.epochs[0], torch.cat(kl).mean(dim=0)
        assert logged["metrics/accuracy/val"] == pytest.approx((right / pixels).item())
        assert logged["metrics/accuracy_class_1/val"] == pytest.approx((rare_right / rare).item())
        share = (ones / pixels).item()
        assert logged["metrics/majority_share/val"] == pytest.approx(max(share, 1 - share))
        assert module.figures["val"].accuracy == pytest.approx((right / pixels).item())
        assert module.latent_kl["val"].tolist() == pytest.approx(kl.tolist(), rel=1e-5)
        assert [logged[f"kl/dim_{i}/val"] for i in range(3)] == pytest.approx(kl.tolist(), rel=1e-5)
        assert logged["kl/collapsed_share/val"] == pytest.approx((kl < 0.05).double().mean().item())

    @pytest.mark.parametrize(("method", "expected"), [("inverse", [4 / 7, 4]), ("sqrt_inverse", [(4 / 7) ** 0.5, 2])])
    def test_weights_come_from_the_pixels_of_the_training_set(self, method, expected, tmp_path):
        logger = CSVLogger(tmp_path)
        module = _label_module(class_weight_method=method, focal_gamma=2.0)
        self._fit(module, tmp_path, _label_images(), _label_images(), logger=logger)
        assert module.loss_function.class_weight.tolist() == pytest.approx(expected)
        table = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
        header, first = table[0].split(","), table[1].split(",")
        logged = [float(first[header.index(f"class_weight/{k}")]) for k in range(2)]
        assert logged == pytest.approx(expected)

    def test_weights_of_a_checkpoint_come_back(self, tmp_path):
        module = _label_module(class_weight_method="inverse")
        self._fit(module, tmp_path, _label_images())
        again = _label_module(class_weight_method="inverse")
        again.load_state_dict(module.state_dict())
        assert again.loss_function.class_weight.tolist() == pytest.approx([4 / 7, 4])

    def test_predictions_are_repeatable_and_hold_the_mean(self, tmp_path):
        module = _label_module()
        runs = [_trainer(tmp_path).predict(module, _label_images()) for _ in range(2)]
        for first, second, batch in zip(*runs, _label_images(), strict=True):
            assert torch.equal(first["latent"], second["latent"])
            assert torch.equal(first["latent"], module.eval().model(batch["anchor"][:, :, 0]).mean)
            assert first["reconstruction"].shape == batch["anchor"].shape
            assert set(first["reconstruction"].unique().tolist()) <= {0, 1}
            assert set(first) == {"latent", "reconstruction", "index"}

    def test_predictions_can_be_written(self, tmp_path):
        import anndata

        from viscy_utils.callbacks import EmbeddingWriter

        writer = EmbeddingWriter(tmp_path / "latent.zarr")
        _trainer(tmp_path, callbacks=[writer]).predict(_label_module(), _label_images(), return_predictions=False)
        assert anndata.read_zarr(tmp_path / "latent.zarr").X.shape == (24, 3)


def _stack_vae(channels):
    return BetaVae25D("convnext_atto", channels, 5, 5, 8, (32, 32), (5, 4, 4), (5, 4, 4), decoder_stages=3)


REAL = {
    "2.5D": (_stack_vae, (5, 32, 32)),
    "MONAI 3D": (lambda c: BetaVaeMonai(3, (c, 4, 16, 16), c, 6, (2, 4), (2, 2)), (4, 16, 16)),
    "MONAI 2D": (lambda c: BetaVaeMonai(2, (c, 16, 16), c, 6, (2, 4), (2, 2)), (1, 16, 16)),
}


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.parametrize("n_classes", [None, 2])
@pytest.mark.parametrize(("make", "shape"), REAL.values(), ids=REAL)
def test_models_of_the_library_train_and_predict(make, shape, n_classes, tmp_path):
    torch.manual_seed(0)
    module = BetaVaeModule(make(n_classes or 1), num_classes=n_classes, lr=1e-3, log_enhanced_visualizations=True)
    images = torch.randint(2, (4, 1, *shape)).float()
    loader = DataLoader([{"anchor": images, "index": {"t": torch.arange(4)}}], batch_size=None)
    trainer = _trainer(tmp_path, logger=TensorBoardLogger(tmp_path))
    trainer.fit(module, loader, loader)
    assert math.isfinite(trainer.callback_metrics["loss/val/total"].item())
    first, second = (_trainer(tmp_path).predict(module, loader)[0] for _ in range(2))
    assert first["reconstruction"].shape == images.shape
    assert torch.equal(first["latent"], second["latent"])
    assert torch.equal(first["reconstruction"], second["reconstruction"])


@pytest.mark.parametrize("in_channels", [1, 2])
def test_label_images_reach_the_model_as_it_takes_them(in_channels):
    module = _label_module(in_channels)
    seen = []
    module.model.encoder.register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    labels = next(iter(_label_images()))["anchor"]
    one_hot = torch.cat([1 - labels, labels], dim=1)
    for images in (labels, labels.long(), one_hot):
        module(images)
        assert torch.equal(seen.pop(), (labels if in_channels == 1 else one_hot)[:, :, 0])


def test_cross_entropy_is_summed_over_pixels_whatever_its_reduction():
    labels = next(iter(_label_images()))["anchor"]
    losses = [
        None,
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(),
        FocalLoss(0.0),
        FocalLoss(0.0, reduction="sum"),
    ]
    for loss in losses:
        module = _label_module(loss_function=loss).eval()
        output = module(labels)
        expected = cross_entropy(output["recon_x"], labels[:, 0].long(), reduction="none").flatten(1).sum(1).mean()
        assert output["recon_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_given_focal_loss_takes_the_weights_of_the_options():
    module = _label_module(loss_function=FocalLoss(1.5), class_weights=[1.0, 3.0])
    assert isinstance(module.loss_function, BalancedCrossEntropy)
    assert module.loss_function.gamma == 1.5
    assert module.loss_function.class_weight.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_schedule": "liner"}, "beta_schedule: found 'liner', expected 'linear', 'cosine', 'warmup' or None"),
        ({"beta": -1.0}, "beta: found -1.0, expected 0 or larger"),
        ({"beta_warmup_epochs": -1}, "beta_warmup_epochs: found -1"),
        ({"beta": 0.0, "beta_schedule": "linear"}, "beta_min 0.1 is larger than beta 0.0"),
        ({"lr_schedule": "Cosine"}, "lr_schedule: found 'Cosine', expected 'WarmupCosine' or 'Constant'"),
        ({"log_enhanced_visualizations_frequency": 0}, "log_enhanced_visualizations_frequency of at least 1"),
        ({"focal_gamma": 2.0}, "num_classes: found None"),
        ({"loss_function": nn.CrossEntropyLoss()}, "num_classes: found None"),
        ({"loss_function": nn.MSELoss(reduction="none")}, "found reduction 'none'"),
        ({"num_classes": 1}, "num_classes: found 1, expected at least 2"),
        ({"num_classes": 2, "focal_gamma": -1.0}, "focal_gamma: found -1.0"),
        ({"num_classes": 2, "class_weight_method": "invers"}, "class_weight_method: found 'invers'"),
        ({"num_classes": 2, "class_weights": [1.0]}, "class_weights: found .*, expected 2 numbers"),
        ({"num_classes": 2, "class_weights": [1, 2], "class_weight_method": "inverse"}, "exclude each other"),
        ({"num_classes": 2, "loss_function": FocalLoss(), "focal_gamma": 1.0}, "exclude each other"),
        ({"num_classes": 2, "loss_function": nn.L1Loss(), "class_weights": [1, 2]}, "cannot weigh the loss L1Loss"),
        ({"num_classes": 3, "vae": TinyVae(2, 3)}, "vae: found 2 input channels, expected 1 .* or 3"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _module(**options)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 1, 1, SIDE, SIDE), 0.5), "not whole numbers"),
        (torch.full((1, 1, 1, SIDE, SIDE), 2.0), "found label 2, expected 0 to 1"),
        (torch.zeros(1, 3, 1, SIDE, SIDE), "found 3 channels"),
    ],
)
def test_images_that_are_no_label_images_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        _label_module()(images)


def test_too_few_output_channels_are_refused():
    with pytest.raises(ValueError, match=r"found 1 output channels, expected 2 \(num_classes\)"):
        _module(TinyVae(), num_classes=2)(torch.zeros(1, 1, 1, SIDE, SIDE))
