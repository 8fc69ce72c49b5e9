"""Commands with weights: which files and folders they refuse, and why."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest

pytest_plugins = ["viscy_data.testing.fixtures"]


def _unpredicted(place):
    """Leave the run without its embeddings."""
    folder = place.own("runs/trained")
    shutil.rmtree(folder / "embeddings.zarr")
    record = json.loads((folder / "run.json").read_text())
    del record["predictions"]
    (folder / "run.json").write_text(json.dumps(record))


def _with(section, **changes):
    def change(place):
        _unpredicted(place)
        getattr(place, section).update(changes)

    return change


def _text(name, content=""):
    return lambda place: place.write(name, content)


def _hollow(place):
    """Write a checkpoint that declares more numbers than it holds, and one that unpacks to more than the file."""
    with zipfile.ZipFile(place.folder / "runs/trained/checkpoints/last.ckpt") as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    for name, kind in (("short.ckpt", zipfile.ZIP_STORED), ("packed.ckpt", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(place.folder / name, "w", kind) as spoilt:
            for part, content in parts.items():
                spoilt.writestr(part, content[:-4] if part.endswith("data/0") else content)


PREDICT = "predict --config fit.yml --run trained"
CASES = [
    ("fit", None, "dynaclr fit\n.*no configuration\n.*\n.*dynaclr fit --config FILE.yml; dynaclr init"),
    ("fit --config", None, "no configuration"),
    ("fit fit.yml", None, "fit.yml without --config\n.*\n.*dynaclr fit --config fit.yml"),
    ("fit --config fti.yml", None, "fti.yml\n.*no such file\n.*\n.*did you mean 'fit.yml'"),
    ("fit --config configs/fit.yml", None, "configs/fit.yml\n.*no folder configs"),
    ("fit --config runs/trained/checkpoints/last.ckpt", None, "last.ckpt\n.*no text"),
    ("fti --config fit.yml", None, "fti.*[Dd]id you mean 'fit'"),
    ("fit --config fit.yml --foo 3", None, "field foo\n.*unknown key"),
    (
        "fit --config fit.yml --run trained",
        None,
        "runs/trained, field run\n.*another run\n.*--run trained --ckpt_path last",
    ),
    ("fit --config fit.yml --run latest", None, "run\n.*'latest'\n.*a name of its own"),
    ("fit --config fit.yml --ckpt_path none.ckpt", None, "none.ckpt, field ckpt_path\n.*no such file"),
    (
        "fit --config fit.yml --ckpt_path text.ckpt",
        _text("text.ckpt", "no weights"),
        "text.ckpt, field ckpt_path\n.*torch cannot read.*\n.*a Lightning checkpoint",
    ),
    ("fit --config fit.yml --ckpt_path short.ckpt", _hollow, "short.ckpt, field ckpt_path\n.*of which the file holds"),
    ("predict --config fit.yml --ckpt_path packed.ckpt", _hollow, "packed.ckpt, field ckpt_path\n.*compressed"),
    ("info packed.ckpt", _hollow, "packed.ckpt, field ckpt_path\n.*compressed"),
    (
        "fit --config fit.yml",
        lambda place: (_hollow(place), place.model.update(ckpt_path="short.ckpt")),
        "short.ckpt cannot be read as weights(.|\n)*of which the file holds",
    ),
    (
        "fit --config fit.yml",
        lambda place: (place.write("out"), place.trainer.update(default_root_dir="out")),
        "out/runs\n.*a file where a folder is to be",
    ),
    ("predict", None, "dynaclr predict\n.*no configuration"),
    ("predict --config fit.yml", None, "field ckpt_path\n.*no checkpoint\n.*\n.*--run latest.*--ckpt_path null"),
    ("predict --run trained", None, "no configuration"),
    (
        "predict --config experiments.yml --run trained",
        None,
        "experiments.yml, field experiments\n.*unknown.*\n.*model",
    ),
    (
        "predict --config fit.yml --run traind",
        None,
        "runs/traind, field run\n.*no such folder\n.*did you mean 'trained'",
    ),
    ("predict --config fit.yml --ckpt_path empty.ckpt", _text("empty.ckpt"), "empty.ckpt, field ckpt_path"),
    ("predict --config fit.yml --ckpt_path fit.yml", None, "fit.yml, field ckpt_path\n.*torch cannot read"),
    (
        "predict --config fit.yml --ckpt_path runs/trained",
        None,
        "runs/trained, field ckpt_path\n.*a folder\n.*\n.*--run",
    ),
    ("predict --config fit.yml --ckpt_path first/images.zarr", None, "images.zarr, field ckpt_path\n.*a folder"),
    (PREDICT, None, "runs/trained/embeddings.zarr exists; .*another place: --trainer.callbacks"),
    (PREDICT, _with("data", predict_experiments=["frist"]), "predict_experiments\n.*'frist'\n.*did you mean 'first'"),
    (PREDICT, _with("data", predict_experiments=[]), "predict_experiments\n.*\n.*null for all"),
    (
        PREDICT,
        _with("encoder", backbone="convnext_femto", embedding_dim=32),
        "best.ckpt, field ckpt_path\n(.|\n)*backbone: convnext_atto in the file, convnext_femto in the model"
        "\n.*embedding_dim: 16 in the file, 32 in the model(.|\n)*fix ",
    ),
    (
        PREDICT,
        _with("encoder", backbone="resnet50", embedding_dim=2048),
        "best.ckpt, field ckpt_path\n(.|\n)*backbone: convnext_atto in the file, resnet50 in the model",
    ),
    (PREDICT, _with("encoder", projection_dim=4), "projection_dim: 8 in the file, 4 in the model"),
    (
        "fit --config fit.yml --ckpt_path runs/trained/checkpoints/last.ckpt",
        lambda place: place.encoder.update(backbone="convnext_femto"),
        "last.ckpt(.|\n)*backbone: convnext_atto in the file",
    ),
    ("validate --config fit.yml", None, "field ckpt_path\n.*no checkpoint"),
    (
        "validate --config fit.yml --run trained",
        lambda place: place.data.update(val_experiments=[]),
        "val_experiments\n.*none\n.*\n.*val_split\n.*fit.yml",
    ),
    ("export", None, "dynaclr export\n.*no configuration"),
    ("export --config fit.yml --run trained", None, "export_path\n.*nothing"),
    ("export --config fit.yml --export_path m.onnx", None, "field ckpt_path\n.*no checkpoint"),
    ("export --config fit.yml --run trained --export_path m.onnx", _text("m.onnx"), "m.onnx exists; choose another"),
    ("export --config fit.yml --run trained --export_path m.pt --format pt", None, "field format\n.*pt\n.*'onnx'"),
    ("export --config fit.yml --run trained --export_path x/m.onnx", _text("x"), "x\n.*a file where a folder is to be"),
    (
        "export --config fit.yml --run trained --export_path m.onnx",
        lambda place: place.encoder.update(backbone="convnext_femto"),
        "backbone: convnext_atto in the file",
    ),
]


@pytest.mark.parametrize(
    ("command", "change", "pattern"), CASES, ids=[f"{case[0]} {n}" for n, case in enumerate(CASES)]
)
def test_what_is_refused(place, command, change, pattern):
    if change is not None:
        change(place)
    place.refused(command, pattern)


def test_the_log_level_is_one_that_there_is(place, monkeypatch):
    monkeypatch.setenv("VISCY_LOG_LEVEL", "LOUD")
    place.refused("fit --config fit.yml", "VISCY_LOG_LEVEL\n.*'LOUD'\n.*DEBUG, INFO")
