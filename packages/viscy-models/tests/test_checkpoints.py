"""Loading weights: formats, prefixes, and what is reported."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from viscy_models import BetaVae25D, ContrastiveEncoder, ResNet3dEncoder, load_weights
from viscy_models.architecture import describe


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.fixture
def state(model):
    return {key: torch.full_like(value, 2) for key, value in model.state_dict().items()}


def loaded(model, path):
    load_weights(model, path)
    return all((value == 2).all() for value in model.state_dict().values())


def test_bare_state_dict(model, state, tmp_path):
    torch.save(state, tmp_path / "weights.pt")
    assert loaded(model, tmp_path / "weights.pt")


def test_safetensors(model, state, tmp_path):
    save_file(state, tmp_path / "weights.safetensors")
    assert loaded(model, str(tmp_path / "weights.safetensors"))


def test_lightning_checkpoint_loses_its_prefix_and_other_entries_are_named(model, state, tmp_path, caplog):
    checkpoint = {
        "epoch": 3,
        "hyper_parameters": {"lr": 0.1},
        "state_dict": {**{f"model.{key}": value for key, value in state.items()}, "loss.scale": torch.ones(1)},
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    with caplog.at_level("INFO"):
        assert loaded(model, tmp_path / "last.ckpt")
    assert "left out 1 entries outside of 'model.': loss.scale" in caplog.text


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_model_whose_own_keys_begin_with_the_prefix(state, tmp_path, prefix):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    torch.save({f"{prefix}model.{key}": value for key, value in state.items()}, tmp_path / "weights.pt")
    assert loaded(Wrapper(), tmp_path / "weights.pt")


def test_every_mismatch_is_reported_and_the_model_stays_as_it_was(model, state, tmp_path):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    del state["0.bias"]
    state["head.weight"] = torch.ones(2)
    state["0.weight"] = torch.ones(4, 3)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights.pt does not fit Sequential") as error:
        load_weights(model, tmp_path / "weights.pt")
    assert str(error.value).splitlines()[1:] == [
        "  1 missing from the file: 0.bias",
        "  1 unexpected in the file: head.weight",
        "  1 of another shape (file for model): 0.weight (4, 3) for (2, 3)",
    ]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_long_reports_are_cut(state, tmp_path):
    torch.save({f"layer{i}": torch.ones(1) for i in range(20)}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"20 unexpected in the file: .*, and 12 more"):
        load_weights(nn.Linear(1, 1), tmp_path / "weights.pt")


class Payload:
    ran = False

    def __reduce__(self):
        return setattr, (Payload, "ran", True)


def test_pickled_objects_are_refused_and_never_run(model, state, tmp_path):
    torch.save({**state, "extra": Payload()}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="objects that would have to be executed") as error:
        load_weights(model, tmp_path / "weights.pt")
    assert isinstance(error.value.__cause__, pickle.UnpicklingError)
    assert not Payload.ran


def test_missing_and_meaningless_files(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_weights(model, tmp_path / "absent.ckpt")
    for content in ({"epoch": 3}, {}, {"state_dict": {}}, {"state_dict": torch.ones(1)}, {"state_dict": {"a": 1}}, [1]):
        torch.save(content, tmp_path / "empty.ckpt")
        with pytest.raises(ValueError, match="holds no state dict"):
            load_weights(model, tmp_path / "empty.ckpt")


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize("content", ["empty", "noise", "half"])
def test_damaged_files_are_refused(model, state, tmp_path, suffix, content):
    path = tmp_path / f"weights.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "noise": bytes(range(256)), "half": whole[: len(whole) // 2]}[content])
    with pytest.raises(ValueError, match=f"weights.{suffix} cannot be read as weights: it is damaged"):
        load_weights(model, path)


def test_weights_of_a_compiled_model_fit_the_plain_one(model, state, tmp_path):
    compiled = torch.compile(model, backend="eager")
    compiled.load_state_dict({f"_orig_mod.{key}": value for key, value in state.items()})
    checkpoint = {"state_dict": {f"model.{key}": torch.full_like(v, 2) for key, v in compiled.state_dict().items()}}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert loaded(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), tmp_path / "last.ckpt")


def test_a_compiled_model_takes_weights_with_and_without_the_mark(model, state, tmp_path):
    for mark in ("", "_orig_mod."):
        torch.save({f"model.{mark}{key}": value for key, value in state.items()}, tmp_path / "last.ckpt")
        target = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        load_weights(torch.compile(target, backend="eager"), tmp_path / "last.ckpt")
        assert all((value == 2).all() for value in target.state_dict().values())


STEM = {"in_channels": "1", "stem_kernel_size": "(5, 4, 4)"}
HEAD = {"embedding_dim": "8", "projection_dim": "4"}
ENCODERS = {
    name: (ContrastiveEncoder, {"backbone": name, "in_channels": 1, "in_stack_depth": 5}, {"backbone": name, **STEM})
    for name in (
        *("convnext_atto", "convnext_femto", "convnext_pico", "convnext_nano", "convnext_tiny", "convnext_base"),
        *("convnext_small", "convnextv2_atto", "convnextv2_femto", "convnextv2_nano", "convnextv2_tiny"),
    )
} | {
    f"resnet{n}": (
        ContrastiveEncoder,
        {"backbone": f"resnet{n}", "in_channels": 1, "in_stack_depth": 5, "width": 32},
        {"backbone": f"resnet{n}", "width": "32", **STEM},
    )
    for n in (18, 34, 50, 101)
}
ENCODERS["3D"] = (
    ResNet3dEncoder,
    {"backbone": "resnet18", "in_channels": 2},
    {"backbone": "resnet18 (3D)", "width": "64", "in_channels": "2", "stem_kernel_size": "(7, 7, 7)"},
)


@pytest.mark.parametrize("name", ENCODERS)
def test_weights_tell_what_network_they_are_of(name):
    kind, options, expected = ENCODERS[name]
    with torch.device("meta"):
        state = kind(**options, embedding_dim=8, projection_dim=4).state_dict()
    assert describe(state) == expected | HEAD
    assert describe({f"model.{key}": value for key, value in state.items()}) == expected | HEAD


def test_depth_is_told_by_the_slices_that_the_stem_leaves():
    with torch.device("meta"):
        encoder = ContrastiveEncoder("resnet18", 1, 40)
    assert describe(encoder.state_dict())["z slices after the stem"] == "8"


def test_weights_of_an_autoencoder_tell_theirs():
    with torch.device("meta"):
        state = BetaVae25D("resnet18", 3, 4, 4, 32, (64, 64), decoder_stages=2).state_dict()
    expected = {"backbone": "resnet18", "width": "64", "in_channels": "3", "stem_kernel_size": "(2, 4, 4)"}
    expected |= {"z slices after the stem": "2"}
    assert describe(state) == expected | {"latent_dim": "32"}


def test_another_architecture_is_reported_in_a_few_lines(tmp_path):
    with torch.device("meta"):
        model = ContrastiveEncoder("convnext_tiny", 2, 15)
        other = ContrastiveEncoder("resnet50", 1, 10, projection_dim=64)
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {f"model.{key}": torch.zeros(v.shape) for key, v in other.state_dict().items()}}, path)
    with pytest.raises(ValueError, match="does not fit ContrastiveEncoder") as error:
        load_weights(model, path)
    report = str(error.value)
    assert len(report.replace(str(tmp_path), "")) < 1000
    for line in (
        "backbone: resnet50 in the file, convnext_tiny in the model",
        "in_channels: 1 in the file, 2 in the model",
        "projection_dim: 64 in the file, 128 in the model",
    ):
        assert line in report
    assert "stem_kernel_size" not in report
    assert "width" not in report  # which only a ResNet has


def test_pickles_are_never_read_in_full(model, state, tmp_path, monkeypatch):
    asked = []
    read = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: asked.append(options) or read(*args, **options))
    torch.save({"state_dict": state}, tmp_path / "weights.pt")
    load_weights(model, tmp_path / "weights.pt")
    assert [options["weights_only"] for options in asked] == [True]


def test_a_real_checkpoint_of_lightning_is_read(model, state, tmp_path):
    """The layout Lightning writes: optimizer states, loops and hyperparameters beside the weights."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {f"model.{key}": value for key, value in state.items()},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 1e-3, "size": (1, 2), "name": None},
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert loaded(model, tmp_path / "last.ckpt")


@pytest.mark.parametrize("prefix", ["", "model."])
def test_one_part_of_a_network_is_loaded(tmp_path, prefix):
    network = nn.ModuleDict({"encoder": nn.Linear(3, 2), "head": nn.Linear(2, 5)})
    saved = {f"{prefix}{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": saved}, tmp_path / "whole.ckpt")
    encoder = nn.Linear(3, 2)
    load_weights(encoder, tmp_path / "whole.ckpt", part="encoder")
    assert torch.equal(encoder.weight, network["encoder"].weight)
    with pytest.raises(ValueError, match="no weights of a decoder, only: "):
        load_weights(encoder, tmp_path / "whole.ckpt", part="decoder")
    with pytest.raises(ValueError, match="does not fit Linear"):
        load_weights(nn.Linear(4, 2), tmp_path / "whole.ckpt", part="encoder")
