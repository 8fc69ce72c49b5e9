from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dynaclr.commands.import_images import import_images
from viscy_data.stores import read_plate, read_stack

tifffile = pytest.importorskip("tifffile")


def run(*arguments):
    return CliRunner().invoke(import_images, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path):
    """Two wells, 3 frames, 2 channels, one plane per file."""
    (tmp_path / "in").mkdir()
    for well in ("A01", "B02"):
        for t in range(3):
            for c, channel in enumerate(("GFP", "Phase")):
                plane = np.full((24, 32), 100 * (well == "B02") + 10 * t + c, np.uint16)
                tifffile.imwrite(tmp_path / "in" / f"{well}_s0_t{t}_{channel}.tif", plane)
    return tmp_path / "in"


def test_a_folder_becomes_a_plate_and_the_command_says_so(folder, tmp_path):
    output = tmp_path / "plate.zarr"
    dry = run(folder, "-o", output, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert not output.exists()
    result = run(folder, "-o", output, "--interval", "10min", "--pixel-size", 0.5)
    assert result.exit_code == 0, result.output
    for line in (
        "2 FOVs of 3 T x 2 C x 1 Z x 24 Y x 32 X, uint16",
        "B/2/0: B02_s0_t0_GFP.tif and 5 more files",
        "names are read as --pattern '{well}_s{fov}_t{t}_{channel}.tif'",
        "interval: 600 s as given",
        f"wrote {output}: 2 FOVs, channels GFP, Phase",
        "next: dynaclr import-tracks",
    ):
        assert line in result.output
    fov = read_plate(output)[1]
    assert fov.scale == (600.0, 1.0, 1.0, 0.5, 0.5)
    assert read_stack(fov, 2, 1)[0, 0, 0] == 121
    again = run(folder, "-o", output)
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    assert run(folder, "-o", output, "--overwrite", "--channels", "GFP=green,Phase=phase").exit_code == 0
    assert read_plate(output)[0].channel_names == ("green", "phase")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pattern", "{well}-{t}.tif"], "one is called A01_s0_t0_GFP.tif"),
        (["--interval", "10"], "such as 10min"),
        (["--channels", "one"], "a name for each of GFP, Phase"),
        (["--pattern", "{well}_s{fov}_t*_{channel}.tif"], "which A01_s0_t0_GFP.tif has too"),
    ],
)
def test_bad_input_is_one_paragraph(folder, tmp_path, arguments, words):
    result = run(folder, "-o", tmp_path / "plate.zarr", *arguments)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output
    assert len(result.output) < 2000
    assert not list(tmp_path.glob("plate.zarr*"))


def _heed_ctrl_c():
    """Undo that a shell has its background jobs ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_what_was_killed_or_interrupted_is_continued_by_the_same_command(tmp_path):
    array = np.random.default_rng(0).integers(0, 60000, (40, 4, 256, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "movie.ome.tif", array, metadata={"axes": "TCYX"})
    command = [Path(sys.executable).with_name("dynaclr"), "import-images", "movie.ome.tif", "-o", "plate.zarr"]
    n_done, done = 0, tmp_path / "plate.zarr.parts" / "done-0.txt"
    for number in (signal.SIGKILL, signal.SIGINT):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running = subprocess.Popen(command, cwd=tmp_path, preexec_fn=_heed_ctrl_c, **pipes)
        while running.poll() is None and (not done.exists() or int(done.read_text()) <= n_done):
            time.sleep(0.01)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
        assert not (tmp_path / "plate.zarr").exists()
        n_done = int(done.read_text())
        assert 0 < n_done < 160
    assert running.returncode == 130, said
    assert "the same command goes on: dynaclr import-images movie.ome.tif -o plate.zarr" in said
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    [fov] = read_plate(tmp_path / "plate.zarr")
    for t, c in np.ndindex(40, 4):
        np.testing.assert_array_equal(read_stack(fov, t, c)[0], array[t, c])
