"""Loading weights: formats, prefixes, and what is reported."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from viscy_models import load_weights


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
        "  1 missing in the file: 0.bias",
        "  1 unknown to the model: head.weight",
        "  1 of another shape (file for model): 0.weight (4, 3) for (2, 3)",
    ]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_long_reports_are_cut(state, tmp_path):
    torch.save({f"layer{i}": torch.ones(1) for i in range(20)}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"20 unknown to the model: .*, and 12 more"):
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
    torch.save({"epoch": 3}, tmp_path / "empty.ckpt")
    with pytest.raises(ValueError, match="holds no state dict"):
        load_weights(model, tmp_path / "empty.ckpt")
