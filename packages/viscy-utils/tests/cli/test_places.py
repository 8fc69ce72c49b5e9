"""Errors about a value say which file holds it."""

from __future__ import annotations

import pytest

from viscy_data.errors import InputError, InputErrors
from viscy_utils.cli.places import COMMAND_LINE, add_places, dotted_options

CONFIG = {
    "data": {
        "class_path": "dynaclr.datamodule.MultiExperimentDataModule",
        "init_args": {
            "val_experiments": ["HCC"],
            "normalizations": [
                {"class_path": "viscy_transforms.NormalizeSampled", "init_args": {"keys": ["Phase"]}},
                {"class_path": "viscy_transforms.ScaleIntensityd", "init_args": {"keys": ["ch_0"]}},
            ],
        },
    }
}


@pytest.mark.parametrize(
    ("where", "field", "notes"),
    [
        ("experiments.yml", "val_experiments", ["in       fit.yml, data.init_args.val_experiments"]),
        ("plate", "keys of NormalizeSampled", ["in       fit.yml, data.init_args.normalizations[0].init_args.keys"]),
        (
            "plate",
            "keys of the normalizations",
            [
                "in       fit.yml, data.init_args.normalizations[0].init_args.keys",
                "in       fit.yml, data.init_args.normalizations[1].init_args.keys",
            ],
        ),
        ("fit.yml", "val_experiments", []),
        ("plate", "something_else", []),
        ("plate", "", []),
    ],
)
def test_the_file_that_holds_a_field_is_noted(where, field, notes):
    error = InputError(where, field=field)
    add_places(error, {"fit.yml": CONFIG, "predict.yml": {"run": "latest"}})
    assert getattr(error, "__notes__", []) == notes


def test_fields_of_several_problems_are_noted():
    error = InputErrors([InputError("a", field="val_experiments"), InputError("b", field="normalizations")])
    add_places(error, {"fit.yml": CONFIG})
    assert len(error.__notes__) == 2


def test_an_option_of_the_command_line_has_the_last_word():
    error = InputError("MultiExperimentDataModule", field="val_experiments")
    options = dotted_options(["fit", "--config", "fit.yml", "--data.init_args.val_experiments=[HCC]"])
    add_places(error, {"fit.yml": CONFIG, COMMAND_LINE: options})
    assert error.__notes__ == ["in       the command line, --data.init_args.val_experiments"]
