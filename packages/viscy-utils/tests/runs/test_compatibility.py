"""Checkpoints that do not fit are told in a few words."""

from __future__ import annotations

import zipfile

import pytest
import torch
from torch import nn

from viscy_data.errors import InputError, MissingInputError
from viscy_utils.runs.compatibility import differing_settings, load_weights, read_checkpoint
from viscy_utils.runs.folder import update_record


def network(width, depth=40):
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(depth)))


def test_settings_are_compared_down_to_single_values():
    checkpoint = {
        "hyper_parameters": {
            "_class_path": "dynaclr.engine.ContrastiveModule",
            "_instantiator": "x",
            "lr": 0.1,
            "shape": (1, 2),
            "encoder": {"class_path": "E", "init_args": {"backbone": "convnext_tiny", "in_channels": 2, "old": 1}},
        }
    }
    written = {
        "class_path": "dynaclr.engine.ContrastiveModule",
        "init_args": {
            "lr": 0.1,
            "shape": [1, 2],
            "encoder": {"class_path": "E", "init_args": {"backbone": "resnet50", "in_channels": 2, "new": 1}},
        },
    }
    assert differing_settings(checkpoint, written) == ["encoder.backbone 'convnext_tiny' -> 'resnet50'"]
    assert differing_settings({}, written) == []


def test_weights_that_fit_are_loaded():
    one, other = network(3), network(3)
    load_weights(one, {"state_dict": other.state_dict()}, "last.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("saved", "word"),
    [
        (network(4), "size mismatch of 80, such as 0.weight (4, 4) instead of (3, 3)"),
        (network(3, depth=30), "without 20, such as 30.bias"),
        (network(3, depth=50), "too many by 20, such as 40.bias"),
    ],
)
def test_weights_of_another_network_are_one_short_message(saved, word):
    differing = ["encoder.backbone 'convnext_tiny' -> 'resnet50'", *(f"option{i} {i} -> {i + 1}" for i in range(60))]
    with pytest.raises(InputError) as caught:
        load_weights(network(3), {"state_dict": saved.state_dict()}, "runs/a/last.ckpt", differing)
    message = str(caught.value)
    assert len(message) < 1000
    assert word in message
    assert "'convnext_tiny' -> 'resnet50'" in message
    assert "runs/a/last.ckpt" in message


def test_the_configuration_of_the_run_is_named_where_weights_do_not_fit(tmp_path):
    (tmp_path / "a" / "checkpoints").mkdir(parents=True)
    update_record(tmp_path / "a", status="finished")
    path, weights = tmp_path / "a" / "checkpoints" / "best.ckpt", {"state_dict": network(4).state_dict()}
    with pytest.raises(InputError) as caught:
        load_weights(network(3), weights, path)
    assert "config.yaml" not in str(caught.value)  # it is not there
    config = tmp_path / "a" / "config.yaml"
    config.write_text("model: null")
    with pytest.raises(InputError) as caught:
        load_weights(network(3), weights, path)
    assert f"trained with ({config})" in caught.value.fix


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "notes.ckpt").write_text("nothing")
    with pytest.raises(InputError, match=r"notes\.ckpt.*ckpt_path\n *found +a file that torch cannot read"):
        read_checkpoint(tmp_path / "notes.ckpt")
    torch.save({"weights": {}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="no state_dict"):
        read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(MissingInputError, match=r"did you mean 'notes.ckpt'"):
        read_checkpoint(tmp_path / "note.ckpt")
    with pytest.raises(InputError, match=r"found +a folder\n"):
        read_checkpoint(tmp_path)
    (tmp_path / ".metadata").touch()  # as in a sharded one
    assert read_checkpoint(tmp_path) == {}


def endless(kind):
    inner = [0]
    for _ in range(60):
        inner = [inner, inner] if kind == "lists" else {"a": inner, "b": inner}
    if kind == "itself":
        inner["b"] = inner
    return inner


@pytest.mark.parametrize("kind", ["lists", "mappings", "itself"])
def test_settings_that_no_memory_could_show_are_refused(tmp_path, kind):
    torch.save({"state_dict": {}, "hyper_parameters": {"encoder": endless(kind)}}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"last\.ckpt, field hyper_parameters\n  found    more than 100,000 values"):
        read_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("settings", ["x", [1, 2], 3])
def test_settings_without_names_are_refused(tmp_path, settings):
    torch.save({"state_dict": {}, "hyper_parameters": settings}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"last\.ckpt, field hyper_parameters\n  found    no values by name"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_settings_that_are_shared_are_read(tmp_path):
    shared = {"x": [1, 2]}
    content = {"state_dict": {}, "hyper_parameters": {"one": shared, "two": shared}, "loops": {"own": shared}}
    torch.save(content, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["hyper_parameters"] == {"one": shared, "two": shared}


def test_a_checkpoint_that_declares_what_it_does_not_hold_is_refused(tmp_path):
    torch.save({"state_dict": {"w": torch.ones(1000)}}, tmp_path / "last.ckpt")
    with zipfile.ZipFile(tmp_path / "last.ckpt") as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    for name, content in (("compressed", bytes(4000)), ("short", bytes(3996))):
        kind = zipfile.ZIP_DEFLATED if name == "compressed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(tmp_path / f"{name}.ckpt", "w", kind) as spoilt:
            for part in parts:
                spoilt.writestr(part, content if part.endswith("data/0") else parts[part])
        told = "compressed" if name == "compressed" else "4,000 bytes, of which the file holds 3,996"
        with pytest.raises(InputError, match=rf"{name}\.ckpt, field ckpt_path\n  found    a file .*{told}"):
            read_checkpoint(tmp_path / f"{name}.ckpt")
