"""Corrections of embeddings by control cells: fitted or taken from a file, applied, and judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from dynaclr.evaluation.stores import say, write_store
from viscy_data.checks import near_matches
from viscy_data.errors import InputError
from viscy_data.files import refuse_existing
from viscy_utils.embeddings.reading import read_embeddings
from viscy_utils.embeddings.row_filter import matching_rows
from viscy_utils.evaluation.corrected_folds import FoldCorrection, in_folds
from viscy_utils.evaluation.correction import Correction, Method, fit_correction, load_correction, save_correction
from viscy_utils.evaluation.embedded import Embedded, canonical_cells
from viscy_utils.evaluation.linear_classifier_file import hash_store
from viscy_utils.evaluation.origins import encoder_note, weights_of
from viscy_utils.evaluation.probe import probe_scores, separability_scores
from viscy_utils.evaluation.scores import Score
from viscy_utils.reports.tables import ReportTable

if TYPE_CHECKING:
    import anndata as ad

__all__ = ["CORRECTED", "Request", "correct_embeddings"]

CORRECTED = "X_corrected"
"""Key of ``obsm`` with the corrected features, and of ``uns`` with what they come from."""

_MOST_CELLS = 20_000


@dataclass(frozen=True)
class Request:
    """What to correct, and how.

    Attributes
    ----------
    embeddings : Path
        Store that ``predict`` has written.
    by : str
        Column of ``obs`` whose values are the groups.
    controls : str
        Condition on ``obs`` (`viscy_utils.embeddings.row_filter.matching_rows`).
    method : str, optional
        To fit; or
    transform : Path, optional
        a file of a correction to apply. Groups that it does not know are fitted on their own controls.
    label : str, optional
        Column that has to remain readable: probed before and after.
    output : Path, optional
        Store to write; by default the embeddings themselves get the corrected features.
    save_transform : Path, optional
        File for the correction.
    overwrite : bool
        Replace earlier results.
    """

    embeddings: Path
    by: str
    controls: str
    method: Method | None = None
    transform: Path | None = None
    label: str | None = None
    output: Path | None = None
    save_transform: Path | None = None
    overwrite: bool = False


def correct_embeddings(request: Request, *, seed: int = 0) -> np.ndarray:
    """Correct embeddings, print what it did to them, and write them.

    Returns
    -------
    ndarray of float32, shape (N, F)
        As written to ``obsm["X_corrected"]``: rows of features that are not finite are NaN.

    Raises
    ------
    InputError
        If a column is missing, the condition means nothing, a group has no controls, or there are corrected features.
    FileExistsError
        If an output exists and may not be replaced.
    """
    for path in filter(None, (request.output, request.save_transform)):
        refuse_existing(path, request.overwrite, remedy="choose another name, or replace it with --overwrite")
    adata = read_embeddings(request.embeddings)
    if CORRECTED in adata.obsm and request.output is None and not request.overwrite:
        fix = "replace them with --overwrite, or write another store with --output"
        raise InputError(str(request.embeddings), field=f"obsm.{CORRECTED}", found="an earlier correction", fix=fix)
    features = np.asarray(adata.X, dtype=np.float64)
    usable = np.isfinite(features).all(axis=1)
    groups, controls = _groups(adata, request), matching_rows(adata.obs, request.controls, "--controls") & usable
    correction = _correction(request, adata.uns, features[usable], groups[usable], controls[usable])
    corrected = np.full(features.shape, np.nan, dtype=np.float32)
    corrected[usable] = correction.apply(features[usable], groups[usable])
    _judge(adata[usable], groups[usable], controls[usable], correction.method, request, seed)
    _write(adata, corrected, correction, request)
    return corrected


def _groups(adata: ad.AnnData, request: Request) -> np.ndarray:
    for option, name in (("--by", request.by), ("--label", request.label)):
        if name is not None and name not in adata.obs:
            known = map(str, adata.obs.columns)
            raise InputError(str(request.embeddings), field=option, found=name, expected=near_matches(name, known))
    return np.asarray(adata.obs[request.by].astype(str))


def _correction(
    request: Request, uns: Mapping[str, Any], features: np.ndarray, groups: np.ndarray, controls: np.ndarray
) -> Correction:
    if request.transform is None:
        return fit_correction(features, groups, controls, request.method)
    known, content = load_correction(request.transform)
    if note := encoder_note(content.get("origin"), uns, f"the correction {request.transform}"):
        say(note)
    return known.with_groups(features, groups, controls)


def _judge(
    adata: ad.AnnData, groups: np.ndarray, controls: np.ndarray, method: Method, request: Request, seed: int
) -> None:
    """Print how well the groups and the label are told before and after, and warn where it is worse."""
    missing = [name for name in ("fov_name", "track_id", "t") if name not in adata.obs]
    if missing:
        say(f"Not judged: the embeddings have no column {', '.join(missing)}.")
        return
    obs = adata.obs.reset_index(drop=True)
    obs = canonical_cells(obs if "experiment" in obs else obs.assign(experiment="all"))
    obs = obs.assign(group_=groups, control_=controls)
    cells = Embedded("", np.asarray(adata.X), obs).sample(_MOST_CELLS, seed)
    own = (cells.obs["group_"].to_numpy().astype(str), cells.obs["control_"].to_numpy(dtype=bool))
    before = _scores(cells, cells.features, request, seed, None)
    after = _scores(cells, FoldCorrection.pack(cells.features, *own), request, seed, FoldCorrection(method))
    rows = [(name, str(before[name]), str(after[name])) for name in before]
    title = "Balanced accuracy, the correction fitted inside each fold (95 % intervals over lineages)"
    Console(soft_wrap=True).print(ReportTable(title, ("", "before", f"after: {method}"), rows).terminal())
    say(*_warnings(before, after))


def _scores(
    cells: Embedded, features: np.ndarray, request: Request, seed: int, first: FoldCorrection | None
) -> dict[str, Score]:
    groups = cells.obs["group_"].to_numpy().astype(str)
    where = (cells.fovs, cells.lineages)
    conditions = cells.obs["condition"].to_numpy().astype(str) if "condition" in cells.obs else None
    told = {
        f"{request.by} told {how}, lower is better": (partial(judge, conditions=conditions), groups)
        for how, judge in (("from neighbours", separability_scores), ("by a linear probe", probe_scores))
    }
    if request.label is not None:
        labels = cells.obs[request.label].to_numpy()
        judge = probe_scores if request.label == request.by else partial(probe_scores, experiments=groups)
        told[f"{request.label} told by a linear probe, higher is better"] = (judge, labels)
    return {
        name: in_folds(partial(judge, features, labels, *where, first=first, seed=seed)).balanced_accuracy
        for name, (judge, labels) in told.items()
    }


def _warnings(before: dict[str, Score], after: dict[str, Score]) -> Iterator[str]:
    for name, old in before.items():
        new, label = after[name], name.split(", ")[0]
        worse = new.value < old.low if "higher" in name else new.value > old.high
        if worse:
            yield f"Warning: it hurts here: {label} {old.value:.3f} -> {new.value:.3f}. Try another method, or none."


def _write(adata: ad.AnnData, corrected: np.ndarray, correction: Correction, request: Request) -> None:
    source = {
        "method": correction.method,
        "by": request.by,
        "controls": request.controls,
        "n_controls": dict(correction.n_controls),
        "embeddings": str(request.embeddings),
    }
    written = []
    if request.save_transform is not None:
        origin = source | {"embeddings_sha256": hash_store(request.embeddings), "weights": weights_of(adata.uns)}
        save_correction(correction, request.save_transform, origin, request.overwrite)
        written.append(str(request.save_transform))
    adata.obsm[CORRECTED] = corrected
    # Groups may have names that no zarr group may have.
    counts = source.pop("n_controls")
    adata.uns[CORRECTED] = source | {"groups": list(counts), "n_controls": np.array(list(counts.values()))}
    output = write_store(adata, request.embeddings, request.output, request.overwrite)
    n_missing = int(np.isnan(corrected).any(axis=1).sum())
    if n_missing:
        say(f"{n_missing} cells have features that are not finite, and no corrected ones.")
    written.append(f"obsm {CORRECTED!r} of {output}")
    say(f"wrote {', '.join(written)}.")
    say(
        f"next: dynaclr evaluate --embeddings {output} --correct {correction.method} "
        f'--controls "{request.controls}" --output-dir report'
    )
