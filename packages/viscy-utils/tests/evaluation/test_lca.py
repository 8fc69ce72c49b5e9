"""Linear classifiers as layers: what they are fitted on, and attribution in closed form."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_fscore_support
from torch import nn

from viscy_utils.evaluation.lca import (
    AssembledClassifier,
    fit_logistic_regression,
    linear_from_binary_logistic_regression,
)


@pytest.fixture
def cells():
    """Two hundred cells of ten FOVs, features of different scales; a tenth is background, a tenth not annotated."""
    rng = np.random.default_rng(0)
    fov = np.array([f"A/1/{number}" for number in range(10)])[np.arange(200) // 20]
    state = rng.integers(2, size=200)
    features = rng.normal(size=(200, 3)) * [1, 100, 0.01] + [0, 500, 0]
    features[:, 2] += 0.02 * state
    annotation = pd.Series(np.array(["healthy", "infected"], dtype=object)[state])
    annotation[::10], annotation[5::10] = "background", None
    annotation = pd.Series(pd.Categorical(annotation, ["background", "healthy", "infected"]))
    array = xr.DataArray(features, dims=("sample", "features"), coords={"fov_name": ("sample", fov)})
    return array, annotation, fov, state


def test_cells_are_divided_by_fov_and_those_without_a_class_left_out(cells):
    features, annotation, fov, state = cells
    _, ((x, y), (x_test, y_test)) = fit_logistic_regression(features, annotation, ["A/1/0", "/A/1/3/"])
    kept = ~np.isin(np.arange(200) % 10, [0, 5])
    train = np.isin(fov, ["A/1/0", "A/1/3"])
    np.testing.assert_array_equal(x, features.to_numpy()[kept & train])
    np.testing.assert_array_equal(x_test, features.to_numpy()[kept & ~train])
    np.testing.assert_array_equal(y, state[kept & train])
    np.testing.assert_array_equal(y_test, state[kept & ~train])


def test_random_fovs_hold_the_share_that_was_asked_for(cells):
    features, annotation, _, _ = cells
    for seed in range(5):
        _, (train, test) = fit_logistic_regression(features, annotation, train_ratio=0.7, random_state=seed)
        assert len(train[1]) == 7 * 16
        assert len(test[1]) == 3 * 16


def test_the_scaler_is_that_of_the_training_cells_and_part_of_the_layer(cells):
    features, annotation, _, _ = cells
    features[100:] *= 3  # the test set scaled by its own statistics would not notice
    fovs = [f"A/1/{number}" for number in range(5)]
    model, ((x, y), (x_test, _)) = fit_logistic_regression(
        features, annotation, fovs, scale_features=True, solver="lbfgs"
    )
    mean, scale = x.mean(axis=0), x.std(axis=0)
    own = LogisticRegression(class_weight="balanced", solver="lbfgs").fit((x - mean) / scale, y)
    expected = own.decision_function((x_test - mean) / scale)
    np.testing.assert_allclose(model.decision_function(x_test), expected, rtol=1e-6)
    layer = linear_from_binary_logistic_regression(model).double()
    logits = layer(torch.from_numpy(x_test)).detach().numpy()[:, 0]
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_the_report_has_precision_and_recall_in_their_places(cells, caplog):
    features, annotation, _, _ = cells
    with caplog.at_level(logging.INFO, "viscy_utils.evaluation.lca"):
        model, (_, (x, y)) = fit_logistic_regression(features, annotation, random_state=0, scale_features=True)
    precision, recall, f1, count = precision_recall_fscore_support(y, model.predict(x))
    (line,) = [
        line.split() for line in caplog.text.split("test cells")[1].splitlines() if line.strip().startswith("1 ")
    ]
    assert line[1:] == [f"{precision[1]:.3f}", f"{recall[1]:.3f}", f"{f1[1]:.3f}", str(count[1])]


def test_what_cannot_be_told_apart_is_refused(cells):
    features, annotation, _, _ = cells
    with pytest.raises(ValueError, match="found 3"):
        fit_logistic_regression(features, annotation, remove_background_class=False)
    annotation[:20] = "infected"
    with pytest.raises(ValueError, match="no cells of A/9/9"):
        fit_logistic_regression(features, annotation, ["A/1/0", "A/9/9"])
    with pytest.raises(ValueError, match="single class"):
        fit_logistic_regression(features, annotation, ["A/1/0"])


class Backbone(nn.Module):
    """An encoder that hands pixels on."""

    def __init__(self):
        super().__init__()
        self.stem, self.encoder = nn.Identity(), nn.Flatten()


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return AssembledClassifier(Backbone(), nn.Linear(24, 1))


def test_the_classifier_is_the_layer_on_the_features(classifier):
    images = torch.rand(5, 2, 1, 3, 4)
    assert set(classifier.state_dict()) == {"classifier.weight", "classifier.bias"}
    torch.testing.assert_close(classifier(images), classifier.classifier(images.flatten(1)))
    scaled = (images.flatten(1) - images.flatten(1).mean(0)) / images.flatten(1).std(0, correction=0)
    torch.testing.assert_close(classifier(images, scale_features=True), classifier.classifier(scaled))
    assert torch.isfinite(classifier(images[:1], scale_features=True)).all()


@pytest.mark.filterwarnings("ignore")
def test_attributions_of_a_linear_network_are_pixels_times_weights(classifier):
    pytest.importorskip("captum")
    images = torch.rand(2, 2, 1, 3, 4)
    expected = images * classifier.classifier.weight.detach().reshape(1, 2, 1, 3, 4)
    gradients = classifier.attribute_integrated_gradients(images)
    torch.testing.assert_close(gradients.float(), expected, rtol=1e-4, atol=1e-5)
    covered = classifier.attribute_occlusion(images, sliding_window_shapes=(1, 1, 1, 1))
    torch.testing.assert_close(covered.float(), expected, rtol=1e-4, atol=1e-5)
