"""ClassificationModule under a real Trainer, and the table of its predictions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from dynaclr.classification import ClassificationModule, ClassificationPredictionWriter
from dynaclr.imbalance import ClassMetrics, ClassTally, count_classes
from viscy_data import ClassificationDataModule, PlateWriter, update_attributes
from viscy_losses import FocalLoss
from viscy_models.contrastive import ContrastiveEncoder, ResNet3dEncoder
from viscy_utils.training.finite import NonFiniteError

SHAPE = (2, 1, 1, 8, 8)


class Encoder(nn.Module):
    """Five features, and a projection."""

    num_features = 5

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
        self.projection = nn.Linear(5, 2)

    def forward(self, x):
        features = self.backbone(x)
        return features, self.projection(features)


class Cells(Dataset):
    """Images with labels (1,) and an index, as the data module of annotated cells has them; counts what is read."""

    def __init__(self, labels, with_index=False):
        self.y = torch.as_tensor(labels)
        self.with_index, self.n_read = with_index, 0

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        self.n_read += 1
        image = torch.full(SHAPE[1:], float(self.y[i])) + 0.1 * torch.randn(SHAPE[1:])
        index = {"fov_name": "A/1/0", "track_id": i, "t": 3}
        return (image, self.y[i : i + 1].float(), index) if self.with_index else (image, self.y[i : i + 1].float())


class Annotated(LightningDataModule):
    def __init__(self, labels):
        super().__init__()
        self.labels = labels

    def train_dataloader(self):
        return DataLoader(Cells(self.labels), batch_size=4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Cells(self.labels), batch_size=4)


class Fixed(nn.Module):
    """Takes features for images."""

    num_features = 1

    def forward(self, x):
        return x.flatten(1), None


def _module(encoder=None, lr=1e-2, loss=None, **options):
    torch.manual_seed(0)
    return ClassificationModule(encoder or Encoder(), lr, loss, SHAPE, **options)


def _trainer(path, logger=False, **options):
    defaults = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    defaults |= {"enable_checkpointing": False, "log_every_n_steps": 1, "default_root_dir": path, "logger": logger}
    return Trainer(**(defaults | options))


def _logits_module(logits, labels, n_classes=2):
    """A module whose logits are its input, and one batch of them."""
    module = ClassificationModule(Fixed(), 0.0, num_classes=n_classes)
    module.backbone.fc = nn.Identity()
    batch = (torch.as_tensor(logits).reshape(len(labels), -1), torch.as_tensor(labels).float()[:, None])
    return module, DataLoader([batch], batch_size=None)


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`")
class TestRuns:
    """Everything that needs a Trainer."""

    @pytest.mark.parametrize(
        ("logits", "labels"),
        [
            ([0.2, 0.3, 0.4], [1, 1, 1]),  # all between 0 and 1, as if they were probabilities
            ([-0.2, 0.6, 0.4, -3.0], [1, 1, 0, 0]),
            ([2.0, -2.0], [1, 0]),
        ],
    )
    def test_figures_are_those_of_probabilities(self, logits, labels, tmp_path):
        module, loader = _logits_module(logits, labels)
        logged = _trainer(tmp_path).validate(module, loader, verbose=False)[0]
        predicted = [1 / (1 + math.exp(-logit)) > 0.5 for logit in logits]
        assert logged["metric/accuracy/val"] == pytest.approx(accuracy_score(labels, predicted))
        assert logged["metric/f1_score/val"] == pytest.approx(f1_score(labels, predicted))

    @pytest.mark.parametrize("logger", [False, "csv", "tensorboard"])
    @pytest.mark.parametrize("options", [{}, {"focal_gamma": 2.0, "class_weight_method": "sqrt_inverse"}])
    def test_any_logger(self, logger, options, tmp_path):
        loggers = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}
        trainer = _trainer(tmp_path, loggers[logger](tmp_path) if logger else False)
        trainer.fit(_module(**options), Annotated([0, 0, 0, 1] * 4))
        names = ["loss", "metric/accuracy", "metric/f1_score", "metric/accuracy_class_0", "metric/majority_share"]
        expected = {f"{name}/{stage}" for name in names for stage in ("train", "val")}
        assert expected <= trainer.callback_metrics.keys()

    @pytest.mark.parametrize(
        ("method", "expected"),
        [
            ("inverse", [2 / 3, 2]),
            ("sqrt_inverse", [(2 / 3) ** 0.5, 2**0.5]),
            ("balanced", [2 / 3, 2]),
            ("none", [1, 1]),
        ],
    )
    @pytest.mark.parametrize("with_data_module", [True, False])
    def test_weights_come_from_the_training_set_and_are_logged(self, method, expected, with_data_module, tmp_path):
        data = Annotated([0, 0, 1, 0] * 4)
        module = _module(class_weight_method=method, focal_gamma=0.0)
        trainer = _trainer(tmp_path, CSVLogger(tmp_path))
        trainer.fit(module, data if with_data_module else data.train_dataloader())
        assert module.loss.class_weight.tolist() == pytest.approx(expected)
        table = pd.read_csv(Path(trainer.logger.log_dir) / "metrics.csv")
        assert table[["class_weight/0", "class_weight/1"]].dropna().iloc[0].tolist() == pytest.approx(expected)

    def test_weights_reach_the_gradient(self, tmp_path):
        """Training with weights is training with plain cross-entropy on a set in which each class repeats so often."""
        found = []
        for labels, weights in (([0, 0, 0, 1], [1.0, 3.0]), ([0, 0, 0, 1, 1, 1], None)):
            module = _module(class_weights=weights, focal_gamma=0.0)
            images = torch.stack([torch.full(SHAPE[1:], float(label)) for label in labels])
            batch = (images, torch.tensor(labels)[:, None].float())
            _trainer(tmp_path).fit(module, DataLoader([batch], batch_size=None))
            found.append(module.backbone.fc.weight)
        assert torch.allclose(*found, atol=1e-6)

    def test_logits_that_are_not_finite_end_it_with_the_rows_and_channels_at_fault(self, tmp_path):
        module, loader = _logits_module([0.5, float("nan"), -1.0], [1, 1, 0])
        with pytest.raises(NonFiniteError, match="val epoch 0 batch 0: logits of 1 of 3") as stopped:
            _trainer(tmp_path).validate(module, loader, verbose=False)
        assert stopped.value.rows == [1]

    def test_an_image_that_is_not_finite_ends_a_training(self, tmp_path):
        images = torch.zeros(4, *SHAPE[1:])
        images[2, 0, 0, 3, 3] = torch.inf
        loader = DataLoader([(images, torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None])], batch_size=None)
        with pytest.raises(NonFiniteError, match="train epoch 0 batch 0") as stopped:
            _trainer(tmp_path).fit(_module(), loader)
        assert stopped.value.damaged["anchor"].tolist() == [[False], [False], [True], [False]]

    def test_a_rare_class_is_learnt_at_all(self, tmp_path):
        module = _module(lr=0.1, class_weight_method="inverse")
        _trainer(tmp_path, max_epochs=4).fit(module, Annotated([0] * 15 + [1]))
        assert module.figures["val"].class_accuracies == [1, 1]

    @pytest.mark.parametrize(
        ("n_classes", "columns"),
        [(2, []), (3, ["probability_0", "probability_1", "probability_2"])],
    )
    def test_predictions_are_written(self, n_classes, columns, tmp_path):
        labels = [0, 1, n_classes - 1, 0, 1]
        module = _module(num_classes=n_classes)
        path = tmp_path / "new" / "predictions.csv"
        trainer = _trainer(tmp_path, callbacks=[ClassificationPredictionWriter(path)])
        trainer.predict(module, DataLoader(Cells(labels, with_index=True), batch_size=2), return_predictions=False)
        table = pd.read_csv(path)
        assert table.columns.tolist() == ["fov_name", "track_id", "t", *columns, "label", "prediction"]
        assert table["track_id"].tolist() == [0, 1, 2, 3, 4]
        assert table["label"].tolist() == labels
        if n_classes == 2:
            assert table["prediction"].between(0, 1).all()
        else:
            assert np.allclose(table[columns].sum(axis=1), 1)
            assert (table["prediction"] == table[columns].to_numpy().argmax(axis=1)).all()
        assert [entry.name for entry in path.parent.iterdir()] == ["predictions.csv"]

    def test_training_without_a_learning_rate_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="lr: found None"):
            _trainer(tmp_path).fit(_module(lr=None), Annotated([0, 1]))

    @pytest.mark.parametrize("label", [2.0, -1.0])
    def test_a_label_that_is_no_class_is_refused(self, label, tmp_path):
        with pytest.raises(ValueError, match=f"label {label:.0f} in a batch, expected 0 to 1"):
            _trainer(tmp_path).fit(_module(), Annotated([0.0, 1.0, label]))

    def test_counting_names_a_label_that_is_no_class(self, tmp_path):
        with pytest.raises(ValueError, match="found label 2, expected 0 to 1"):
            _trainer(tmp_path).fit(_module(class_weight_method="inverse"), Annotated([0, 1, 2]))


@pytest.fixture
def annotated_plate(tmp_path):
    """Bright and dark cells of three FOVs, and a table that says which is which."""
    rows = []
    with PlateWriter(tmp_path / "images.zarr", ["Phase"]) as writer:
        for fov in ("A/1/0", "A/1/1", "A/1/2"):
            image = np.zeros((2, 1, 1, 32, 32), np.float32)
            for track, (y, x) in enumerate([(4, 4), (4, 28), (28, 4), (28, 28)]):
                image[..., y - 4 : y + 4, x - 4 : x + 4] = track % 2
                rows += [(f"/{fov}", track, t, y, x, track % 2) for t in range(2)]
            writer.write(fov, image)
    for fov in ("A/1/0", "A/1/1", "A/1/2"):
        statistics = {"Phase": {"fov_statistics": {"mean": 0.5, "std": 0.5}}}
        update_attributes(tmp_path / "images.zarr", fov, "normalization", statistics)
    table = pd.DataFrame(rows, columns=["fov_name", "track_id", "t", "y", "x", "infection_state"])
    table.assign(id=range(len(rows))).to_csv(tmp_path / "labels.csv", index=False)
    return {"image_path": tmp_path / "images.zarr", "annotation_path": tmp_path / "labels.csv"}


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")
def test_annotated_cells_of_a_plate_are_learnt_and_predicted(annotated_plate, tmp_path):
    data = ClassificationDataModule(
        **annotated_plate,
        val_fovs=["A/1/2"],
        channel_name="Phase",
        z_range=(0, 1),
        train_exclude_timepoints=[],
        train_transforms=None,
        val_transforms=None,
        initial_yx_patch_size=(8, 8),
        batch_size=5,
        num_workers=0,
    )
    module = _module(lr=0.1, class_weight_method="inverse")
    _trainer(tmp_path, max_epochs=3).fit(module, data)
    assert module.figures["val"].class_accuracies == [1, 1]
    path = tmp_path / "predictions.csv"
    trainer = _trainer(tmp_path, callbacks=[ClassificationPredictionWriter(path)])
    trainer.predict(module, data, return_predictions=False)
    found, truth = pd.read_csv(path), pd.read_csv(annotated_plate["annotation_path"])
    assert found.columns.tolist() == ["fov_name", "track_id", "t", "id", "y", "x", "label", "prediction"]
    assert found["fov_name"].tolist() == truth["fov_name"].str.strip("/").tolist()
    for name in ("track_id", "t", "id", "y", "x"):
        assert found[name].tolist() == truth[name].tolist()
    assert found["label"].tolist() == truth["infection_state"].tolist() == found["prediction"].round().tolist()


@pytest.mark.parametrize(
    ("encoder", "head"),
    [
        (lambda: ContrastiveEncoder("resnet18", 1, 1, (1, 2, 2), (1, 2, 2)), "backbone.fc.weight"),
        (lambda: ContrastiveEncoder("convnext_atto", 1, 1, (1, 2, 2), (1, 2, 2)), "backbone.head.fc.weight"),
        (lambda: ResNet3dEncoder("resnet10"), "backbone.fc.weight"),
        (Encoder, "backbone.fc.weight"),
    ],
    ids=["resnet", "convnext", "resnet3d", "other"],
)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_head_fits_the_features_of_any_encoder(encoder, head, n_classes):
    encoder = encoder()
    width = encoder.num_features
    module = ClassificationModule(encoder, None, num_classes=n_classes).eval()
    n_outputs = 1 if n_classes == 2 else n_classes
    assert module.state_dict()[head].shape == (n_outputs, width)
    assert module(torch.zeros(2, 1, 1, *(8, 8) if isinstance(encoder, Encoder) else (32, 32))).shape == (2, n_outputs)
    assert not any("projection" in key for key in module.state_dict())
    assert "loss.pos_weight" in module.state_dict() or n_classes == 4


def test_the_encoder_given_stays_as_it_is():
    encoder = ContrastiveEncoder("convnext_atto", 1, 1, (1, 2, 2), (1, 2, 2)).eval()
    x = torch.randn(2, 1, 1, 32, 32)
    before = encoder(x)[1]
    ClassificationModule(encoder, None)
    assert torch.equal(encoder(x)[1], before)


def test_default_losses_are_not_shared():
    assert _module().loss is not _module().loss


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), FocalLoss(0.0), nn.BCEWithLogitsLoss()])
def test_losses_of_two_classes_agree(loss):
    images, labels = torch.randn(6, *SHAPE[1:]), torch.tensor([0, 1, 1, 0, 0, 1.0])[:, None]
    module = _module(loss=loss)
    expected = nn.functional.binary_cross_entropy_with_logits(module(images), labels)
    module.log = lambda *args, **options: None
    assert module.training_step((images, labels), 0).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes: found 1"),
        ({"loss": nn.CrossEntropyLoss(), "focal_gamma": 1.0}, "focal_gamma and the loss CrossEntropyLoss exclude"),
        ({"loss": nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), "class_weights": [1, 2]}, "cannot weigh"),
        ({"loss": nn.BCEWithLogitsLoss(), "num_classes": 3}, "for two classes, found num_classes 3"),
        ({"class_weight_method": "balance"}, "class_weight_method: found 'balance', expected one of 'none'"),
        ({"focal_gamma": -2.0}, "focal_gamma: found -2.0"),
        ({"class_weights": [1.0, -1.0]}, "class_weights: found .*, expected 2 numbers, 0 or larger"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _module(**options)


def test_an_encoder_of_unknown_width_is_refused():
    with pytest.raises(TypeError, match="Flatten has no attribute num_features"):
        _module(nn.Flatten())


def test_existing_predictions_are_kept_unless_asked(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("kept")
    with pytest.raises(FileExistsError, match=r"predictions\.csv exists"):
        ClassificationPredictionWriter(path)
    ClassificationPredictionWriter(path, overwrite=True)
    assert path.read_text() == "kept"


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_figures_agree_with_scikit_learn(data):
    n_classes = data.draw(st.integers(2, 4))
    truth = data.draw(st.lists(st.integers(0, n_classes - 1), min_size=1, max_size=30))
    predicted = data.draw(st.lists(st.integers(0, n_classes - 1), min_size=len(truth), max_size=len(truth)))
    tally = ClassTally(n_classes)
    for part in (slice(0, 7), slice(7, None)):
        if truth[part]:
            logits = nn.functional.one_hot(torch.tensor(predicted[part]), n_classes).float()
            tally.update(logits, torch.tensor(truth[part]))
    figures = ClassMetrics(tally.compute())
    present = sorted(set(truth))
    classes = list(range(n_classes))
    assert figures.accuracy == pytest.approx(accuracy_score(truth, predicted))
    recalls = recall_score(truth, predicted, labels=present, average=None, zero_division=0)
    assert [figures.class_accuracies[k] for k in present] == pytest.approx(recalls.tolist())
    assert figures.balanced_accuracy == pytest.approx(np.mean(recalls))
    f1_scores = f1_score(truth, predicted, labels=classes, average=None, zero_division=0)
    assert figures.f1_scores == pytest.approx(f1_scores.tolist())
    assert figures.f1_score == pytest.approx(f1_scores[1] if n_classes == 2 else f1_scores.mean())
    assert figures.predicted_shares == pytest.approx([predicted.count(k) / len(truth) for k in classes])
    assert figures.majority_share == pytest.approx(max(figures.predicted_shares))


def test_balanced_accuracy_is_that_of_scikit_learn():
    figures = ClassMetrics(torch.tensor([[90, 3], [5, 2]]))
    truth, predicted = [0] * 93 + [1] * 7, [0] * 90 + [1] * 3 + [0] * 5 + [1] * 2
    assert figures.balanced_accuracy == pytest.approx(balanced_accuracy_score(truth, predicted))


class TestCounting:
    """The classes of a training set."""

    def test_a_sampler_does_not_change_the_counts(self):
        cells = Cells([0, 0, 0, 1])
        sampler = WeightedRandomSampler([1, 1, 1, 99.0], 40)
        counts = count_classes(DataLoader(cells, batch_size=3, sampler=sampler), lambda batch: batch[1], 3)
        assert counts.tolist() == [3, 1, 0]
        assert cells.n_read == 4

    def test_known_labels_are_not_read(self):
        cells = Cells([0, 1, 1])
        cells.labels = [0, 1, 1]
        assert count_classes(DataLoader(cells), lambda batch: batch[1], 2).tolist() == [1, 2]
        assert cells.n_read == 0

    def test_random_state_is_left_alone(self):
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        count_classes(DataLoader(Cells([0, 1]), shuffle=True), lambda batch: batch[1], 2)
        assert torch.equal(torch.rand(1), expected)

    def test_labels_that_are_no_classes_are_refused(self):
        loader = DataLoader(TensorDataset(torch.tensor([0.0, 0.5])))
        with pytest.raises(ValueError, match="labels that are not whole numbers"):
            count_classes(loader, lambda batch: batch[0], 2)

    def test_an_empty_training_set_is_refused(self):
        with pytest.raises(ValueError, match="has no labels to count"):
            count_classes([], lambda batch: batch[1], 2)
