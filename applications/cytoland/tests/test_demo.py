"""The demo in a quick form: the network beats the linear filter on FOVs that neither has seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from cytoland.cli import cli
from cytoland.demo.baseline import LinearFilter
from viscy_data import read_plate

pytestmark = pytest.mark.filterwarnings(
    "ignore:GPU available", "ignore:.*litlogger", "ignore:.*number of training batches"
)


class Blur:
    """Windows whose target is a weighted sum of neighbours in the source."""

    def __len__(self):
        return 4

    def __getitem__(self, number):
        source = torch.randn(1, 3, 40, 50, generator=torch.Generator().manual_seed(number))
        mirrored = F.pad(source, [2, 2, 2, 2], mode="reflect")
        return {"source": source, "target": 0.5 * mirrored[..., 2:-2, 1:-3] - 2 * mirrored[..., 4:, 2:-2] + 3}


def test_a_linear_filter_finds_the_weights_of_one():
    found = LinearFilter.fit(Blur())
    middle = found.weights.shape[-1] // 2
    assert found.weights[0, 1, middle, middle - 1] == pytest.approx(0.5, abs=0.01)
    assert found.weights[0, 1, middle + 2, middle] == pytest.approx(-2, abs=0.01)
    assert found.intercept == pytest.approx(3, abs=0.01)
    unseen = Blur()[9]
    np.testing.assert_allclose(found.predict(unseen["source"]), unseen["target"][0, 1], atol=0.1)


@pytest.mark.slow
def test_the_network_beats_the_linear_filter_on_held_out_fovs(tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(
        cli, ["demo", "-o", str(out), "--max-epochs", "10", "--fovs", "4"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.stderr
    assert "wrote" in done.stdout.splitlines()[-2]
    assert "next: look at" in done.stdout.splitlines()[-1]
    scores = json.loads((out / "report" / "report.json").read_text())
    assert {score["fov_name"] for score in scores} == {"B/1/0", "B/2/0", "B/3/0"}
    pearson = {(score["fov_name"], score["method"]): score["pearson"] for score in scores}
    for fov in read_plate(out / "prediction.zarr"):
        assert fov.shape == (1, 1, 9, 256, 256)
        assert pearson[fov.name, "UNeXt2"] > pearson[fov.name, "linear filter"] + 0.05, pearson
        assert pearson[fov.name, "linear filter"] > 0.2  # it is worth being compared with
    assert (out / "report" / "report.png").stat().st_size > 0

    again = CliRunner().invoke(cli, ["demo", "-o", str(out)])
    assert again.exit_code == 2
    assert "choose another --output-dir" in again.stderr
