"""What is compared: each option by the fields of the base that it changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

BASE: dict[str, Any] = {
    "kind": "contrastive",  # or untrained, pixels, supervised
    "steps": 150,
    "lr": 0.004,
    "encoder": {"width": 32, "embedding_dim": 256, "projection_dim": 64},
    "norm": "batch",  # or group
    "head_norm": True,
    "loss": {"class": "dynaclr.loss.NTXentHCL", "temperature": 0.3, "beta": 0.0},
    "momentum": None,
    "augmentation": 1.0,
    "data": {
        "yx_patch_size": [44, 44],
        "final_yx_patch_size": [32, 32],  # a third more than the diameter of a cell, so that its halo is seen
        "batch_size": 128,
        "experiment_aware": True,
        "leaky": 0.0,
        "condition_balanced": True,
        "temporal_enrichment": False,
        "tau_range": [0.5, 2.0],
        "tau_decay_rate": 2.0,
        "positive_scope": "descendants",
        "max_per_lineage": None,
        "channel_dropout_prob": 0.5,
    },
    "adapt": False,  # statistics of batch normalisation per experiment at prediction
    "turned": False,  # the mean of a prediction over turns and mirror images
    "adapt_to": None,  # a condition, whose cells alone they are of; otherwise of all, balanced
    "center_on_controls": False,  # projections of an experiment, in training
    "correction": None,  # of `dynaclr correct`, by control wells
}
"""The demo's configuration."""

CHEAP: dict[str, Any] = {"encoder": {"width": 16}, "data": {"batch_size": 64}}
"""A quarter of the arithmetic per cell and half of the cells, for tables of many options."""

QUICK: dict[str, Any] = {"steps": 20, "encoder": {"width": 8}, "data": {"batch_size": 64}}

SETTINGS = {"target": {}, "cheap": CHEAP, "quick": QUICK}

FIRST: dict[str, dict[str, Any]] = {
    "baseline": {},
    "untrained": {"kind": "untrained"},
    "pixel PCA": {"kind": "pixels"},
    "supervised": {"kind": "supervised"},
    "AdaBN": {"adapt": True},
    "correct: center": {"correction": "center"},
    "correct: standardize": {"correction": "standardize"},
    "correct: tvn": {"correction": "tvn"},
    "correct: lot": {"correction": "lot"},
    "AdaBN + tvn": {"adapt": True, "correction": "tvn"},
    "untrained + AdaBN": {"kind": "untrained", "adapt": True},
    "supervised + AdaBN": {"kind": "supervised", "adapt": True},
    "turned": {"turned": True},
    "AdaBN, turned": {"adapt": True, "turned": True},
    "untrained + AdaBN, turned": {"kind": "untrained", "adapt": True, "turned": True},
    "supervised + AdaBN, turned": {"kind": "supervised", "adapt": True, "turned": True},
    "AdaBN of infected wells": {"adapt": True, "adapt_to": "infected"},
    "patch of 24 px": {"data": {"yx_patch_size": [32, 32], "final_yx_patch_size": [24, 24]}},
    "not experiment-aware": {"data": {"experiment_aware": False}},
    "leak 0.2": {"data": {"leaky": 0.2}},
    "not condition-balanced": {"data": {"condition_balanced": False}},
    "no channel dropout": {"data": {"channel_dropout_prob": 0.0}},
    "augmentation 0": {"augmentation": 0.0},
    "augmentation 1.5": {"augmentation": 1.5},
    "temperature 0.07": {"loss": {"temperature": 0.07}},
    "beta 0.5": {"loss": {"beta": 0.5}},
    "group norm": {"norm": "group"},
    "head without batch norm": {"head_norm": False},
    "tau 0.5-1": {"data": {"tau_range": [0.5, 1.0]}},
    "tau 0.5-4": {"data": {"tau_range": [0.5, 4.0]}},
}
"""The most important ones."""

FURTHER: dict[str, dict[str, Any]] = {
    "leak 0.5": {"data": {"leaky": 0.5}},
    "temporal enrichment": {"data": {"temporal_enrichment": True}},
    "same patch": {"data": {"tau_range": [0.0, 0.0]}},
    "tau uniform": {"data": {"tau_decay_rate": 0.0}},
    "positives: track": {"data": {"positive_scope": "track"}},
    "positives: lineage": {"data": {"positive_scope": "lineage"}},
    "lineage not masked": {"loss": {"mask_lineage": False}},
    "one per lineage": {"data": {"max_per_lineage": 1}},
    "near neighbours 0.25": {"data": {"neighbor_fraction": 0.25}},
    "beta 0.5 of logits": {"loss": {"beta": 0.5, "beta_scale": "logit"}},
    "beta 1": {"loss": {"beta": 1.0}},
    "temperature 0.15": {"loss": {"temperature": 0.15}},
    "temperature 0.07, beta 0.5": {"loss": {"temperature": 0.07, "beta": 0.5}},
    "temperature 0.6": {"loss": {"temperature": 0.6}},
    "channel dropout 0.25": {"data": {"channel_dropout_prob": 0.25}},
    "channel dropout 0.8": {"data": {"channel_dropout_prob": 0.8}},
    "batch halved": {"batch_factor": 0.5},
    "batch doubled": {"batch_factor": 2},
    "augmentation 0.5": {"augmentation": 0.5},
    "decoupled": {"loss": {"class": "viscy_losses.DCLLoss", "temperature": 0.3}},
    "debiased": {"loss": {"class": "viscy_losses.DebiasedLoss", "temperature": 0.3}},
    "SupCon on lineage": {"loss": {"class": "viscy_losses.SupConLoss", "temperature": 0.3}},
    "VICReg": {"loss": {"class": "viscy_losses.VICRegLoss"}},
    "Barlow Twins": {"loss": {"class": "viscy_losses.BarlowTwinsLoss"}},
    "projection 16": {"encoder": {"projection_dim": 16}},
    "projection 256": {"encoder": {"projection_dim": 256}},
    "EMA 0.95": {"momentum": 0.95},
    "centred on controls": {"center_on_controls": True},
    "centred on controls, head without batch norm": {"center_on_controls": True, "head_norm": False},
    "tau 0-1": {"data": {"tau_range": [0.0, 1.0]}},
    "learning rate halved": {"lr": 0.002},
    "learning rate doubled": {"lr": 0.008},
    "group norm, augmentation 0": {"norm": "group", "augmentation": 0.0},
    "group norm, augmentation 0.5": {"norm": "group", "augmentation": 0.5},
    "tau 0-1, augmentation 0.5": {"augmentation": 0.5, "data": {"tau_range": [0.0, 1.0]}},
    "tau 0-1, augmentation 0.5, head without batch norm": {
        "augmentation": 0.5,
        "head_norm": False,
        "data": {"tau_range": [0.0, 1.0]},
    },
    "same patch, augmentation 0.5": {"augmentation": 0.5, "data": {"tau_range": [0.0, 0.0]}},
    "same patch, augmentation 0.5, head without batch norm": {
        "augmentation": 0.5,
        "head_norm": False,
        "data": {"tau_range": [0.0, 0.0]},
    },
}

ADAPTED = {
    f"AdaBN, {name}": changes | {"adapt": True}
    for name, changes in (FIRST | FURTHER).items()
    if changes and not changes.keys() & {"kind", "adapt", "turned", "correction"}
}
"""Options of training, predicted with statistics per experiment."""

TOGETHER = {
    f"AdaBN, turned, {name}": (FIRST | FURTHER)[name] | {"adapt": True, "turned": True}
    for name in (
        "augmentation 0",
        "augmentation 0.5",
        "group norm",
        "group norm, augmentation 0",
        "group norm, augmentation 0.5",
        "same patch",
        "same patch, augmentation 0.5",
        "tau 0-1, augmentation 0.5",
        "tau 0-1, augmentation 0.5, head without batch norm",
    )
}
"""What was best by itself on the seeds 4 to 6, together."""

OPTIONS = FIRST | FURTHER | ADAPTED | TOGETHER
"""Name to changed fields, in the order in which they run. A loss of another class replaces that of the base."""

TRAINING_ONLY_LATER = ("adapt", "adapt_to", "turned", "correction")
"""Fields that say what is done with a trained encoder."""


def spec_of(option: str, setting: str = "target") -> dict[str, Any]:
    """Merge an option and a setting into the base."""
    changed = OPTIONS[option]
    spec = merged(merged(BASE, SETTINGS[setting]), {k: v for k, v in changed.items() if k != "batch_factor"})
    if "class" in changed.get("loss", {}):
        spec["loss"] = dict(changed["loss"])
    spec["data"]["batch_size"] = int(spec["data"]["batch_size"] * changed.get("batch_factor", 1))
    return spec


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what changes name, mappings entry by entry."""
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in changes.items():
        result[key] = merged(result.get(key, {}), value) if isinstance(value, Mapping) else value
    return result


def training_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a specification decides the trained encoder."""
    return {key: value for key, value in spec.items() if key not in TRAINING_ONLY_LATER}


def digest_of(content: Any) -> str:
    """Digest plain values: the same for the same values, whatever the state of the code."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()
