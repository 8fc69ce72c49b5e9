from __future__ import annotations

import json
import struct
import sys
import tracemalloc
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viscy_data.errors import InputError, MissingInputError
from viscy_data.images import (
    ImportOptions,
    NamePattern,
    import_images,
    open_images,
    parse_interval,
    plan_import,
    propose_pattern,
)
from viscy_data.images.sources import OpenFiles
from viscy_data.stores import read_plate, read_stack

tifffile = pytest.importorskip("tifffile")

T, C, Z, Y, X = 3, 2, 4, 20, 30


def pixels(shape=(T, C, Z, Y, X), dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def imported(tmp_path, *sources, name="plate.zarr", **options):
    """Import, and return the plan, the FOVs by name, and their pixels (T, C, Z, Y, X)."""
    plan = plan_import(sources, ImportOptions(**options))
    fovs = {fov.name: fov for fov in read_plate(import_images(plan, tmp_path / name))}
    frames = {
        name: np.stack([[read_stack(fov, t, c) for c in range(fov.shape[1])] for t in range(fov.shape[0])])
        for name, fov in fovs.items()
    }
    return plan, fovs, frames


# Formats


def write_imagej(path, array):
    metadata = {"axes": "TZCYX", "spacing": 2.0, "unit": "um", "finterval": 600.0}
    tifffile.imwrite(
        path, array.transpose(0, 2, 1, 3, 4), imagej=True, resolution=(1 / 0.65, 1 / 0.65), metadata=metadata
    )


def write_ome(path, array, **more):
    size = {"PhysicalSizeX": 650, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.65, "PhysicalSizeZ": 2}
    time = {"TimeIncrement": 10, "TimeIncrementUnit": "min", "Channel": {"Name": ["Phase", "GFP"]}}
    tifffile.imwrite(path, array, metadata={"axes": "TCZYX", **size, **time}, **more)


def write_micromanager(path, arrays, first_position=0):
    """Write a stack as Micro-Manager lays it out: summary first, pixels 162 bytes behind each directory, an index."""
    n_t, n_c, n_z, height, width = arrays[0].shape
    labels = [{"Label": f"B{number + 3}-Site_0"} for number in range(first_position + len(arrays))]
    summary = {
        "MicroManagerVersion": "2.0", "Prefix": path.stem.split("_MMStack")[0], "Frames": n_t,
        "Channels": n_c, "Slices": n_z, "Positions": len(labels), "ChNames": ["Phase", "GFP"], "PixelSize_um": 0.65,
        "z-step_um": 2.0, "Interval_ms": 600000.0, "TimeFirst": True, "SlicesFirst": False, "StagePositions": labels,
    }  # fmt: skip
    text, of_page = json.dumps(summary).encode(), b'{"PixelSizeUm": 0.65}\0'
    first = 40 + len(text) + len(of_page)
    size, places = 162 + height * width * 2, list(np.ndindex(n_t, len(arrays), n_c, n_z))
    end = first + size * len(places)
    comments = end + 8 + 20 * len(places)
    header = (first, 54773648, end, 483765892, comments, 99384722, comments, 2355492, len(text))
    data = struct.pack("<2sH9I", b"II", 42, *header) + text + of_page
    index = struct.pack("<II", 3453623, len(places))
    for number, (t, p, c, z) in enumerate(places):
        at = first + number * size
        entries = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 16), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, at + 162), (277, 3, 1, 1), (278, 3, 1, height), (279, 4, 1, height * width * 2),
            (282, 3, 1, 1), (283, 3, 1, 1),
            (296, 3, 1, 1), (51123, 2, len(of_page), 40 + len(text)),
        ]  # fmt: skip
        data += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        data += struct.pack("<I", at + size if number < len(places) - 1 else 0) + arrays[p][t, c, z].tobytes()
        index += struct.pack("<IIIII", c, z, t, first_position + p, at)
    path.write_bytes(data + index)


def write_czi(path, arrays, leave_out=()):
    """Write one scene per array, side by side."""
    from pylibCZIrw.czi import create_czi

    with create_czi(str(path)) as file:
        for scene, array in enumerate(arrays):
            for t, c, z in np.ndindex(array.shape[:3]):
                if (scene, t, c, z) not in leave_out:
                    plane = {"T": t, "C": c, "Z": z}
                    file.write(array[t, c, z][..., None], plane=plane, scene=scene, location=(100 * scene, 0))
        file.write_metadata("", {0: "Phase", 1: "GFP"}, scale_x=0.65e-6, scale_y=0.65e-6, scale_z=2e-6)


def write_lif(path, arrays, first_axis=4):
    """Write a container of Leica: a header in XML, then a block of bytes per image. Axis 4 is time, 10 a mosaic."""

    def text(value):
        encoded = value.encode("utf-16-le")
        return encoded, len(encoded) // 2

    elements = ""
    for number, array in enumerate(arrays):
        n_t, n_c, n_z, height, width = array.shape
        plane = height * width * 2
        sizes = [  # DimID, elements, length (metres, seconds), bytes to the next
            (1, width, 0.65e-6 * (width - 1), 2), (2, height, 0.65e-6 * (height - 1), width * 2),
            (3, n_z, -2e-6 * (n_z - 1), plane * n_c), (first_axis, n_t, 600.0 * (n_t - 1), plane * n_c * n_z),
        ]  # fmt: skip
        dimensions = "".join(
            f'<DimensionDescription DimID="{axis}" NumberOfElements="{size}" Origin="0" Length="{length}" '
            f'Unit="m" BytesInc="{step}" BitInc="0"/>'
            for axis, size, length, step in sizes
        )
        channels = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" '
            f'Max="65535" Unit="" LUTName="{colour}" IsLUTInverted="0" BytesInc="{plane * c}" BitInc="0">'
            f"{'<ChannelProperty><Key>DyeName</Key><Value>GFP</Value></ChannelProperty>' * c}</ChannelDescription>"
            for c, colour in enumerate(["Gray", "Green"])
        )
        elements += (
            f'<Element Name="B-0{number + 2}" UniqueID="u{number}"><Data><Image><ImageDescription>'
            f"<Channels>{channels}</Channels><Dimensions>{dimensions}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{array.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
        )
    xml, n_characters = text(
        f'<LMSDataContainerHeader Version="2"><Element Name="plate"><Children>{elements}</Children></Element>'
        "</LMSDataContainerHeader>"
    )
    data = struct.pack("<IIBI", 0x70, len(xml) + 5, 0x2A, n_characters) + xml
    for number, array in enumerate(arrays):
        name, n_letters = text(f"MemBlock_{number}")
        stored = np.ascontiguousarray(array.transpose(0, 2, 1, 3, 4)).tobytes()
        data += struct.pack("<IIBQBI", 0x70, len(name) + 14, 0x2A, len(stored), 0x2A, n_letters) + name + stored
    path.write_bytes(data)


KNOWN = {"pixel_size_um": pytest.approx((0.65, 0.65)), "z_step_um": 2.0}


@pytest.mark.parametrize(
    ("name", "write", "expected"),
    [
        ("stack.tif", write_imagej, {"interval_seconds": 600.0, "channel_names": ()}),
        ("stack.ome.tif", write_ome, {"interval_seconds": 600.0, "channel_names": ("Phase", "GFP")}),
        (
            "mm_MMStack.tif",
            lambda path, array: write_micromanager(path, [array]),
            {"interval_seconds": 600.0, "channel_names": ("Phase", "GFP")},
        ),
        (
            "stack.czi",
            lambda path, array: write_czi(path, [array]),
            {"interval_seconds": None, "channel_names": ("Phase", "GFP")},
        ),
        (
            "stack.lif",
            lambda path, array: write_lif(path, [array]),
            {"interval_seconds": 600.0, "channel_names": ("Gray", "GFP")},
        ),
    ],
)
def test_pixels_and_facts_of_every_format_arrive(tmp_path, name, write, expected):
    if name.endswith((".czi", ".lif")):
        pytest.importorskip({"czi": "pylibCZIrw.czi", "lif": "liffile"}[name[-3:]])
    array = pixels()
    write(tmp_path / name, array)
    with open_images(tmp_path / name) as image:
        [facts] = image.positions
        np.testing.assert_array_equal(image.read(0, 2, 1, 3), array[2, 1, 3])
    assert facts.shape == array.shape
    for key, value in (KNOWN | expected).items():
        told = pytest.approx(value, rel=0.01) if isinstance(value, float) else value
        assert getattr(facts, key) == told, key
    _, fovs, frames = imported(tmp_path, tmp_path / name)
    [(fov_name, fov)] = fovs.items()
    np.testing.assert_array_equal(frames[fov_name], array)
    assert fov.dtype == "uint16"
    seconds = expected["interval_seconds"] or 1.0
    assert fov.scale == pytest.approx((seconds, 1.0, 2.0, 0.65, 0.65), rel=0.01)
    assert fov.channel_names == (expected["channel_names"] or ("0", "1"))


@pytest.mark.parametrize("dtype", ["uint8", "float32", ">u2"])
@pytest.mark.parametrize("more", [{}, {"compression": "zlib", "tile": (16, 16)}, {"bigtiff": True}])
def test_types_and_layouts_of_tiff(tmp_path, dtype, more):
    array = pixels(dtype=dtype)
    write_ome(tmp_path / "b.ome.tif", array, **more)
    _, fovs, frames = imported(tmp_path, tmp_path / "b.ome.tif")
    np.testing.assert_array_equal(frames["A/1/0"], array)
    assert fovs["A/1/0"].dtype == np.dtype(dtype).newbyteorder("=").name


def test_a_hyperstack_with_one_directory_for_all_pages(tmp_path):
    """ImageJ writes stacks of more than 4 GB like this."""
    array = pixels()
    write_imagej(tmp_path / "large.tif", array)
    data = bytearray((tmp_path / "large.tif").read_bytes())
    at = struct.unpack_from("<I", data, 4)[0]
    n_entries = struct.unpack_from("<H", data, at)[0]
    struct.pack_into("<I", data, at + 2 + 12 * n_entries, 0)  # no next directory
    (tmp_path / "large.tif").write_bytes(data)
    _, _, frames = imported(tmp_path, tmp_path / "large.tif")
    np.testing.assert_array_equal(frames["A/1/0"], array)


def test_scenes_images_and_stage_positions_are_fovs(tmp_path):
    pytest.importorskip("pylibCZIrw.czi")
    pytest.importorskip("liffile")
    arrays = [pixels(seed=seed) for seed in (1, 2)]
    write_czi(tmp_path / "a.czi", arrays)
    write_lif(tmp_path / "b.lif", arrays)
    write_micromanager(tmp_path / "c_MMStack.tif", arrays)
    plan, _, frames = imported(tmp_path, tmp_path / "a.czi")
    assert sorted(frames) == ["A/1/0", "A/1/1"]
    assert any("each file is a well of its own" in note for note in plan.notes)
    _, _, of_lif = imported(tmp_path, tmp_path / "b.lif", name="lif.zarr")
    assert sorted(of_lif) == ["B/2/0", "B/3/0"]  # named B-02 and B-03
    _, _, of_stack = imported(tmp_path, tmp_path / "c_MMStack.tif", name="mm.zarr")
    assert sorted(of_stack) == ["B/3/0", "B/4/0"]  # its stage positions are B3-Site_0 and B4-Site_0
    (tmp_path / "alone").mkdir()
    write_micromanager(tmp_path / "alone" / "d_MMStack.tif", arrays[1:], first_position=1)
    _, _, of_one = imported(tmp_path, tmp_path / "alone" / "d_MMStack.tif", name="one.zarr")
    np.testing.assert_array_equal(of_one["B/4/0"], arrays[1])
    for own in (frames, of_lif, of_stack):
        for array, name in zip(arrays, sorted(own), strict=True):
            np.testing.assert_array_equal(own[name], array)


def test_tiles_of_a_mosaic_are_fovs(tmp_path):
    pytest.importorskip("liffile")
    array = pixels()
    write_lif(tmp_path / "a.lif", [array], first_axis=10)
    _, _, frames = imported(tmp_path, tmp_path / "a.lif")
    assert sorted(frames) == ["B/2/0", "B/2/1", "B/2/2"]
    for tile in range(T):
        np.testing.assert_array_equal(frames[f"B/2/{tile}"], array[tile : tile + 1])


def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nd2", None)
    (tmp_path / "a.nd2").touch()
    with pytest.raises(ImportError, match=r"nd2 is needed .*viscy-data\[images\]"):
        plan_import([tmp_path / "a.nd2"])


def test_planes_that_a_czi_lacks_are_named_not_black(tmp_path):
    pytest.importorskip("pylibCZIrw.czi")
    write_czi(tmp_path / "a.czi", [pixels()], leave_out={(0, 2, 1, 3)})
    with pytest.raises(InputError, match=r"1 planes are missing: A/1/0 t 2 channel 1 z 3"):
        plan_import([tmp_path / "a.czi"])
    plan, _, frames = imported(tmp_path, tmp_path / "a.czi", fill_missing=True)
    assert not frames["A/1/0"][2, 1, 3].any()
    assert frames["A/1/0"][2, 1, 2].any()
    assert "stay zero" in " ".join(plan.notes)


def test_an_ome_recording_of_several_files_is_one(tmp_path):
    arrays = [pixels((T, C, Y, X), seed=seed) for seed in (1, 2)]
    with tifffile.TiffWriter(tmp_path / "one.ome.tif") as file:
        for name, array in zip(("Well B2", "Well B3"), arrays, strict=True):
            file.write(array, metadata={"axes": "TCYX", "Name": name, "Channel": {"Name": ["Phase", "GFP"]}})
    _, _, frames = imported(tmp_path, tmp_path / "one.ome.tif")
    np.testing.assert_array_equal(frames["B/3/0"][:, :, 0], arrays[1])
    # the same document over two files, one per frame
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{own}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
        'SizeX="30" SizeY="20" SizeC="1" SizeZ="1" SizeT="2"><Channel ID="Channel:0" Name="GFP"/>'
        '<TiffData FirstT="0" IFD="0" PlaneCount="1"><UUID FileName="t0.ome.tif">urn:uuid:t0</UUID></TiffData>'
        '<TiffData FirstT="1" IFD="0" PlaneCount="1"><UUID FileName="t1.ome.tif">urn:uuid:t1</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    folder = tmp_path / "parts"
    folder.mkdir()
    for t in (0, 1):
        tifffile.imwrite(
            folder / f"t{t}.ome.tif", arrays[0][t, 0], description=xml.replace("{own}", f"t{t}"), metadata=None
        )
    plan, _, frames = imported(tmp_path, folder, name="parts.zarr")
    np.testing.assert_array_equal(frames["A/1/0"][:, 0, 0], arrays[0][:2, 0])
    assert any("1 files are parts of a recording" in note for note in plan.notes)


class RecordingOfNikon:
    """What nd2 offers of a file, in its own classes, for the one format that nothing but a microscope writes."""

    def __init__(self, arrays, n_taken=None):
        from nd2 import structures as nd2

        n_t, n_c, n_z, height, width = arrays[0].shape
        self.sizes = {"T": n_t, "P": len(arrays), "Z": n_z, "C": n_c, "Y": height, "X": width}
        self.loop_indices = tuple(
            {"T": t, "P": p, "Z": z} for t in range(n_t) for p in range(len(arrays)) for z in range(n_z)
        )
        n_frames = len(self.loop_indices) if n_taken is None else n_taken
        self.attributes = nd2.Attributes(16, 16, n_c, height, "unsigned", n_frames, widthPx=width, channelCount=n_c)
        points = [nd2.Position(nd2.StagePosition(0, 0, 0), name=f"B0{p + 2}") for p in range(len(arrays))]
        period = nd2.TimeLoopParams(0.0, 600000.0, 0.0, nd2.PeriodDiff(avg=600123.0))
        self.experiment = [
            nd2.TimeLoop(n_t, 0, period),
            nd2.XYPosLoop(len(arrays), 1, nd2.XYPosLoopParams(False, points)),
            nd2.ZStackLoop(n_z, 2, nd2.ZStackLoopParams(0, 2.0, True)),
        ]
        flags, axes = (True, True, False), ("distance",) * 3
        volume = nd2.Volume(flags, (0.65, 0.65, 1.0), axes, 16, 16, (1, 0, 0, 1), 1, "unsigned", (width, height, n_z))
        channels = [
            nd2.Channel(nd2.ChannelMeta(name, c, nd2.Color(0, 0, 0)), None, nd2.Microscope(), volume)
            for c, name in enumerate(("Phase", "GFP"))
        ]
        self.metadata, self.dtype, self._arrays = nd2.Metadata(None, channels), arrays[0].dtype, arrays

    def read_frame(self, number):
        at = self.loop_indices[number]
        return self._arrays[at["P"]][at["T"], :, at["Z"]]

    def close(self):
        pass


def test_stage_positions_of_an_nd2_are_fovs(tmp_path, monkeypatch):
    nd2 = pytest.importorskip("nd2")
    assert set(RecordingOfNikon([pixels()]).__dict__) - {"_arrays"} <= set(dir(nd2.ND2File))
    arrays = [pixels(seed=seed) for seed in (1, 2)]
    monkeypatch.setattr(nd2, "ND2File", lambda path: RecordingOfNikon(arrays))
    (tmp_path / "a.nd2").touch()
    _, fovs, frames = imported(tmp_path, tmp_path / "a.nd2")
    np.testing.assert_array_equal(frames["B/2/0"], arrays[0])
    np.testing.assert_array_equal(frames["B/3/0"], arrays[1])
    assert fovs["B/3/0"].scale == pytest.approx((600.123, 1.0, 2.0, 0.65, 0.65))
    assert fovs["B/3/0"].channel_names == ("Phase", "GFP")
    monkeypatch.setattr(nd2, "ND2File", lambda path: RecordingOfNikon(arrays, n_taken=T * 2 * Z - 1))
    with pytest.raises(InputError, match="2 planes are missing: B/3/0 t 2 channel 0 z 3; B/3/0 t 2 channel 1 z 3"):
        plan_import([tmp_path / "a.nd2"])


def test_other_formats_are_left_to_bioio(tmp_path, monkeypatch):
    bioio = pytest.importorskip("bioio")
    path = tmp_path / "a.xyz"
    path.touch()
    with pytest.raises(InputError, match="plugin of bioio"):
        plan_import([path])
    array, of_array = pixels(), bioio.BioImage
    sizes = {"physical_pixel_sizes": [2.0, 0.5, 0.5], "channel_names": ["Phase", "GFP"]}
    monkeypatch.setattr(bioio, "BioImage", lambda path: of_array(array, dim_order="TCZYX", **sizes))
    monkeypatch.setattr(of_array, "time_interval", timedelta(minutes=5))
    _, fovs, frames = imported(tmp_path, path)
    np.testing.assert_array_equal(frames["A/1/0"], array)
    assert fovs["A/1/0"].scale == (300.0, 1.0, 2.0, 0.5, 0.5)


# Names


def write_planes(folder, array, text, wells=("A01",), fovs=(1,), channels=("Phase", "GFP")):
    """Write one file per plane of every FOV, all FOVs differently."""
    folder.mkdir(exist_ok=True)
    stacks = {}
    for number, (well, fov) in enumerate((well, fov) for well in wells for fov in fovs):
        own = stacks[well, fov] = array + number
        for t, c, z in np.ndindex(array.shape[:3]):
            name = text.format(well=well, fov=fov, t=t, z=z, channel=channels[c], hours=t // 2, minutes=30 * (t % 2))
            tifffile.imwrite(folder / name, own[t, c, z])
    return stacks


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("{well}_s{fov}_t{t:03}_z{z}_{channel}.tif", "{row}{col}_s{fov}_t{t}_z{z}_{channel}.tif"),
        ("{well}_s{fov}_t{t:03}_z{z}_{channel}.tif", None),
        ("HC1_{channel}_{well}_{fov}_00d{hours:02}h{minutes:02}m_z{z}.tif", "HC1_{channel}_{well}_{fov}_{days}d{hours}h{minutes}m_z{z}.tif"),  # noqa: E501
    ],
)  # fmt: skip
def test_planes_of_a_folder_find_their_places(tmp_path, text, pattern):
    array = pixels()
    stacks = write_planes(tmp_path / "in", array, text, wells=("A01", "B12"), fovs=(1, 10))
    plan, fovs, frames = imported(tmp_path, tmp_path / "in", pattern=pattern)
    names = {("A01", 1): "A/1/1", ("A01", 10): "A/1/10", ("B12", 1): "B/12/1", ("B12", 10): "B/12/10"}
    assert plan.channel_names == ("GFP", "Phase")  # by name
    assert set(frames) == set(names.values())
    for key, name in names.items():
        np.testing.assert_array_equal(frames[name], stacks[key][:, ::-1])
    assert fovs["A/1/1"].scale[0] == (1800.0 if "hours" in text else 1.0)


@given(
    well=st.from_regex(r"[A-P](0[1-9]|1\d)", fullmatch=True),
    fov=st.integers(0, 200),
    t=st.integers(0, 999),
    z=st.integers(0, 99),
    channel=st.from_regex("[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True),
    text=st.sampled_from(["{well}_s{fov}_t{t}_z{z}_{channel}.tif", "w{well}-f{fov}.T{t}.Z{z}.{channel}.ome.tif"]),
)
def test_a_pattern_reads_what_it_writes(well, fov, t, z, channel, text):
    fields = {"well": well, "fov": str(fov), "t": str(t), "z": str(z), "channel": channel}
    assert NamePattern(text).read(text.format(**fields)) == fields


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["r02c03f04p01-ch1sk1fk1fl1.tiff", "r02c03f04p02-ch2sk1fk1fl1.tiff"], {"row": "02", "z": "01", "t": "1"}),
        (["X_B02_T0001F001L01A01Z01C01.tif"] * 2, {"well": "B02", "t": "0001", "fov": "001", "channel": "01"}),
        (["exp_w1_s1_t1.TIF", "exp_w2_s1_t1.TIF"], {"channel": "1", "fov": "1", "t": "1"}),
        (["img_channel000_position001_time000000002_z003.tif"] * 2, {"channel": "000", "fov": "001", "z": "003"}),
        (["day1_t1.tif", "day2_t1.tif"], None),  # is a day a channel?
        (["a_1.tif", "a_2.tif"], None),  # frames, slices?
        (["first.tif", "second.tif"], None),
        (["t1.tif", "t1_x.tif"], None),
    ],
)  # fmt: skip
def test_patterns_are_found_or_not_guessed(names, expected):
    text = propose_pattern(names)
    assert (text is None) == (expected is None)
    if expected:
        assert expected.items() <= NamePattern(text).read(names[0]).items()


def test_stacks_named_by_channel_and_options_over_metadata(tmp_path):
    array = pixels()
    for c, name in enumerate(("P", "G")):
        write_imagej(tmp_path / f"B3_{name}.tif", array[:, c : c + 1])
    plan, fovs, frames = imported(
        tmp_path, tmp_path / "B3_P.tif", tmp_path / "B3_G.tif",
        pattern="{well}_{channel}.tif", channels=["P=Phase", "G=GFP"], pixel_size_um=0.5, interval_seconds=60.0,
    )  # fmt: skip
    np.testing.assert_array_equal(frames["B/3/0"], array[:, ::-1])
    assert fovs["B/3/0"].channel_names == ("GFP", "Phase")
    assert fovs["B/3/0"].scale == (60.0, 1.0, 2.0, 0.5, 0.5)
    said = "\n".join(plan.notes)
    assert "interval: 60 s as given; files say 600" in said
    assert "channels: GFP (G), Phase (P)" in said


def test_unknown_sizes_are_said_with_what_that_means(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels((5, Y, X)), photometric="minisblack")
    with pytest.raises(InputError, match=r"5 x 20 x 30.*\n.*\n.*--axes TYX"):
        plan_import([tmp_path / "a.tif"])
    plan, fovs, _ = imported(tmp_path, tmp_path / "a.tif", axes="TYX")
    assert fovs["A/1/0"].shape == (5, 1, 1, Y, X)
    said = "\n".join(plan.notes)
    assert "interval: unknown" in said
    assert "pixel size: unknown: 1 is written, so tracks in micrometres cannot be converted" in said
    assert "z step" not in said


def test_a_table_says_where_positions_go(tmp_path):
    for name in ("one", "two"):
        write_ome(tmp_path / f"{name}.ome.tif", pixels())
    (tmp_path / "map.csv").write_text("source,fov\none.ome.tif,B/3/0\ntwo.ome.tif,/B/3/1/\n")
    sources = [tmp_path / "one.ome.tif", tmp_path / "two.ome.tif"]
    assert [fov.name for fov in plan_import(sources, ImportOptions(table=tmp_path / "map.csv")).fovs] == [
        "B/3/0",
        "B/3/1",
    ]
    (tmp_path / "map.csv").write_text("source,fov\none.ome.tif,B/3/0\n")
    with pytest.raises(InputError, match=r"two\.ome\.tif, field fov\n.*no row"):
        plan_import(sources, ImportOptions(table=tmp_path / "map.csv"))
    assert [fov.name for fov in plan_import(sources, ImportOptions(well="C04")).fovs] == ["C/4/0", "C/4/1"]


def test_options_are_used_or_refused(tmp_path):
    folder = tmp_path / "in"
    stacks = write_planes(folder, pixels((2, 1, 1, Y, X)), "x_t{t}.tif")
    (folder / "old.zarr.parts").mkdir()
    tifffile.imwrite(folder / "old.zarr.parts" / "x_t0.tif", pixels((Y, X)))  # the inside of stores is no image
    _, _, frames = imported(tmp_path, folder, well="C4")
    np.testing.assert_array_equal(frames["C/4/0"], stacks["A01", 1])
    write_planes(tmp_path / "wells", pixels((2, 1, 1, Y, X)), "{well}_t{t}.tif")
    with pytest.raises(InputError, match=r"C4, and \{well\} in the pattern"):
        plan_import([tmp_path / "wells"], ImportOptions(well="C4"))
    with pytest.raises(InputError, match="--pattern or --well beside it"):
        plan_import([folder], ImportOptions(well="C4", table=tmp_path / "map.csv"))


def test_axes_of_the_user_stand_over_those_of_the_file(tmp_path):
    array = pixels((1, 1, 5, Y, X))  # five frames that were saved as slices
    write_imagej(tmp_path / "a.tif", array)
    assert plan_import([tmp_path / "a.tif"]).fovs[0].shape == (1, 1, 5, Y, X)
    _, fovs, frames = imported(tmp_path, tmp_path / "a.tif", axes="TYX")
    assert fovs["A/1/0"].shape == (5, 1, 1, Y, X)
    np.testing.assert_array_equal(frames["A/1/0"][:, 0, 0], array[0, 0])
    with pytest.raises(InputError, match="3 different letters of TCZYX, for an array of 5 x 20 x 30"):
        plan_import([tmp_path / "a.tif"], ImportOptions(axes="TCYX"))


@pytest.mark.parametrize(("per_inch", "expected"), [(72, None), (300, None), (25400 / 0.65, 0.65)])
def test_resolutions_for_printers_are_no_pixel_sizes(tmp_path, per_inch, expected):
    tifffile.imwrite(tmp_path / "a.tif", pixels((Y, X)), resolution=(per_inch, per_inch), resolutionunit="INCH")
    with open_images(tmp_path / "a.tif") as image:
        found = image.positions[0].pixel_size_um
    assert found == (None if expected is None else pytest.approx((expected, expected), rel=1e-3))


# Bad input


def test_missing_doubled_and_unlike_planes_are_named(tmp_path):
    folder, pattern = tmp_path / "in", "{well}_s{fov}_t{t}_z{z}_{channel}.tif"
    write_planes(folder, pixels((4, 2, 1, Y, X)), pattern)
    options = ImportOptions(pattern=pattern)
    (folder / "A01_s1_t2_z0_GFP.tif").unlink()
    with pytest.raises(InputError, match="1 planes are missing: A/1/1 t 2 channel GFP"):
        plan_import([folder], options)
    (folder / "A01_s1_t2_z0_Phase.tif").unlink()  # the whole frame
    with pytest.raises(InputError, match="2 planes are missing: A/1/1 t 2 channel GFP; A/1/1 t 2 channel Phase"):
        plan_import([folder], options)
    tifffile.imwrite(folder / "A1_s1_t1_z0_GFP.tif", pixels((Y, X)))
    with pytest.raises(InputError, match=r"A1_s1_t1_z0_GFP\.tif|A01_s1_t1_z0_GFP\.tif has too"):
        plan_import([folder], options)
    tifffile.imwrite(folder / "A1_s1_t1_z0_GFP.tif", pixels((Y, X + 1)))
    (folder / "A01_s1_t1_z0_GFP.tif").unlink()
    with pytest.raises(InputError, match=r"20 Y x 31 X of uint16\n.*20 Y x 30 X of uint16"):
        plan_import([folder], ImportOptions(pattern=pattern, fill_missing=True))


def test_patterns_that_match_nothing_show_a_name(tmp_path):
    write_planes(tmp_path / "in", pixels((2, 1, 1, Y, X)), "{well}_s{fov}_t{t}_z{z}_{channel}.tif")
    with pytest.raises(InputError, match=r"one is called A01_s1_t0_z0_Phase\.tif"):
        plan_import([tmp_path / "in"], ImportOptions(pattern="{well}-{t}.tif"))
    with pytest.raises(InputError, match="did you mean 'channel'"):
        plan_import([tmp_path / "in"], ImportOptions(pattern="{chanel}.tif"))
    with pytest.raises(InputError, match=r"both \{t\} and \{hours\}"):
        plan_import([tmp_path / "in"], ImportOptions(pattern="{t}_{hours}.tif"))


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "broken.tif").write_bytes(b"II*\0\xff\xff\0\0 nothing")
    (tmp_path / "broken.lif").write_bytes(b"no lif")
    for name in ("broken.tif", "broken.lif"):
        with pytest.raises(InputError, match=name):
            plan_import([tmp_path / name])
    with pytest.raises(MissingInputError, match="did you mean 'broken"):
        plan_import([tmp_path / "brokn.tif"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"no image among its files \(1 .txt\)"):
        plan_import([tmp_path / "empty"])
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((Y, X, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="a colour image"):
        plan_import([tmp_path / "rgb.tif"])
    write_ome(tmp_path / "a.ome.tif", pixels())
    with pytest.raises(InputError, match="a name for each of Phase, GFP"):
        plan_import([tmp_path / "a.ome.tif"], ImportOptions(channels=["one"]))


def test_planes_without_a_known_pattern_are_not_made_into_fovs(tmp_path):
    write_planes(tmp_path / "in", pixels((3, 1, 1, Y, X)), "a_{t}.tif")
    with pytest.raises(
        InputError, match=r"3 files of one plane each, such as a_0\.tif(.|\n)*--pattern 'a_\{\?\}\.tif'"
    ):
        plan_import([tmp_path / "in"])


def test_uneven_times_are_told_from_missing_ones(tmp_path):
    for minutes in (0, 30, 61, 90):
        tifffile.imwrite(tmp_path / f"A01_00d{minutes // 60:02}h{minutes % 60:02}m.tif", pixels((Y, X)))
    with pytest.raises(InputError, match="unevenly apart: 0, 1800, 3660, 5400"):
        plan_import([tmp_path], ImportOptions(fill_missing=True))


@pytest.mark.parametrize(("names", "fovs"), [(("P1", "P2"), ["A/1/0", "A/1/1"]), (("A-02", "P2"), ["A/2/0", "P/2/0"])])
def test_positions_called_p_are_no_row_of_wells(tmp_path, names, fovs):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for name in names:
            file.write(pixels((T, Y, X)), metadata={"axes": "TYX", "Name": name}, photometric="minisblack")
    assert [fov.name for fov in plan_import([tmp_path / "a.ome.tif"]).fovs] == fovs


@pytest.mark.parametrize(("text", "seconds"), [("10min", 600.0), ("30 s", 30.0), ("0.5h", 1800.0), ("500ms", 0.5)])
def test_intervals_have_units(text, seconds):
    assert parse_interval(text) == seconds


@pytest.mark.parametrize("text", ["10", "min", "0s", "-3s", "10 parsecs", "1.2.3s"])
def test_intervals_without_a_unit_are_refused(text):
    with pytest.raises(InputError, match="such as 10min"):
        parse_interval(text)


# Writing


class Killed(Exception):
    pass


def test_an_interrupted_import_goes_on_where_it_stopped(tmp_path, monkeypatch):
    array = pixels((T, C, 20, Y, X))  # two blocks of slices
    write_ome(tmp_path / "a.ome.tif", array)
    plan, output = plan_import([tmp_path / "a.ome.tif"]), tmp_path / "plate.zarr"
    reads = []
    read = OpenFiles.read
    monkeypatch.setattr(OpenFiles, "read", lambda self, *at: reads.append(at[2:]) or read(self, *at))

    def stop(n_done, n_blocks):
        if n_done == 5:
            raise Killed

    with pytest.raises(Killed):
        import_images(plan, output, on_block=stop)
    assert not output.exists()
    with pytest.raises(InputError):  # nobody takes half of it for a plate
        read_plate(tmp_path / "plate.zarr.parts" / "plate.zarr")
    told = []
    import_images(plan_import([tmp_path / "a.ome.tif"]), output, on_block=lambda *about: told.append(about))
    assert told[0] == (5, T * C * 2)
    assert told[-1] == (T * C * 2, T * C * 2)
    assert sorted(reads) == sorted(np.ndindex(T, C, 20))  # each plane once, in both runs together
    assert not (tmp_path / "plate.zarr.parts").exists()
    [fov] = read_plate(output)
    np.testing.assert_array_equal(read_stack(fov, 2, 1), array[2, 1])
    with pytest.raises(FileExistsError):
        import_images(plan, output)
    import_images(plan, output, overwrite=True)


def test_another_import_does_not_go_on_with_what_is_there(tmp_path):
    write_ome(tmp_path / "a.ome.tif", pixels())

    def stop(n_done, n_blocks):
        if n_done == 1:
            raise Killed

    with pytest.raises(Killed):
        import_images(plan_import([tmp_path / "a.ome.tif"]), tmp_path / "plate.zarr", on_block=stop)
    other = plan_import([tmp_path / "a.ome.tif"], ImportOptions(pixel_size_um=0.1))
    with pytest.raises(InputError, match="field FOVs"):
        import_images(other, tmp_path / "plate.zarr")
    write_ome(tmp_path / "a.ome.tif", pixels(seed=7))
    with pytest.raises(InputError, match="field files"):
        import_images(plan_import([tmp_path / "a.ome.tif"]), tmp_path / "plate.zarr")
    import_images(other, tmp_path / "plate.zarr", overwrite=True)


@pytest.mark.parametrize(
    ("name", "write"), [("a.ome.tif", write_ome), ("a.lif", lambda path, own: write_lif(path, [own]))]
)
def test_memory_holds_a_block_whatever_the_size_of_the_file(tmp_path, name, write):
    if name.endswith("lif"):
        pytest.importorskip("liffile")
    array = pixels((20, 2, 1, 512, 512))
    write(tmp_path / name, array)
    plan = plan_import([tmp_path / name])
    import_images(plan, tmp_path / "warm.zarr")  # imports are no matter of the file
    tracemalloc.start()
    import_images(plan, tmp_path / "plate.zarr")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * array[0, 0].nbytes  # of 40 planes
