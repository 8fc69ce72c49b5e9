"""Variants of a configuration, trained alike and judged: as a user runs it, and part by part."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from dynaclr.classification import ClassificationModule
from dynaclr.commands.compare_losses import compare_losses
from dynaclr.comparison import LabelImagesDataModule
from dynaclr.comparison.figure import draw_curves
from dynaclr.comparison.recorder import EpochRecord, EpochRecorder, SameDataOrder, read_records
from dynaclr.comparison.report import make_rows
from dynaclr.comparison.runs import VariantRun, prepare_config
from dynaclr.comparison.variants import read_variants
from dynaclr.comparison.verdict import judge
from viscy_data.errors import InputError

EXAMPLE = Path(__file__).parents[1] / "examples" / "compare-losses"
PNG = b"\x89PNG\r\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The example in an empty folder, small."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    base = yaml.safe_load((tmp_path / "base.yml").read_text())
    base["data"]["init_args"] |= {"n_train": 16, "n_val": 16}
    base["trainer"]["max_epochs"] = 1
    (tmp_path / "base.yml").write_text(yaml.safe_dump(base))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VISCY_DEBUG", raising=False)
    return tmp_path


def _run(*options, variants=None):
    if variants is not None:
        Path("variants.yml").write_text(yaml.safe_dump({"variants": variants}))
    arguments = ["--config", "base.yml", "--variants", "variants.yml", "--output-dir", "out", "--no-wandb", *options]
    return CliRunner().invoke(compare_losses, arguments)


@pytest.mark.slow
def test_example_shows_the_collapse_and_its_cure(tmp_path):
    command = [Path(sys.executable).with_name("dynaclr"), "compare-losses", "--config", "base.yml"]
    command += ["--variants", "variants.yml", "--quick-test", "--no-wandb"]
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "compare_losses"
    rows = {row["variant"]: row for row in json.loads((out / "report.json").read_text())["variants"]}
    levels = {name: {each["name"]: each["level"] for each in row["criteria"]} for name, row in rows.items()}
    plain, *cured = rows
    assert rows[plain]["accuracy"] == pytest.approx(0.93, abs=1e-3)
    assert rows[plain]["majority_share"] > 0.999
    assert levels[plain]["mode collapse"] == levels[plain]["classes"] == "bad"
    assert "mode collapse" in rows[plain]["verdict"]
    for name in cured:
        assert levels[name]["mode collapse"] == "good"
        assert min(rows[name]["class_accuracies"]) > 0.4
        assert rows[name]["active_dims"] > rows[plain]["active_dims"]
    for name, row in rows.items():
        assert row["epochs"] == 5
        assert levels[name]["data order"] == levels[name]["loss stability"] == "good"
        assert len(row["latent_kl"]) == 8
        assert "stopped: `max_epochs=5` reached" in (out / name / "train.log").read_text()
    assert (out / "curves.png").read_bytes().startswith(PNG)
    assert pd.read_csv(out / "table.csv")["variant"].tolist() == list(rows)
    assert all(name in (out / "table.md").read_text() for name in rows)
    assert "mode" in done.stdout


@pytest.mark.filterwarnings("default")
def test_a_crash_is_reported_and_the_others_go_on(folder):
    crash = {"model": {"init_args": {"vae": {"init_args": {"in_shape": [1, 16, 16]}}}}}
    done = _run(variants={"crash": crash, "fine": {"model.init_args.focal_gamma": 1.0}})
    assert done.exit_code == 1
    rows = {row["variant"]: row for row in json.loads(Path("out/report.json").read_text())["variants"]}
    assert rows["crash"]["verdict"] == "crashed"
    assert "found an input of shape" in rows["crash"]["error"]
    assert "Traceback" in Path("out/crash/train.log").read_text()
    assert rows["fine"]["error"] is None
    assert rows["fine"]["epochs"] == 1
    assert rows["fine"]["accuracy"] is not None
    assert Path("out/curves.png").read_bytes().startswith(PNG)
    _run("--overwrite", variants={"other": crash})
    assert {path.name for path in Path("out").iterdir() if path.is_dir()} == {"other"}


# What is done in the folder, further options, and what the message must hold.
BAD_INPUT = {
    "missing base": (lambda: Path("base.yml").unlink(), [], ["base.yml", "no such file"]),
    "missing variants": (lambda: Path("variants.yml").unlink(), [], ["variants.yml", "no such file"]),
    "no yaml": (lambda: Path("variants.yml").write_text("{"), [], ["variants.yml", "no YAML"]),
    "no variants": (lambda: Path("variants.yml").write_text("a: 1"), [], ["variants.yml", "variants", "nothing"]),
    "name that is no folder": (
        lambda: Path("variants.yml").write_text("variants: {../up: {}, b: 3}"),
        [],
        ["2 problems", "../up", "variants.b"],
    ),
    "key given twice": (
        lambda: Path("variants.yml").write_text("variants: {a: {trainer.max_epochs: 1, trainer: {max_epochs: 2}}}"),
        [],
        ["variants.a", "trainer.max_epochs is given twice"],
    ),
    "unknown key": (
        lambda: Path("variants.yml").write_text("variants: {a: {model.init_args.focal_gama: 1.0}}"),
        [],
        ["variant 'a'", "focal_gama", "focal_gamma"],
    ),
    "value of another type": (
        lambda: Path("variants.yml").write_text("variants: {a: {model.init_args.class_weight_method: invers}}"),
        [],
        ["variant 'a'", "class_weight_method"],
    ),
    "several devices": (
        lambda: Path("variants.yml").write_text("variants: {a: {trainer.devices: 2}}"),
        [],
        ["trainer.devices", "found    2", "expected 1"],
    ),
    "existing output": (lambda: Path("out/x").mkdir(parents=True), [], ["out exists", "--overwrite"]),
    "foreign output": (lambda: Path("out/x").mkdir(parents=True), ["--overwrite"], ["out is no earlier comparison"]),
    "output that is a file": (lambda: Path("out").write_text(""), ["--overwrite"], ["out is no earlier comparison"]),
}


@pytest.mark.parametrize(("damage", "options", "named"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_refused_before_anything_is_trained(damage, options, named, folder):
    damage()
    before = sorted(folder.rglob("*"))
    done = _run(*options)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    for word in named:
        assert word in done.output
    assert sorted(folder.rglob("*")) == before


def test_help_names_the_options():
    done = CliRunner().invoke(compare_losses, ["--help"])
    assert done.exit_code == 0
    for option in ("--config", "--variants", "--output-dir", "--quick-test", "--no-wandb", "--overwrite"):
        assert option in done.output


def test_variants_may_be_nested_or_dotted(tmp_path):
    path = tmp_path / "variants.yml"
    path.write_text("variants: {a: {model.init_args.lr: 1, model: {init_args: {beta: 2}}}, b: null}")
    assert [(v.name, v.overrides) for v in read_variants(path)] == [
        ("a", {"model": {"init_args": {"lr": 1, "beta": 2}}}),
        ("b", {}),
    ]


class TestPreparedConfig:
    """What a comparison changes in a configuration."""

    def _prepare(self, tmp_path, wandb=False, quick_test=False, **trainer):
        defaults = {"devices": "auto", "num_nodes": 1, "callbacks": None, "max_epochs": 9, "logger": True}
        config = {"seed_everything": True, "data": {"class_path": "x"}, "trainer": defaults | trainer}
        options = {"wandb": wandb, "quick_test": quick_test, "base": Path("base.yml")}
        return prepare_config(config, tmp_path / "out" / "a", **options)

    def test_a_quick_test_has_five_epochs(self, tmp_path):
        assert self._prepare(tmp_path)["trainer"]["max_epochs"] == 9
        assert self._prepare(tmp_path, quick_test=True)["trainer"]["max_epochs"] == 5

    def test_weights_and_biases_is_used_only_if_wanted(self, tmp_path):
        named = [
            [logger["class_path"].rpartition(".")[2] for logger in self._prepare(tmp_path, wandb)["trainer"]["logger"]]
            for wandb in (False, True)
        ]
        assert named == [["CSVLogger"], ["CSVLogger", "WandbLogger"]]

    def test_there_is_one_seed(self, tmp_path):
        assert self._prepare(tmp_path)["seed_everything"] == 42

    def test_checkpoints_go_into_the_folder_of_the_variant(self, tmp_path):
        kept = {"class_path": "C", "init_args": {"monitor": "loss/val"}}
        moved = {"class_path": "C", "init_args": {"dirpath": "/elsewhere/checkpoints", "monitor": "loss/val"}}
        callbacks = self._prepare(tmp_path, callbacks=[kept, moved])["trainer"]["callbacks"]
        assert callbacks[0] == kept
        assert callbacks[1]["init_args"]["dirpath"] == str(tmp_path / "out" / "a" / "checkpoints")

    @pytest.mark.parametrize(("devices", "found"), [("auto", 1), (1, 1), ([3], [3])])
    def test_there_is_one_device(self, devices, found, tmp_path):
        assert self._prepare(tmp_path, devices=devices)["trainer"]["devices"] == found
        with pytest.raises(InputError, match=r"trainer\.devices"):
            self._prepare(tmp_path, devices=[0, 1])

    def test_data_are_needed(self, tmp_path):
        config = {"seed_everything": 1, "data": None, "trainer": {}}
        with pytest.raises(InputError, match="data"):
            prepare_config(config, tmp_path, quick_test=False, wandb=False, base=Path("base.yml"))


class Model(LightningModule):
    """A linear layer; draws random numbers while it is built and trained."""

    def __init__(self, n_draws):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.n_draws = n_draws

    def training_step(self, batch, batch_idx):
        torch.rand(self.n_draws)
        loss = self.layer(batch[0]).square().mean()
        self.log("loss/train", loss, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_data_order_is_that_of_seed_and_epoch_whatever_a_variant_draws(tmp_path):
    orders = {}
    for seed, n_draws in ((0, 1), (0, 7), (1, 1)):
        path = tmp_path / f"{seed}{n_draws}.jsonl"
        torch.manual_seed(0)
        torch.rand(n_draws)
        loader = DataLoader(TensorDataset(torch.arange(64.0)[:, None]), batch_size=8, shuffle=True)
        trainer = Trainer(
            max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[SameDataOrder(seed), EpochRecorder(str(path))],
        )  # fmt: skip
        for _ in range(2):  # the second run starts a new file
            trainer.fit(Model(n_draws), loader)
            trainer.fit_loop.epoch_progress.reset()
        records = read_records(path)
        assert [record.epoch for record in records] == [0, 1, 2]
        assert all(record.train_loss is not None and record.confusion is None for record in records)
        orders[seed, n_draws] = [record.data_order for record in records]
    assert orders[0, 1] == orders[0, 7]
    assert len({*orders[0, 1], *orders[1, 1]}) == 6


class Encoder(nn.Module):
    num_features = 2

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def forward(self, x):
        return self.layer(x), None


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_classifiers_are_recorded_as_well(tmp_path):
    x = torch.tensor([-1.0] * 15 + [1.0])[:, None]
    cells = TensorDataset(x, (x > 0).long())
    loader, in_order = DataLoader(cells, batch_size=4, shuffle=True), DataLoader(cells, batch_size=4)
    trainer = Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[SameDataOrder(0), EpochRecorder(str(tmp_path / "epochs.jsonl"))],
    )  # fmt: skip
    trainer.fit(ClassificationModule(Encoder(), 0.3, class_weight_method="inverse"), loader, in_order)
    records = read_records(tmp_path / "epochs.jsonl")
    assert records[-1].confusion == [[15, 0], [0, 1]]
    assert records[-1].val_loss < records[0].val_loss
    assert {each.name: each.level for each in judge(records)}["mode collapse"] == "good"


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_are_null_in_the_file_and_judged(tmp_path, loss):
    class Diverging(Model):
        def training_step(self, batch, batch_idx):
            self.log("loss/train", loss)
            return self.layer(batch[0]).square().mean()

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[EpochRecorder(str(tmp_path / "epochs.jsonl"))],
    )  # fmt: skip
    trainer.fit(Diverging(1), DataLoader(TensorDataset(torch.zeros(8, 1)), batch_size=8))
    (line,) = (tmp_path / "epochs.jsonl").read_text().splitlines()
    written = json.loads(line, parse_constant=refuse)
    assert written["train_loss"] is None
    assert "val_loss" not in written
    records = read_records(tmp_path / "epochs.jsonl")
    assert records[0].val_loss is None
    assert {each.name: each.level for each in judge(records)}["loss stability"] == "bad"


def _record(epoch=0, loss=1.0, confusion=None, kl=None, order=0):
    return EpochRecord(epoch, loss, None, confusion, kl, order)


@pytest.mark.parametrize(
    ("criterion", "records", "level"),
    [
        ("mode collapse", [_record(confusion=[[93, 0], [7, 0]])], "bad"),  # accuracy 93 %
        ("mode collapse", [_record(confusion=[[92, 1], [5, 2]])], "watch"),
        ("mode collapse", [_record(confusion=[[92, 1], [1, 6]])], "good"),
        ("mode collapse", [_record(confusion=[[0, 93], [0, 7]])], "bad"),
        ("mode collapse", [_record(confusion=[[9, 0], [0, 0]])], "unknown"),  # there is one class
        ("accuracy", [_record(confusion=[[93, 0], [7, 0]])], "watch"),
        ("accuracy", [_record(confusion=[[93, 0], [1, 6]])], "good"),
        ("classes", [_record(confusion=[[93, 0], [7, 0]])], "bad"),
        ("classes", [_record(confusion=[[93, 0], [5, 2]])], "watch"),
        ("classes", [_record(confusion=[[93, 0, 0], [3, 4, 0], [0, 0, 0]])], "good"),  # class 2 does not occur
        ("loss stability", [_record(i, loss) for i, loss in enumerate([10, 6, 4, 4.5, 3])], "good"),
        ("loss stability", [_record(i, loss) for i, loss in enumerate([10, 6, 8, 4])], "watch"),
        ("loss stability", [_record(i, loss) for i, loss in enumerate([10, 6, 30, 4])], "bad"),
        ("loss stability", [_record(i, loss) for i, loss in enumerate([10, float("nan")])], "bad"),
        ("latent", [_record(kl=[0.049, 0.0])], "bad"),
        ("latent", [_record(kl=[0.049, 0.0, 0.05])], "watch"),
        ("latent", [_record(kl=[0.049, 0.05])], "good"),
        ("latent", [_record()], "unknown"),
        ("classes", [], "unknown"),
        ("loss stability", [], "unknown"),
    ],
)
def test_verdicts(criterion, records, level):
    assert {each.name: each.level for each in judge(records)}[criterion] == level


def test_another_data_order_is_noticed():
    runs = [VariantRun("a", [_record(order=1)]), VariantRun("b", [_record(order=2)]), VariantRun("c", [], "Error: x")]
    found = [row.criteria[-1].level for row in make_rows(runs)]
    assert found == ["good", "watch", "unknown"]


def test_curves_are_drawn_of_whatever_there_is():
    full = [_record(i, 1.0 / (i + 1), [[5, 1], [2, 2]], [0.1, 0.0]) for i in range(3)]
    partial = [_record(0, float("nan")), _record(1, None)]
    runs = [VariantRun("full", full), VariantRun("partial", partial), VariantRun("none", [], "Error: x")]
    titles = [axes.get_title() for axes in draw_curves(runs).axes]
    assert len(titles) == 6
    draw_curves(runs).canvas.draw()


class TestLabelImages:
    """The synthetic data of the example."""

    def _data(self, **options):
        data = LabelImagesDataModule(**({"n_train": 40, "n_val": 8, "batch_size": 8} | options))
        data.setup()
        return data

    @pytest.mark.parametrize("shares", [(0.93, 0.07), (0.5, 0.3, 0.2)])
    def test_classes_have_their_shares_of_the_pixels(self, shares):
        data = self._data(shares=shares)
        for loader, n in ((data.train_dataloader(), 40), (data.val_dataloader(), 8)):
            maps = torch.cat([batch["anchor"] for batch in loader])
            assert maps.shape == (n, 1, 1, 24, 24)
            found = torch.bincount(maps.long().flatten()) / maps.numel()
            assert found.tolist() == pytest.approx(shares, abs=2e-3)

    def test_images_follow_the_seed_and_validation_images_are_others(self):
        first, same, other = (self._data(seed=seed) for seed in (0, 0, 1))
        maps = [next(iter(data.val_dataloader()))["anchor"] for data in (first, same, other)]
        assert torch.equal(maps[0], maps[1])
        assert not torch.equal(maps[0], maps[2])
        train = torch.cat([batch["anchor"] for batch in first.train_dataloader()])
        assert not (train[:, None] == maps[0][None]).flatten(2).all(dim=2).any()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"shares": (0.9, 0.2)}, "shares: found .*, expected positive numbers"),
            ({"shares": (1.0,)}, "shares: found"),
            ({"n_val": 0}, "n_val: found 0, expected at least 1"),
            ({"patch_size": 500}, "patch_size: found 500, expected 1 to 192"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            LabelImagesDataModule(**options)
