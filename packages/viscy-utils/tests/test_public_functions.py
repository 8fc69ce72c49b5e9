"""Normalisation functions, rendered images and Markdown tables."""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import pytest
import torch

import viscy_utils
from viscy_utils.cli.text_formats import format_markdown_table, load_config
from viscy_utils.statistics.normalize import hist_adapteq_2D, hist_clipping, unzscore, zscore


@pytest.fixture
def functions(golden):
    with np.load(golden / "functions.npz") as file:
        return dict(file)


def test_normalisation_reproduces_the_reference_numbers(functions):
    x = functions["x"]
    np.testing.assert_allclose(zscore(x), functions["zscore"], atol=1e-12)
    np.testing.assert_allclose(zscore(x, 1, 2), functions["zscore_mean1_std2"], atol=1e-12)
    np.testing.assert_allclose(unzscore(x, 0.3, 1.7), functions["unzscore_median0p3_iqr1p7"], atol=1e-12)
    np.testing.assert_allclose(hist_clipping(x), functions["hist_clipping_2_98"], atol=1e-12)
    np.testing.assert_allclose(hist_clipping(x, 10, 60), functions["hist_clipping_10_60"], atol=1e-12)


def test_local_equalisation_reproduces_the_reference_numbers(functions):
    pytest.importorskip("skimage")
    np.testing.assert_allclose(hist_adapteq_2D(functions["adapteq_in"], 8), functions["adapteq"], atol=1e-6)


def test_a_mean_of_zero_is_a_value():
    np.testing.assert_allclose(zscore(np.array([10.0, 12.0]), im_mean=0, im_std=1), [10, 12])


def test_unsigned_integers_do_not_wrap_around():
    image = np.array([[1, 250]], np.uint8)
    np.testing.assert_allclose(zscore(image, 100, 50), [[-1.98, 3.0]], rtol=1e-6)
    np.testing.assert_allclose(unzscore(image, 10, 2), [[12, 510]], rtol=1e-6)


@pytest.mark.parametrize("percentiles", [(-1, 50), (50, 101), (60, 40)])
def test_percentiles_out_of_range_are_refused(percentiles):
    with pytest.raises(ValueError, match="percentiles"):
        hist_clipping(np.zeros(4), *percentiles)


@pytest.mark.parametrize(("kwargs", "word"), [({"kernel_size": 0}, "kernel_size"), ({"clip_limit": 2}, "clip_limit")])
def test_equalisation_refuses_bad_arguments(kwargs, word):
    with pytest.raises(ValueError, match=word):
        hist_adapteq_2D(np.zeros((8, 8)), **kwargs)
    with pytest.raises(ValueError, match="2D"):
        hist_adapteq_2D(np.zeros(8))


def test_images_are_rendered_as_in_the_reference(golden, signed):
    pytest.importorskip("matplotlib")
    images = [[signed((2, 6, 7), "ri0"), signed((6, 7), "ri1")], [signed((2, 6, 7), "ri2"), signed((6, 7), "ri3")]]
    with np.load(golden / "render.npz") as expected:
        np.testing.assert_array_equal(viscy_utils.render_images(images), expected["render_default"])
        gray = viscy_utils.render_images(images, cmaps=["gray", "gray"])
        np.testing.assert_array_equal(gray, expected["render_gray"])


def test_samples_are_taken_at_the_middle_of_the_stack(golden, signed):
    tensors = [torch.from_numpy(signed((3, n + 1, 5, 4, 4), f"ds{n}")) for n in range(2)]
    samples = viscy_utils.detach_sample(tensors, 2)
    assert [len(samples), len(samples[0])] == [2, 2]
    with np.load(golden / "render.npz") as expected:
        np.testing.assert_array_equal(samples[0][0], expected["detach_00"])
        np.testing.assert_array_equal(samples[1][1], expected["detach_11"])
    assert len(viscy_utils.detach_sample(tensors, 99)) == 3


def test_constant_images_are_rendered_black():
    pytest.importorskip("matplotlib")
    assert viscy_utils.render_images([[np.full((4, 4), 3.0)]]).max() == 0


def test_markdown_tables_are_written_as_in_the_reference(golden):
    for case in json.loads((golden / "format_markdown_table.json").read_text()):
        assert format_markdown_table(**case["args"]) == case["out"]


def test_a_configuration_is_plain_data(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: [1, 2]\n")
    assert load_config(path) == {"a": [1, 2]}
    path.write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(Exception, match="could not determine a constructor"):
        load_config(path)


def test_the_package_lists_what_it_offers():
    assert set(viscy_utils.__all__) <= set(dir(viscy_utils))
    assert all(callable(getattr(viscy_utils, name)) for name in viscy_utils.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = viscy_utils.nothing


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cli_errors", "cli.errors"),
        ("cli_utils", "cli.text_formats"),
        ("embedding_store", "embeddings.store"),
        ("log_images", "pictures.log_images"),
        ("meta_utils", "statistics.metadata"),
        ("mp_utils", "statistics.summaries"),
        ("normalize", "statistics.normalize"),
        ("precompute", "statistics.precompute"),
        ("trainer", "runs.trainer"),
        ("training_samples", "pictures.training_samples"),
    ],
)
def test_old_paths_lead_to_the_same_objects(old, new):
    room = import_module(f"viscy_utils.{new}")
    shim = import_module(f"viscy_utils.{old}")
    assert all(getattr(shim, name) is getattr(room, name) for name in room.__all__)
