"""One run: plates, a trained encoder, embeddings of every cell, scores."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import nn

from dynaclr.adaptation import BatchStatistics, Statistics, balanced_rows, cell_batches, embed_by_experiment
from dynaclr.datamodule import MultiExperimentDataModule
from dynaclr.engine import ContrastiveModule
from dynaclr.evaluation.pixels import pixel_pca
from dynaclr.turns import mean_over_turns
from representations.centering import CenteredOnControls
from representations.options import digest_of, spec_of, training_of
from representations.plates import Plates, make_plates
from representations.scores import score
from viscy_data.files import replacing
from viscy_models.batch_statistics import FeatureNorm, estimate_batch_statistics
from viscy_models.contrastive import ContrastiveEncoder
from viscy_transforms import (
    BatchedRandAdjustContrastd,
    BatchedRandAffined,
    BatchedRandFlipd,
    BatchedRandGaussianNoised,
    BatchedRandGaussianSmoothd,
    BatchedScaleIntensityRangePercentilesd,
)
from viscy_utils.callbacks.embedding_writer import write_embedding_dataset
from viscy_utils.evaluation.corrected_folds import corrected
from viscy_utils.evaluation.embedded import CELL, Embedded, canonical_cells

_KEYS = ["ch_0", "ch_1"]
_TRUTH = ["infection_progress", "infection_time_hpi", "rounding", "age"]


class Run(NamedTuple):
    """What is run: an option on the plates of a severity and seed, with one experiment held out."""

    option: str
    setting: str
    severity: str
    seed: int
    held_out: str
    hours: float = 9.0
    n_cells: int = 16

    @property
    def spec(self) -> dict[str, Any]:
        """Everything that decides the scores but for the seed, in plain values."""
        plates = {name: getattr(self, name) for name in ("severity", "held_out", "hours", "n_cells")}
        return spec_of(self.option, self.setting) | {"plates": plates}

    @property
    def key(self) -> tuple[str, int]:
        """Digest of the specification, and the seed."""
        return digest_of(self.spec), self.seed


def perform(run: Run, cache: Path) -> dict[str, Any]:
    """Train what is not trained yet, embed and score.

    Returns
    -------
    dict
        The line of the run: what it was, ``digest``, ``scores``, ``seconds``. The seconds of an encoder that is shared
        with another option are those of the option that ran first.
    """
    begin = time.perf_counter()
    plates = make_plates(cache / "plates", run.severity, run.seed, run.hours, run.n_cells)
    cells = _embedded(run, plates, cache)
    scores = score(cells, run.held_out, run.seed)
    digest, _ = run.key
    seconds = round(time.perf_counter() - begin, 1)
    return {**run._asdict(), "digest": digest, "spec": run.spec, "scores": scores, "seconds": seconds}


def _embedded(run: Run, plates: Plates, cache: Path) -> Embedded:
    spec = run.spec
    data = _data(run, spec, plates, neighbor_fraction=0.0)  # near neighbours are of training alone
    if spec["kind"] == "pixels":
        cells = pixel_pca(data, raw=True, seed=run.seed)
    else:
        module = _trained(run, spec, plates, cache)
        statistics = _statistics(spec, module, data) if spec["adapt"] else None
        cells = embed(module, data, statistics, spec["turned"])
    obs = canonical_cells(cells.obs).merge(plates.truth[[*CELL, *_TRUTH]], on=CELL, how="left", validate="1:1")
    cells = Embedded(run.option, cells.features, obs)
    if spec["correction"] is None:
        return cells
    return corrected(cells, (obs["condition"] == "uninfected").to_numpy(), spec["correction"])


def _data(run: Run, spec: Mapping[str, Any], plates: Plates, **options: Any) -> MultiExperimentDataModule:
    return MultiExperimentDataModule(
        str(plates.experiments_yaml),
        z_range=(0, 1),
        val_experiments=[run.held_out],
        num_workers=0,
        seed=run.seed,
        channel_dropout_channels=[1],
        hcl_beta=spec["loss"].get("beta", 0.0),
        normalizations=[BatchedScaleIntensityRangePercentilesd(_KEYS, lower=1, upper=99, b_min=-2.0, b_max=2.0)],
        augmentations=_augmentations(spec["augmentation"]),
        **{**spec["data"], **options},
    )


def _augmentations(strength: float) -> list[Any]:
    """Return those of the demo; turns and flips always, all else in proportion."""
    zoom, gamma, blur = 0.2 * strength, 0.25 * strength, (0.1, max(0.11, 0.9 * strength))
    scale_range = ((1.0, 1.0), (1 - zoom, 1 + zoom), (1 - zoom, 1 + zoom))
    turned = BatchedRandAffined(_KEYS, prob=1.0, rotate_range=(3.14, 0.0, 0.0), scale_range=scale_range)
    flipped = BatchedRandFlipd(_KEYS, spatial_axes=[1, 2], prob=0.5)
    if not strength:
        return [turned, flipped]
    return [
        turned,
        flipped,
        BatchedRandGaussianSmoothd(_KEYS, prob=1.0, sigma_x=blur, sigma_y=blur, sigma_z=0.0),
        BatchedRandAdjustContrastd(_KEYS, prob=1.0, gamma=(float(np.exp(-gamma)), float(np.exp(gamma)))),
        BatchedRandGaussianNoised(_KEYS, prob=1.0, mean=0.0, std=0.5 * strength),
    ]


def _trained(run: Run, spec: Mapping[str, Any], plates: Plates, cache: Path) -> ContrastiveModule:
    """Return the module of a specification, from the cache where another run has trained it."""
    seed_everything(run.seed, verbose=False)
    module = _module(spec)
    if spec["kind"] == "untrained":
        return module.eval()
    path = cache / "encoders" / f"{digest_of(training_of(spec))}-{run.seed}.pt"
    if path.is_file():
        module.load_state_dict(torch.load(path, weights_only=True))
        return module.eval()
    options = {}
    if spec["data"].get("neighbor_fraction"):
        options["neighbor_embeddings"] = str(_baseline_embeddings(run, plates, cache))
    data = _data(run, spec, plates, **options)
    (_supervise if spec["kind"] == "supervised" else _contrast)(module, data, spec, plates)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, overwrite=True) as temporary:
        torch.save(module.state_dict(), temporary)
    return module.eval()


def _module(spec: Mapping[str, Any]) -> ContrastiveModule:
    encoder = ContrastiveEncoder(
        "resnet18", 2, 1, stem_kernel_size=(1, 3, 3), stem_stride=(1, 2, 2), zero_init_last=False,
        projection_norm=spec["head_norm"], **spec["encoder"],
    )  # fmt: skip
    if spec["norm"] == "group":
        _replace(encoder.encoder, nn.BatchNorm2d, lambda layer: nn.GroupNorm(4, layer.num_features))
    arguments = {key: value for key, value in spec["loss"].items() if key != "class"}
    place, _, name = spec["loss"]["class"].rpartition(".")
    loss = getattr(import_module(place), name)(**arguments)
    average = {} if spec["momentum"] is None else {"momentum": spec["momentum"], "predict_with_average": True}
    options = {"lr": spec["lr"], "schedule": "WarmupCosine", "warmup_epochs": 0}
    kind = CenteredOnControls if spec["center_on_controls"] else ContrastiveModule
    shape = (1, 2, 1, *spec["data"]["final_yx_patch_size"])
    return kind(encoder, loss, example_input_array_shape=shape, **options, **average)


def _replace(network: nn.Module, kind: type, other: Any) -> None:
    for name, child in network.named_children():
        if isinstance(child, kind):
            setattr(network, name, other(child))
        else:
            _replace(child, kind, other)


def _contrast(
    module: ContrastiveModule, data: MultiExperimentDataModule, spec: Mapping[str, Any], plates: Plates
) -> None:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(
        accelerator="cpu", max_steps=spec["steps"], max_epochs=-1, limit_val_batches=0, num_sanity_val_steps=0, **quiet
    )
    trainer.fit(module, data)


def _supervise(
    module: ContrastiveModule, data: MultiExperimentDataModule, spec: Mapping[str, Any], plates: Plates
) -> None:
    """Train on the truth of infection, rounding and age, with the same batches, augmentation and steps."""
    data.setup("fit")
    data.pipeline = data.make_pipeline()
    index, sampler = data.train_dataset.index, data.train_sampler()
    cells = canonical_cells(index.tracks[CELL].reset_index(drop=True))
    truth = cells.merge(plates.truth, on=CELL, how="left")[["infection_progress", "rounding", "age"]].to_numpy()
    share = torch.from_numpy(truth.mean(0)).float()
    balance = nn.BCEWithLogitsLoss(pos_weight=(1 - share) / share)  # divisions are few
    head = nn.Linear(module.model.num_features, 3)
    optimizer = torch.optim.AdamW([*module.model.parameters(), *head.parameters()], lr=spec["lr"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, spec["steps"])
    module.train()
    for step in range(spec["steps"]):
        sampler.set_epoch(step // sampler.n_batches)
        positions = np.asarray(sampler.batch(step % sampler.n_batches))
        batch = data.pipeline(data.train_dataset[positions.tolist()], training=True)
        wanted = torch.from_numpy(truth[index.anchor_rows[positions]]).float()
        told = head(module.model(batch["anchor"])[0])
        loss = balance(told, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _baseline_embeddings(run: Run, plates: Plates, cache: Path) -> Path:
    """Write embeddings of the base's encoder, by which near neighbours are found."""
    base = run._replace(option="baseline")
    path = cache / "neighbors" / f"{base.key[0]}-{run.seed}.zarr"
    if not path.exists():
        cells = embed(_trained(base, base.spec, plates, cache), _data(base, base.spec, plates))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_embedding_dataset(path, cells.features, cells.obs)
    return path


def _statistics(spec: Mapping[str, Any], module: ContrastiveModule, data: MultiExperimentDataModule) -> Statistics:
    """Estimate statistics of each experiment, on cells of all its conditions or of one alone."""
    data.setup("predict")
    options = BatchStatistics()
    if spec["adapt_to"] is None:
        return options.of(module.predictor, data, turned=spec["turned"])
    tracks = data.predict_dataset.index.tracks
    experiments, conditions = (tracks[name].to_numpy().astype(str) for name in ("experiment", "condition"))
    statistics, network = {}, FeatureNorm(module.predictor)
    for name in np.unique(experiments):
        rows = np.flatnonzero((experiments == name) & (conditions == spec["adapt_to"]))
        rows = rows[balanced_rows(conditions[rows], options.n_cells, data.seed)]
        statistics[str(name)] = estimate_batch_statistics(
            network, (batch["anchor"] for batch in cell_batches(data, data.predict_dataset, rows, torch.device("cpu")))
        )
    return statistics


@torch.no_grad()
def embed(
    module: ContrastiveModule,
    data: MultiExperimentDataModule,
    statistics: Statistics | None = None,
    turned: bool = False,
) -> Embedded:
    """Embed every cell of every experiment, with statistics of its own if given, and perhaps turned."""
    data.setup("predict")
    features, records = [], []
    for batch in data.predict_dataloader():
        images = data.pipeline(batch, training=False)["anchor"]
        records += list(batch["index"])
        way = module.predictor
        if statistics is not None:
            experiments = np.array([row["experiment"] for row in batch["index"]])
            way = partial(embed_by_experiment, way, experiments=experiments, statistics=statistics)
        features.append((mean_over_turns(way, images) if turned else way(images))[0].numpy())
    return Embedded("", np.concatenate(features).astype(np.float32), pd.DataFrame(records))


def planned(
    options: list[str], setting: str, severities: list[str], seeds: range, experiments: tuple[str, ...], **size: Any
) -> Iterator[Run]:
    """Order runs so that any beginning of them is a table: three seeds of everything first.

    The experiment that is held out moves on with the seed, and the plates are new with every seed.
    """
    for block in (seeds[:3], seeds[3:]):
        for severity in severities:
            for option in options:
                for seed in block:
                    yield Run(option, setting, severity, seed, experiments[seed % len(experiments)], **size)
