"""What a subcommand takes, read from the source of the trainer: importing torch and Lightning takes seconds.

The page of ``fit --help`` and the check of the sections of a configuration are made from it. A test compares it with
the parser that Lightning builds from the same signatures.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from docstring_parser import parse  # comes with jsonargparse[signatures]

from viscy_utils.cli.subcommands import NOT_GIVEN, RESUME_HELP, SEED, SUBCOMMANDS

__all__ = ["Option", "format_subcommand_help", "known_keys", "options_of"]

_OF_TRAINING = ("classes", "trainer")  # groups of options that a command without a model does not use

_TRAINERS = (("viscy_utils", "runs/trainer.py", "VisCyTrainer"), ("lightning", "pytorch/trainer/trainer.py", "Trainer"))
_DATACLASSES = {"StoragePolicy": ("viscy_data", "stores/policy.py", "StoragePolicy")}  # have options of their own
_OF_LIGHTNING = ("self", "model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule")
_CLASSES = {
    "model": "The model: its class_path and init_args.",
    "data": "The data module: its class_path and init_args.",
    "optimizer": "An optimizer of torch, in place of the model's own.",
    "lr_scheduler": "A learning rate scheduler of torch, beside optimizer.",
}
_ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")
_PRIVATE = re.compile(r"\b_[A-Z]")


@dataclass(frozen=True)
class Option:
    """One option.

    Parameters
    ----------
    key : str
        As in a configuration, with dots.
    help : str
    kind : str, optional
        Its type, as written in the signature.
    default : str, optional
        As YAML.
    """

    key: str
    help: str
    kind: str = ""
    default: str = ""


def options_of(name: str) -> dict[str, list[Option]]:
    """List the options of a subcommand by group.

    Parameters
    ----------
    name : str
        One of :data:`~viscy_utils.cli.subcommands.SUBCOMMANDS`.
    """
    checkpoint = SUBCOMMANDS[name].checkpoint
    general = [
        Option("config", "A YAML file of options; keys of later ones replace those of earlier ones."),
        Option("seed_everything", "Seed of random numbers, or true for a random one.", "bool | int", str(SEED)),
    ]
    if checkpoint:
        general.append(Option("run", SUBCOMMANDS[name].run_help, "str", "null"))
    if checkpoint == "begun with":
        general.append(Option("resume", RESUME_HELP, "bool", "false"))
    own = [_with_checkpoint(option, checkpoint) for option in _arguments(name)]
    trainer = [Option("trainer", "A YAML file of the options below.")]
    trainer += [Option(f"trainer.{each.key}", each.help, each.kind, each.default) for each in _arguments("__init__")]
    needs_model = SUBCOMMANDS[name].needs_model
    classes = [Option(key, text) for key, text in _CLASSES.items() if needs_model or key != "model"]
    return {"options": general, name: own, "classes": classes, "trainer": trainer}


def known_keys(name: str) -> list[str]:
    """List the dotted keys that a configuration of a subcommand may have, as far as no class adds to them."""
    return [option.key for group in options_of(name).values() for option in group]


def format_subcommand_help(name: str, prog: str) -> str:
    """Format the page that ``--help`` of a subcommand prints, of the options that it uses.

    Parameters
    ----------
    name : str
        The subcommand.
    prog : str
        Name of the command.
    """
    command = f"{prog} {name}"
    groups = options_of(name)
    more = f"--KEY.help CLASS says what a class takes, such as {command} --trainer.callbacks.help ModelCheckpoint."
    if not SUBCOMMANDS[name].needs_model:
        groups = {title: options for title, options in groups.items() if title not in _OF_TRAINING}
        more = "The sections trainer and data of a configuration are read, checked and not used."
    parser = argparse.ArgumentParser(
        prog=command,
        usage=f"{command} [-h] [-c CONFIG] [--key value ...]",
        description=SUBCOMMANDS[name].help,
        epilog=more,
        add_help=False,
    )
    for title, options in groups.items():
        group = parser.add_argument_group(title)
        if title == "options":
            group.add_argument("-h", "--help", action="store_true", help="Show this page.")
            group.add_argument("--print_config", action="store_true", help="Print what all arguments make, and exit.")
        for option in options:
            flags = ["-c"] if option.key == "config" else []
            remark = "; ".join(filter(None, [option.kind, option.default and f"default {option.default}"]))
            text = f"{option.help} ({remark})" if remark else option.help
            metavar = option.key.rpartition(".")[2].upper()
            group.add_argument(*flags, f"--{option.key}", metavar=metavar, help=text.replace("%", "%%"))
    return parser.format_help()


def _with_checkpoint(option: Option, checkpoint: str) -> Option:
    is_needed = checkpoint == "used" and option.key == "ckpt_path"
    return Option(option.key, option.help, option.kind, NOT_GIVEN) if is_needed else option


def _arguments(method: str) -> list[Option]:
    """Read the arguments of a method of the trainer that are options."""
    found = next(filter(None, (_method(*trainer, method) for trainer in _TRAINERS)))
    texts = _texts(found)
    options = []
    for argument, default in _with_defaults(found.args):
        key, text, kind = argument.arg, texts.get(argument.arg, ""), _kind(argument.annotation)
        if kind in _DATACLASSES:
            options += [Option(key, f"{text} A YAML file of the options below."), *_fields(key, kind)]
        elif key not in _OF_LIGHTNING:
            options.append(Option(key, text, kind, _default(default)))
    return options


def _fields(key: str, name: str) -> list[Option]:
    """Read the fields of a dataclass that is an argument."""
    found = _class(*_DATACLASSES[name])
    texts = _texts(found)
    fields = [field for field in found.body if isinstance(field, ast.AnnAssign)]
    return [
        Option(f"{key}.{field.target.id}", texts[field.target.id], _kind(field.annotation), _default(field.value))
        for field in fields
    ]


def _texts(found: ast.FunctionDef | ast.ClassDef) -> dict[str, str]:
    """Read what a docstring says of each parameter."""
    return {
        name: _ROLE.sub(r"\1", " ".join((each.description or "").split()))
        for each in parse(ast.get_docstring(found) or "").params
        for name in each.arg_name.split(", ")
    }


@cache
def _class(package: str, path: str, name: str) -> ast.ClassDef:
    [folder] = find_spec(package).submodule_search_locations
    tree = ast.parse(Path(folder, path).read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def _method(package: str, path: str, name: str, method: str) -> ast.FunctionDef | None:
    body = _class(package, path, name).body
    return next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == method), None)


def _with_defaults(arguments: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    positional = arguments.posonlyargs + arguments.args
    yield from zip(positional, [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults, strict=True)
    yield from zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)


def _kind(annotation: ast.expr | None) -> str:
    text = "" if annotation is None else ast.unparse(annotation).strip("'\"")
    return "" if _PRIVATE.search(text) else text


def _default(default: ast.expr | None) -> str:
    return "" if default is None else json.dumps(ast.literal_eval(default))
