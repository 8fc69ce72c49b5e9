"""The subcommands: one table of what they do, what they need and where they run.

An application that has commands of its own keeps a second table of the same kind; nothing here is imported before a
subcommand is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "CORRECT_CHECKPOINT",
    "LIGHTNING_WORDS",
    "NOT_GIVEN",
    "RESUME_HELP",
    "SEED",
    "SUBCOMMANDS",
    "Subcommand",
    "format_help",
    "name_in",
]

NOT_GIVEN = "<a file, or null for random weights>"
"""Default of ``ckpt_path`` where weights are needed: whoever wants random ones has to say so."""
LIGHTNING_WORDS = ("best", "last", "hpc")
"""Values of ``ckpt_path`` that Lightning looks up by itself."""
CORRECT_CHECKPOINT = "correct ckpt_path; null starts from random weights"
"""What to do about a checkpoint that is not there."""
SEED = 42
"""Of random numbers, where ``seed_everything`` is not given."""
RESUME_HELP = "Go on with the run, by default the latest, from its last whole checkpoint; begin one if there is none."
"""What ``--resume`` is for."""
_TRAINER = "viscy_utils.runs.trainer:VisCyTrainer"
_READS_IMAGES = {"data_path": "viscy_data.stores:refuse_missing"}


@dataclass(frozen=True)
class Subcommand:
    """What the command line knows of a subcommand before it runs.

    Parameters
    ----------
    help : str
        One line.
    needs_model, needs_data : bool, default False
        Whether its configuration has the block ``model`` or ``data``.
    checkpoint : {"", "begun with", "used"}, default ""
        What it does with a checkpoint: nothing, go on from one if asked to, or use its weights.
    runs : str, optional
        ``"module:name"`` of what runs: the trainer, whose method has the name of the subcommand, or a click command.
    reads : mapping of str to str, optional
        By option that names what is read, the ``"module:function"`` that refuses its value where there is nothing.
    """

    help: str
    needs_model: bool = False
    needs_data: bool = False
    checkpoint: Literal["", "begun with", "used"] = ""
    runs: str = _TRAINER
    reads: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_lightning(self) -> bool:
        """Whether a method of the trainer runs, with the arguments of Lightning's command line."""
        return self.runs == _TRAINER

    @property
    def run_help(self) -> str:
        """What ``--run`` is for."""
        if self.checkpoint == "begun with":
            return "Name of the folder in runs that is written, or a path; date and time by default."
        return "The run whose checkpoint is used: its name, its folder, or latest."


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "fit": Subcommand("train a model", needs_model=True, needs_data=True, checkpoint="begun with"),
    "validate": Subcommand("run one validation epoch", needs_model=True, needs_data=True, checkpoint="used"),
    "test": Subcommand("run one test epoch", needs_model=True, needs_data=True, checkpoint="used"),
    "predict": Subcommand(
        "run a model over data and write its predictions", needs_model=True, needs_data=True, checkpoint="used"
    ),
    "preprocess": Subcommand("compute the normalisation statistics of a store", reads=_READS_IMAGES),
    "export": Subcommand("write a model to ONNX", needs_model=True, checkpoint="used"),
    "precompute": Subcommand("write normalised channels as a stack of numpy arrays", reads=_READS_IMAGES),
    "convert_to_anndata": Subcommand(
        "convert embeddings of the old xarray layout to AnnData",
        reads={"embeddings_path": "viscy_utils.embeddings.kind:kind_of_store"},
    ),
}
"""Subcommands that run through Lightning."""


def name_in(arguments: Sequence[str], subcommands: Mapping[str, Subcommand] = SUBCOMMANDS) -> str | None:
    """Find the subcommand among arguments; values of options that come before it do not count.

    Examples
    --------
    >>> name_in(["-c", "fit", "predict", "--config", "fit"])
    'predict'
    """
    before = ""
    for argument in arguments:
        if argument in subcommands and before not in ("-c", "--config"):
            return argument
        before = argument
    return None


def format_help(prog: str = "viscy", subcommands: Mapping[str, Subcommand] = SUBCOMMANDS) -> str:
    """Format the page that ``--help`` prints.

    Parameters
    ----------
    prog : str, default "viscy"
        Name of the command.
    subcommands : mapping of str to Subcommand

    Returns
    -------
    str
        Text ending in a newline.
    """
    width = max(map(len, subcommands)) + 2
    rows = [f"  {name:<{width}}{subcommand.help}" for name, subcommand in subcommands.items()]
    head = f"usage: {prog} [-h] [--version] SUBCOMMAND [-c CONFIG] [--key value ...]"
    more = f"Options of a subcommand: {prog} SUBCOMMAND --help. Tracebacks: VISCY_DEBUG=1. Logging: VISCY_LOG_LEVEL."
    return "\n".join([head, "", "subcommands:", *rows, "", more, ""])
