"""Thousands of spoilt inputs: how a property is tried on them, and a new folder for each."""

from __future__ import annotations

import itertools
import shutil
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st

from dynaclr.cli import cli
from viscy_utils.embeddings.reading import read_embeddings

N_PARTS = 2  # of the marked run, to be spread over processes
MOST_SECONDS = 120  # for one case; the first imports everything, on a machine with other work to do


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Try a few cases in the ordinary run, and many in parts under the marker ``fuzz``."""
    if "tried" in metafunc.fixturenames:
        marks = [pytest.mark.fuzz, pytest.mark.slow]
        many = [pytest.param(part, marks=marks, id=f"many-{part}") for part in range(1, N_PARTS + 1)]
        metafunc.parametrize("tried", [pytest.param(0, id="few"), *many], indirect=True)


@pytest.fixture
def tried(request) -> Callable[..., None]:
    """Return a function ``(check, strategy, few, many, kept)`` that runs a check on drawn cases and on those kept.

    ``few`` cases are drawn in the ordinary run, ``many`` in all parts of the marked one; always the same ones.
    """

    def run(
        check: Callable[[Any], None], cases: st.SearchStrategy, few: int, many: int, kept: Iterable[Any] = ()
    ) -> None:
        def timed(case: Any) -> None:
            begin = time.monotonic()
            check(case)
            assert time.monotonic() - begin < MOST_SECONDS, "it hangs"

        number = many // N_PARTS if request.param else few
        tested = given(case=cases)(lambda case: timed(case))
        for case in kept:
            tested = example(case=case)(tested)
        quiet = settings(
            max_examples=number,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.explicit, Phase.generate, Phase.shrink),
        )
        seed(request.param)(quiet(tested))()

    return run


@pytest.fixture(scope="session")
def spoilt_files(trained, tmp_path_factory) -> dict[str, bytes]:
    """Return the bytes of an index, a checkpoint, a classifier and a correction, by the name of the file."""
    folder = tmp_path_factory.mktemp("valid")
    store = trained / "runs/trained/embeddings.zarr"
    labels = read_embeddings(store).obs[["experiment", "fov_name", "track_id", "t", "condition"]]
    labels.rename(columns={"condition": "state"}).to_csv(folder / "labels.csv", index=False)
    train = {
        "task": "state",
        "train_datasets": [{"embeddings": str(store), "annotations": str(folder / "labels.csv")}],
        "output_path": str(folder / "classifier.npz"),
    }
    (folder / "train.yml").write_text(yaml.safe_dump(train))
    correct = f"correct {store} --method center --output {folder}/corrected.zarr"
    for command in (
        [*correct.split(), "--controls", "condition == 'uninfected'", "--save-transform", f"{folder}/correction.npz"],
        ["train-linear-classifier", "--config", f"{folder}/train.yml"],
        ["build-index", f"{trained}/experiments.yml", f"{folder}/index.parquet"],
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(SystemExit) as stopped:
                cli(command, prog_name="dynaclr")
        assert not stopped.value.code
    files = {name: (folder / name).read_bytes() for name in ("classifier.npz", "correction.npz", "index.parquet")}
    return files | {"last.ckpt": (trained / "runs/trained/checkpoints/last.ckpt").read_bytes()}


@pytest.fixture
def fresh(place, trained, tmp_path):
    """Return a function that makes a new folder like that of ``place``, and removes the one before."""
    numbers = itertools.count()
    last = []

    def make():
        while last:
            shutil.rmtree(last.pop(), ignore_errors=True)
        folder = tmp_path / f"case_{next(numbers)}"
        folder.mkdir()
        last.append(folder)
        for name in ("first", "second"):
            (folder / name).symlink_to(trained / name)
        (folder / "runs").mkdir()
        (folder / "runs" / "trained").symlink_to(trained / "runs" / "trained")
        return place.moved(folder, yaml.safe_load((trained / "experiments.yml").read_text()))

    return make
