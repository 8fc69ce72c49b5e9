from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from iohub.ngff import open_ome_zarr
from monai.transforms import CenterSpatialCrop, Randomizable, Transform

from viscy_data import ClassificationDataModule, ClassificationDataset, InputError
from viscy_data.cell_classification import annotated_cells, read_annotations
from viscy_data.stores import PlateWriter, read_plate, update_attributes
from viscy_data.tracks import write_tracks

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

T, DEPTH = 3, 2
SIZES = {"A/1/0": (40, 40), "A/1/1": (32, 56), "B/1/0": (40, 40)}
CHANNELS = ["GFP", "Phase"]
PLACES = [(1.0, 2.0), (15.6, 20.4), (30.0, 38.0)]
"""Of the three cells of each FOV in all its frames, two of them near to the border."""


def pixel(fov, t, c, z, y, x):
    return fov * 80_000 + t * 24_000 + c * 8_000 + z * 4_000 + y * 56 + x


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """FOVs of different size, whose pixels tell where they are from; annotations with and without places."""
    folder = tmp_path_factory.mktemp("classification")
    with PlateWriter(folder / "images.zarr", CHANNELS) as writer:
        for fov, (name, size) in enumerate(SIZES.items()):
            shape = (T, len(CHANNELS), DEPTH, *size)
            writer.write(name, pixel(fov, *np.indices(shape, sparse=True)).astype(np.float32))
    for fov, name in enumerate(SIZES):
        statistics = {channel: {"fov_statistics": {"mean": 100.0 * fov, "std": 2.0 + fov}} for channel in CHANNELS}
        update_attributes(folder / "images.zarr", name, "normalization", statistics)
        tracks = annotations([name]).drop(columns=["infection_state", "cell_cycle_state", "fov_name"])
        write_tracks(tracks, folder / "tracks" / name / "tracks.csv")
    annotations().to_csv(folder / "annotations.csv", index=False)
    return folder


def annotations(fovs=tuple(SIZES)) -> pd.DataFrame:
    """Every cell of every frame, with slashes before the names of FOVs, as some writers have them."""
    rows = [
        (f"/{fov}", track, t, 10 * t + track, y, x, (track + t) % 2, "G1" if track else "unknown")
        for fov in fovs
        for t in range(T)
        for track, (y, x) in enumerate(PLACES)
    ]
    columns = ["fov_name", "track_id", "t", "id", "y", "x", "infection_state", "cell_cycle_state"]
    return pd.DataFrame(rows, columns=columns).assign(parent_track_id=-1, parent_id=-1)


def dataset(folder, table=None, fovs=slice(None), transform=None, **options) -> ClassificationDataset:
    table = annotations() if table is None else table
    settings = {"channel_name": "Phase", "z_range": (0, 2), "initial_yx_patch_size": (8, 9), "transform": transform}
    return ClassificationDataset(read_plate(folder / "images.zarr")[fovs], table, **settings | options)


def module(folder, **options) -> ClassificationDataModule:
    settings = {
        "image_path": folder / "images.zarr",
        "annotation_path": folder / "annotations.csv",
        "val_fovs": ["A/1/1"],
        "channel_name": "Phase",
        "z_range": (0, 2),
        "train_exclude_timepoints": [],
        "train_transforms": None,
        "val_transforms": None,
        "initial_yx_patch_size": (8, 9),
        "batch_size": 4,
        "num_workers": 0,
    }
    return ClassificationDataModule(**settings | options)


def expected(row, size=(8, 9)) -> np.ndarray:
    """The patch about the nearest pixel, moved as far as the edge demands and z-scored by its own FOV."""
    name = row["fov_name"].strip("/")
    fov, extent = list(SIZES).index(name), SIZES[name]
    start = [
        int(np.clip(np.floor(row[a] + 0.5) - s // 2, 0, n - s)) for a, s, n in zip("yx", size, extent, strict=True)
    ]
    z, y, x = np.ogrid[0:2, start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
    return ((pixel(fov, row["t"], 1, z, y, x) - 100.0 * fov) / (2.0 + fov))[None].astype(np.float32)


class Shift(Randomizable, Transform):
    def __call__(self, image):
        return image + self.R.uniform(1e6, 2e6)


# The dataset


def test_patches_are_those_of_their_cells_whatever_the_size_of_the_fov(folder):
    data, table = dataset(folder), annotations()
    assert len(data) == len(table)
    images, labels = data[list(range(len(data)))]
    assert images.dtype == labels.dtype == torch.float32
    assert images.shape == (len(table), 1, 2, 8, 9)
    for image, label, (_, row) in zip(images, labels, table.iterrows(), strict=True):
        np.testing.assert_allclose(image, expected(row), rtol=1e-6)
        assert label.tolist() == [row["infection_state"]]
    assert data.labels.tolist() == table["infection_state"].tolist()


def test_a_single_item_is_a_sample(folder):
    data = dataset(folder, return_indices=True)
    image, label, index = data[5]
    images, _, columns = data[[4, 5]]
    assert torch.equal(image, images[1])
    assert image.shape == (1, 2, 8, 9)
    assert label.shape == (1,)
    assert index == {name: values[1] for name, values in columns.items()}
    assert index == {"fov_name": "A/1/0", "track_id": 2, "t": 1, "id": 12, "parent_track_id": -1, "parent_id": -1} | {
        "y": 30.0,
        "x": 38.0,
    }


def test_a_plate_of_iohub_is_read_as_well(folder):
    with open_ome_zarr(folder / "images.zarr") as plate:
        data = ClassificationDataset(plate, annotations(), "Phase", (0, 2), None, (8, 9))
    assert torch.equal(data[3][0], dataset(folder)[3][0])


def test_fovs_without_statistics_are_left_as_they_are_and_named(tmp_path):
    with PlateWriter(tmp_path / "images.zarr", CHANNELS) as writer:
        for name in ("A/1/0", "A/1/1"):
            writer.write(name, np.full((T, 2, DEPTH, 40, 40), 7, np.float32))
    flat = {"Phase": {"fov_statistics": {"mean": 5.0, "std": 0.0}}}
    update_attributes(tmp_path / "images.zarr", "A/1/1", "normalization", flat)
    with pytest.warns(UserWarning, match="1 of 2 FOVs have no fov_statistics of 'Phase' .*A/1/0; viscy preprocess"):
        data = dataset(tmp_path, annotations(["A/1/0", "A/1/1"]))
    values = [data[n][0].unique().tolist() for n in range(len(data))]
    assert values == [[7.0]] * 9 + [[2.0]] * 9


def test_a_crop_by_a_transform_keeps_the_cell_of_the_border(folder):
    data, table = dataset(folder, transform=[CenterSpatialCrop((2, 3, 3))]), annotations()
    for position, (_, row) in enumerate(table.iterrows()):
        crop, whole = data[position][0], expected(row, size=(1, 1))
        assert crop.shape == (1, 2, 3, 3)
        np.testing.assert_allclose(crop[:, :, 1, 1], whole[:, :, 0, 0], rtol=1e-6)


def test_random_transforms_are_seeded_by_the_batch_and_differ_between_samples(folder):
    data = dataset(folder, transform=Shift())
    images = data[[0, 1, 2]][0]
    assert torch.equal(images, data[[0, 1, 2]][0])
    assert torch.equal(images, pickle.loads(pickle.dumps(data))[[0, 1, 2]][0])
    assert not torch.equal(images, dataset(folder, transform=Shift(), seed=1)[[0, 1, 2]][0])
    shifts = [image.min() - plain.min() for image, plain in zip(images, dataset(folder)[[0, 1, 2]][0], strict=True)]
    assert len({round(float(shift)) for shift in shifts}) == 3


# Annotations


def test_names_of_states_are_numbers_and_what_is_unknown_is_minus_one(folder):
    states = dataset(folder, label_column="cell_cycle_state").labels
    assert states.tolist() == [-1, 0, 0] * 9
    table = annotations().assign(infection_state=["infected", "uninfected", None] * 9)
    assert dataset(folder, table).labels.tolist() == [1, 0, -1] * 9


def test_rows_of_other_plates_are_counted_and_left_out(folder):
    table = pd.concat([annotations(), annotations(["C/9/9"]).iloc[:4]])
    with pytest.warns(UserWarning, match="4 of 31 annotations are of FOVs that the plate does not have .*C/9/9"):
        assert len(dataset(folder, table)) == 27
    with pytest.raises(InputError, match="9 of 9 annotations are of FOVs that the plate does not have"):
        dataset(folder, annotations(["C/9/9"]))


@pytest.mark.parametrize("key", [["track_id", "t"], ["id"]])
def test_cells_are_found_in_their_tracks(folder, key):
    """Shuffled, without places, and with one annotation of a cell that there is not."""
    table = annotations().sample(frac=1, random_state=0)[["fov_name", *key, "infection_state"]]
    strange = table.iloc[:1].assign(**{key[0]: 777})
    fovs, options = read_plate(folder / "images.zarr"), {"tracks_path": folder / "tracks"}
    with pytest.warns(UserWarning, match="1 of 28 annotations are of no cell in the tracks and are left out"):
        cells = annotated_cells(pd.concat([table, strange]), fovs, "infection_state", **options)
    truth = annotations().assign(fov_name=lambda t: t["fov_name"].str.strip("/")).set_index(["fov_name", *key])
    assert len(cells) == 27
    for row in cells.to_dict("records"):
        own = truth.loc[tuple(row[name] for name in ["fov_name", *key])]
        for name in ("y", "x", "t", "track_id", "id"):
            assert row[name] == pytest.approx(own[name] if name in own else row[name])
        assert row["label"] == own["infection_state"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="y"), "field y\n.*no such column"),
        (lambda t: t.rename(columns={"infection_state": "Infection_State"}), "did you mean 'Infection_State'"),
        (lambda t: t.assign(infection_state="infekted"), "'infekted'\n.*did you mean 'infected'"),
        (lambda t: t.assign(infection_state=0.5), "found +0.5"),
        (lambda t: pd.concat([t, t.iloc[3:5].assign(infection_state=7)]), "2 observations with two labels, such as"),
    ],
)
def test_annotations_that_cannot_be_right_are_refused(folder, change, message):
    with pytest.raises(InputError, match=message):
        dataset(folder, change(annotations()))


def test_repeated_annotations_count_once(folder):
    table = annotations()
    with pytest.warns(UserWarning, match="3 of 30 annotations repeat another one"):
        assert len(dataset(folder, pd.concat([table, table.iloc[:3]]))) == 27


def test_cells_outside_their_image_are_left_out(folder):
    table = annotations()
    table.loc[0, "y"] = 40.0
    table.loc[5, "t"] = T
    with pytest.warns(UserWarning, match="1 of 27") as said:
        assert len(dataset(folder, table)) == 25
    assert all("1 of 27" in str(warning.message) and "left out" in str(warning.message) for warning in said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel_name": "phase"}, "field channel_name\n.*found +phase"),
        ({"z_range": (0, 3)}, "field z_range"),
        ({"initial_yx_patch_size": (33, 8)}, "field initial_yx_patch_size\n.*A/1/1 has 32 x 56"),
    ],
)
def test_what_the_images_do_not_have_is_refused(folder, options, message):
    with pytest.raises(InputError, match=message):
        dataset(folder, **options)


def test_a_table_is_read_with_its_place_in_messages(tmp_path):
    path = tmp_path / "annotations.csv"
    path.write_text("fov_name;t;y;x;infection_state\n/A/1/0;0;1,5;2,5;1\n")
    assert read_annotations(path).to_dict("records") == [
        {"fov_name": "A/1/0", "t": 0, "y": 1.5, "x": 2.5, "infection_state": 1}
    ]
    path.write_text("fov_name,t,y,x\nA/1/0,0,1,1\nA/1/0,one,1,1\n")
    with pytest.raises(InputError, match=r"field t\n.*'one' in line 3"):
        read_annotations(path)


# The data module


def test_named_fovs_validate_and_excluded_frames_do_not_train(folder):
    data = module(folder, val_fovs=["/A/1/1"], train_exclude_timepoints=[1])
    data.setup("fit")
    assert set(data.val_dataset.cells["fov_name"]) == {"A/1/1"}
    assert set(data.val_dataset.cells["t"]) == {0, 1, 2}
    assert set(data.train_dataset.cells["fov_name"]) == {"A/1/0", "B/1/0"}
    assert set(data.train_dataset.cells["t"]) == {0, 2}
    seen = [row for batch in data.train_dataloader().sampler for row in batch]
    assert set(seen) == set(range(12))
    assert len(data.train_dataloader()) == 3
    images, labels = next(iter(data.val_dataloader()))
    assert torch.equal(images, data.val_dataset[[0, 1, 2, 3]][0])
    assert labels.shape == (4, 1)


def test_all_fovs_train_when_none_validates(folder):
    data = module(folder, val_fovs=None)
    data.setup("fit")
    assert len(data.train_dataset) == 27
    assert data.val_dataloader() == []


def test_cells_without_a_label_are_predicted_only(folder):
    data = module(folder, label_column="cell_cycle_state", train_transforms=[Shift()])
    with pytest.warns(UserWarning, match="cells for .* have no cell_cycle_state and are left out"):
        data.setup("fit")
    assert len(data.train_dataset) == 12
    assert set(data.train_dataset.labels.tolist()) == {0}
    data.setup("predict")
    assert len(data.predict_dataset) == 27
    batches = list(data.predict_dataloader())
    assert [label for _, labels, _ in batches for label in labels[:, 0].tolist()] == [-1, 0, 0] * 9
    names = [name for _, _, index in batches for name in index["fov_name"]]
    assert names == [name for name in SIZES for _ in range(9)]
    assert torch.cat([images for images, _, _ in batches]).max() < 1e6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fovs": ["A/1/11"]}, "field val_fovs\n.*'A/1/11'\n.*did you mean 'A/1/1"),
        ({"val_fovs": list(SIZES)}, "no labelled cell for train among 27"),
        ({"train_exclude_timepoints": [0, 1, 2]}, "no labelled cell for train"),
        ({"train_transforms": ["RandFlip"]}, "field train_transforms"),
        ({"batch_size": 0, "num_workers": -1}, "2 problems"),
    ],
)
def test_options_that_cannot_work_are_refused(folder, options, message):
    with pytest.raises(InputError, match=message):
        module(folder, **options).setup("fit")


def test_there_is_no_test_stage(folder):
    with pytest.raises(NotImplementedError, match="no stage 'test'"):
        module(folder).setup("test")
