from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from viscy_data.files import may_not_write, near_files, refuse_existing, replacing


def write(place: Path, kind: str, text: str) -> None:
    if kind == "folder":
        place.mkdir()
        (place / "a.txt").write_text(text)
        (place / "b.txt").write_text(text)
    else:
        place.write_text(text)


def content(place: Path) -> str:
    if place.is_file():
        return place.read_text()
    a, b = (place / "a.txt").read_text(), (place / "b.txt").read_text()
    assert a == b
    return a


@pytest.fixture(params=["file", "folder"])
def kind(request):
    return request.param


def test_the_target_appears_at_the_end_of_the_block(tmp_path, kind):
    target = tmp_path / "new" / "target.csv"
    with replacing(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".csv"
        assert not temporary.exists()
        write(temporary, kind, "new")
        assert not target.exists()
    assert content(target) == "new"
    assert os.listdir(target.parent) == ["target.csv"]


def test_no_two_calls_share_a_place(tmp_path):
    with replacing(tmp_path / "x", overwrite=True) as one, replacing(tmp_path / "x", overwrite=True) as two:
        assert one != two
        one.touch()
        two.touch()


def write_half(target, kind, error):
    with replacing(target, overwrite=True) as temporary:
        write(temporary, kind, "half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_fails_changes_nothing(tmp_path, kind, error):
    target = tmp_path / "target"
    write(target, kind, "old")
    with pytest.raises(error):
        write_half(target, kind, error)
    assert content(target) == "old"
    assert os.listdir(tmp_path) == ["target"]


def test_an_existing_target_is_refused_before_the_block(tmp_path, kind):
    target = tmp_path / "target"
    write(target, kind, "old")
    message = f"{target} exists; remove it or choose another path"
    with pytest.raises(FileExistsError) as caught, replacing(target):
        pytest.fail("the block ran")
    assert str(caught.value) == message
    with pytest.raises(FileExistsError, match="exists; set overwrite"):
        refuse_existing(target, remedy="set overwrite")
    refuse_existing(target, overwrite=True)
    assert content(target) == "old"


def test_a_file_above_the_target_is_named_before_the_block(tmp_path):
    (tmp_path / "report").touch()
    with pytest.raises(NotADirectoryError) as caught, replacing(tmp_path / "report" / "day" / "table.csv"):
        pytest.fail("the block ran")
    assert caught.value.filename == str(tmp_path / "report")


def write_late(target, kind):
    with replacing(target) as temporary:
        write(temporary, kind, "late")
        write(target, kind, "first")


@pytest.mark.parametrize("links", [True, False])
def test_a_target_that_appears_meanwhile_is_kept(tmp_path, kind, links, monkeypatch):
    target = tmp_path / "target"
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    with pytest.raises(FileExistsError, match="target exists; remove it"):
        write_late(target, kind)
    assert content(target) == "first"
    assert os.listdir(tmp_path) == ["target"]


def test_file_systems_without_hard_links_serve_too(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", _no_links)
    with replacing(tmp_path / "target") as temporary:
        temporary.write_text("new")
    assert content(tmp_path / "target") == "new"
    assert os.listdir(tmp_path) == ["target"]


def _no_links(source, target):
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("before", [None, "file", "folder"])
def test_overwriting_replaces_whatever_is_there(tmp_path, kind, before):
    target = tmp_path / "target"
    if before:
        write(target, before, "old")
    with replacing(target, overwrite=True) as temporary:
        write(temporary, kind, "new")
    assert content(target) == "new"
    assert os.listdir(tmp_path) == ["target"]


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(tmp_path, monkeypatch):
    target, rename = tmp_path / "target", os.rename
    write(target, "folder", "old")

    def fail_to_place(source, destination):
        if Path(destination) == target and content(Path(source)) == "new":
            raise PermissionError(13, "no")
        rename(source, destination)

    monkeypatch.setattr(os, "rename", fail_to_place)
    with pytest.raises(PermissionError), replacing(target, overwrite=True) as temporary:
        write(temporary, "folder", "new")
    assert content(target) == "old"
    assert os.listdir(tmp_path) == ["target"]


def test_what_the_system_refuses_is_told_of_the_target_and_not_of_its_hidden_name(tmp_path):
    target = tmp_path / "target"
    for inside in ("", "a/b.json"):
        with pytest.raises(OSError, match="Read-only") as caught, replacing(target) as temporary:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(temporary / inside))
        assert caught.value.filename == str(target / inside)
        assert may_not_write(caught.value)
    with pytest.raises(OSError, match="Failed") as caught, replacing(target):
        raise OSError(errno.EROFS, "Failed to open local file")  # as pyarrow words it
    assert caught.value.filename == str(target)
    assert not may_not_write(OSError(errno.ENOSPC, "full"))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="Windows says otherwise what is read-only")
@pytest.mark.parametrize(("flags", "kind"), [(0, PermissionError), (getattr(os, "ST_RDONLY", 1), OSError)])
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_block(tmp_path, monkeypatch, flags, kind):
    monkeypatch.setattr(os, "access", lambda folder, mode: Path(folder) != tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_flag=flags))
    with pytest.raises(kind) as caught:
        refuse_existing(tmp_path / "new" / "target", overwrite=True)
    assert caught.value.filename == str(tmp_path)
    assert caught.value.errno == (errno.EROFS if flags else errno.EACCES)
    assert may_not_write(caught.value)
    monkeypatch.undo()
    refuse_existing(tmp_path / "new" / "target")


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    for overwrite in (True, False):
        with pytest.raises(FileNotFoundError), replacing(tmp_path / "target", overwrite):
            pass
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permissions of this kind")
def test_permissions_follow_the_umask_or_the_file_replaced(tmp_path):
    mask = os.umask(0o027)
    try:
        for kind in ("file", "folder"):
            with replacing(tmp_path / kind) as temporary:
                write(temporary, kind, "new")
        (tmp_path / "shared").touch()
        (tmp_path / "shared").chmod(0o664)
        with replacing(tmp_path / "shared", overwrite=True) as temporary:
            temporary.write_text("new")
    finally:
        os.umask(mask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"file": 0o640, "folder": 0o750, "shared": 0o664}


_WRITER = """
import sys, time
from pathlib import Path
from viscy_data.files import near_files, replacing

target, kind, name, overwrite, rounds = sys.argv[1:]
target = Path(target)
(target.parent / f"{name}.ready").touch()
while not (target.parent / "go").exists():
    time.sleep(0.001)
for _ in range(int(rounds)):
    with replacing(target, overwrite == "overwrite") as temporary:
        if kind == "folder":
            temporary.mkdir()
        for part in ("a.txt", "b.txt") if kind == "folder" else ("",):
            (temporary / part if part else temporary).write_text(name)
"""


def write_in_two_processes(target: Path, kind: str, overwrite: str, rounds: int) -> list[tuple[subprocess.Popen, str]]:
    names = ("one", "two")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, target, kind, name, overwrite, str(rounds)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    while not all((target.parent / f"{name}.ready").exists() for name in names):
        assert all(writer.poll() is None for writer in writers)
        time.sleep(0.001)
    (target.parent / "go").touch()
    return [(writer, writer.communicate()[1]) for writer in writers]


def test_two_processes_that_overwrite_leave_one_whole_result(tmp_path, kind):
    done = write_in_two_processes(tmp_path / "target", kind, "overwrite", rounds=100)
    assert [writer.returncode for writer, _ in done] == [0, 0], [said for _, said in done]
    assert content(tmp_path / "target") in ("one", "two")
    assert sorted(os.listdir(tmp_path)) == ["go", "one.ready", "target", "two.ready"]


def test_of_two_processes_one_writes_and_the_other_hears_of_it(tmp_path, kind):
    done = write_in_two_processes(tmp_path / "target", kind, "refuse", rounds=1)
    (winner, _), (loser, said) = sorted(done, key=lambda pair: pair[0].returncode)
    assert (winner.returncode, loser.returncode) == (0, 1)
    assert f"FileExistsError: {tmp_path / 'target'} exists" in said
    assert content(tmp_path / "target") == winner.args[5]
    assert sorted(os.listdir(tmp_path)) == ["go", "one.ready", "target", "two.ready"]


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("fit.yaml", "did you mean 'fit.yml'?"),
        ("ft.yml", "did you mean 'fit.yml'?"),
        ("images.zar", "did you mean 'images.zarr'?"),
        ("v.yml", "look elsewhere"),
        ("nowhere/fit.yml", "look elsewhere"),
    ],
)
def test_files_of_a_near_name_are_found(tmp_path, missing, said):
    (tmp_path / "fit.yml").touch()
    (tmp_path / "f2.yml").touch()
    (tmp_path / "images.zarr").mkdir()
    assert near_files(tmp_path / missing, otherwise="look elsewhere") == said


def test_a_full_disk_is_told_with_the_file_that_it_left_as_it_was(tmp_path):
    target = tmp_path / "report.txt"
    target.write_text("before")
    with pytest.raises(OSError, match="No space left") as caught, replacing(target, overwrite=True):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    (note,) = caught.value.__notes__
    assert note.startswith(f"{target} could not be written, and is as it was")
    assert target.read_text() == "before"


PRINT_FOLDER = "import tempfile; print(tempfile.gettempdir())"


def test_temporary_files_of_tests_go_with_the_run(tmp_path_factory):
    if len(str(tmp_path_factory.getbasetemp())) > 60:
        pytest.skip("sockets need shorter paths")
    folder = Path(tempfile.mkdtemp())
    assert folder.is_relative_to(tmp_path_factory.getbasetemp())
    said = subprocess.run([sys.executable, "-c", PRINT_FOLDER], capture_output=True, text=True).stdout
    assert said.strip() == str(folder.parent)
