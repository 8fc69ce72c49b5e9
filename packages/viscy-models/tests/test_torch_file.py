"""Files of weights that were made to do harm: refused in words, in no time and without the memory that they ask for."""

from __future__ import annotations

import contextlib
import json
import struct
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from viscy_models import load_weights
from viscy_models.checkpoints import read_state_dict
from viscy_models.foundation import CellDinoModel, OpenPhenomModel

LITTLE, LONG = 250_000_000, 100  # bytes, seconds; what is not refused takes hours


@contextlib.contextmanager
def little():
    """Let nothing take much memory or time."""
    begin = time.monotonic()
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + LITTLE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.monotonic() - begin < LONG


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def call(function, *arguments):
    return function + b"(" + b"".join(arguments) + b"tR"


def several(items):
    return b"(" + b"".join(map(number, items)) + b"t"


def numbers(count=4, key="0", kind="FloatStorage"):
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(storage=None, shape=(4,), strides=(1,)):
    hooks = name("collections", "OrderedDict") + b")R"
    parts = storage or numbers(), number(0), several(shape), several(strides), b"\x89", hooks
    return call(name("torch._utils", "_rebuild_tensor_v2"), *parts)


def state(**values):
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def write(path, body, records=None, compressed=False):
    """Write a file as `torch.save` does, around the instructions of a pickle."""
    parts = {"data.pkl": b"\x80\x02" + body + b".", "byteorder": b"little", "version": b"3\n"}
    parts |= {"data/0": torch.arange(4.0).numpy().tobytes()} if records is None else records
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for key, content in parts.items():
            archive.writestr(f"archive/{key}", content)
    return path


HUGE = 10**9
BYTES = name("__builtin__", "bytearray")
MEMO = [b"q" + bytes([i]) for i in range(256)]
GET = [b"h" + bytes([i]) for i in range(256)]


def doubled(times):
    """Put a value twice into another, that twice into a third, and so on."""
    return b")" + MEMO[0] + b"".join(GET[i] + b"\x86" + MEMO[i + 1] for i in range(times))


HEX = text("ab")
for _ in range(40):
    HEX = call(name("_codecs", "encode"), HEX, text("hex_codec"))
LIST = b"](" + b"K\x01" * 100_000 + b"e" + MEMO[0]
HOSTILE = {
    "more numbers than the entry": (state(w=tensor(numbers(5), (5,))), "20 bytes, of which the file holds 16"),
    "fewer numbers": (state(w=tensor(numbers(3), (3,))), "12 bytes, of which the file holds 16"),
    "no entry": (state(w=tensor(numbers(key="7"))), "does not write"),
    "a negative count": (state(w=tensor(numbers(-1))), "bytes, of which"),
    "one number for billions": (
        state(w=tensor(numbers(), (HUGE, HUGE), (0, 0))),
        "1e\\+18 numbers, more than the file",
    ),
    "a shape of texts": (state(w=tensor().replace(number(4) + b"t", text("a" * 9) + number(HUGE) + b"t")), "not write"),
    "thousands of axes": (state(w=tensor(shape=(1,) * 3000, strides=(1,) * 3000)), "3000 axes"),
    "an array of zeros": (state(w=call(BYTES, number(HUGE))), "a call of __builtin__ bytearray"),
    "through another call": (
        state(w=call(name("torch._tensor", "_rebuild_from_type_v2"), BYTES, BYTES, several([HUGE]), b"}")),
        "a call of torch._tensor _rebuild_from_type_v2",
    ),
    "a storage": (state(w=call(name("torch", "UntypedStorage"), number(HUGE))), "a call of torch UntypedStorage"),
    "a new tensor": (state(w=name("torch", "FloatTensor") + several([HUGE]) + b"\x81"), "a call of torch FloatTensor"),
    "a size of a tensor": (state(w=call(name("torch", "Size"), tensor())), "does not write"),
    "a text twice as long, 40 times": (state(w=HEX), "another encoding"),
    "a list copied for ever": (
        LIST + b"]" + (name("torch", "Size") + GET[0] + b"\x85R" + b"a") * 20_000,
        "copied again and again",
    ),
    "keys in keys": (state(x=b"}" + doubled(60) + b"Ns"), "tuples as keys"),
    "keys in keys of a set": (state(x=call(name("__builtin__", "set"), b"]" + doubled(60) + b"a")), "tuples as"),
    "a call of nothing": (state(w=call(doubled(60))), "a call of no function"),
    "another instruction": (state(w=b"\x8f"), "an instruction EMPTY_SET"),
    "nothing on the stack": (b"R", "empty stack"),
    "no mark": (b"t", "does not write"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_declares_or_asks_for_too_much_is_refused(tmp_path, case):
    body, told = HOSTILE[case]
    path = write(tmp_path / "w.ckpt", body)
    with little(), pytest.raises(ValueError, match=rf"(?s)w\.ckpt cannot be read as weights.*{told}"):
        load_weights(nn.Linear(1, 1), path)


def test_what_is_as_it_says_is_read(tmp_path):
    values = {"a": tensor(), "b": tensor(numbers(), (2, 2), (2, 1)), "c": tensor(numbers(), (2, 3), (1, 0))}
    found = read_state_dict(write(tmp_path / "w.ckpt", state(**values)))
    assert found["a"].tolist() == [0, 1, 2, 3]
    assert found["b"].tolist() == [[0, 1], [2, 3]]
    assert found["c"].tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("legacy", [False, True])
def test_all_that_torch_writes_of_weights_and_values_is_read(tmp_path, legacy):
    dtypes = [torch.bfloat16, torch.bool, torch.complex64, torch.float64, torch.int16, torch.uint8]
    values = {
        "state_dict": {str(dtype): torch.ones(3, 2).to(dtype)[:, :1] for dtype in dtypes},
        "parameter": nn.Parameter(torch.ones(2)),
        "values": [1, 2.5, None, True, -(2**70), "text", b"\xff\x00bytes", (1, (2,)), {3, 4}, {"x": {}}],
        "kinds": [torch.float16, torch.device("cpu"), torch.Size([1, 2])],
        "optimizer": torch.optim.Adam([nn.Parameter(torch.ones(2))]).state_dict(),
        "metadata": nn.Linear(1, 1).state_dict(),
        "shared": [[1, 2]] * 5,
        **({} if legacy else {"new": torch.ones(3, dtype=torch.uint16)}),
    }
    torch.save(values, tmp_path / "w.pt", _use_new_zipfile_serialization=not legacy)
    found = read_state_dict(tmp_path / "w.pt")
    assert {key: value.dtype for key, value in found.items()} == {str(dtype): dtype for dtype in dtypes}
    assert all((value == 1).all() for value in found.values())


def test_thousands_of_entries_are_read_in_little_time(tmp_path):
    torch.save({str(i): torch.full((2,), i) for i in range(3000)}, tmp_path / "w.pt")
    with little():
        assert read_state_dict(tmp_path / "w.pt")["2999"].tolist() == [2999, 2999]


def test_entries_that_are_compressed_or_lie_or_are_twice_there_are_refused(tmp_path):
    refused = pytest.raises(ValueError, match=r"entries that are compressed|more than the file holds|of one name")
    path = tmp_path / "w.ckpt"
    write(path, state(w=tensor()), {"data/0": bytes(400_000_000)}, compressed=True)
    with little(), refused:
        read_state_dict(path)
    write(path, state(w=tensor()))
    whole = path.read_bytes()
    place = whole.rindex(b"PK\x01\x02", 0, whole.rindex(b"archive/data/0"))  # in the list of what there is
    lie = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(whole[: place + 20] + lie + whole[place + 28 :])
    with little(), refused:
        read_state_dict(path)
    write(path, state(w=tensor()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/DATA.PKL", b"")
    with little(), refused:
        read_state_dict(path)


def test_too_many_values_are_refused(tmp_path):
    path = write(tmp_path / "w.ckpt", b"](" + b"]" * 17_000_000 + b"e")
    with little(), pytest.raises(ValueError, match="17 MB of values beside the tensors"):
        read_state_dict(path)


def test_a_legacy_file_that_declares_more_than_it_holds_is_refused(tmp_path):
    torch.save({"w": torch.ones(4)}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.pt").read_bytes()
    begin = content.index(b"cpu") + 5  # after the name and its place in the memo: K\x04
    assert content[begin : begin + 2] == b"K\x04"
    (tmp_path / "w.pt").write_bytes(content[:begin] + b"J" + struct.pack("<i", HUGE) + content[begin + 2 :])
    with little(), pytest.raises(ValueError, match=r"a tensor of 4,000,000,000 bytes, of which the file holds"):
        read_state_dict(tmp_path / "w.pt")


def write_safetensors(path, header, content=bytes(16), length=None):
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded) if length is None else length) + encoded + content)
    return path


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({"w": entry([4], 0, 16)}, 2**60),
        ({"w": entry([4], 0, 16)}, 10**8),
        ({"w": entry([HUGE], 0, 4 * HUGE)}, None),
        ({"w": entry([HUGE], 0, 16)}, None),
        ({"w": entry([2**32, 2**32, 4], 0, 16)}, None),
        ({"w": entry([4], 0, 16), "x": entry([4], 0, 16)}, None),
        ({"w": entry([4], 16, 0)}, None),
        ({"w": entry([-4], 0, 16)}, None),
    ],
)
def test_safetensors_that_declare_what_they_do_not_hold_are_refused(tmp_path, header, length):
    path = write_safetensors(tmp_path / "w.safetensors", header, length=length)
    with little(), pytest.raises(ValueError, match=r"w\.safetensors cannot be read as weights"):
        read_state_dict(path)


def test_safetensors_that_are_as_they_say_are_read(tmp_path):
    path = write_safetensors(
        tmp_path / "w.safetensors", {"w": entry([2, 2], 0, 16)}, torch.arange(4.0).numpy().tobytes()
    )
    assert read_state_dict(path)["w"].tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("model", "changes", "told"),
    [
        (CellDinoModel, {"pos_embed": torch.zeros(1, 5, 100_000)}, "1 blocks of width 100000"),
        (CellDinoModel, {"blocks.99999999.ls1.gamma": torch.zeros(4)}, "100000000 blocks of width 4"),
        (CellDinoModel, {"pos_embed": torch.zeros(5)}, r"pos_embed of shape \(5,\), expected 3 axes"),
        (OpenPhenomModel, {"patch_embed.proj.weight": torch.zeros(100_000, 1, 2, 2)}, "1 blocks of width 100000"),
        (OpenPhenomModel, {"blocks.0.q_norm.weight": torch.zeros(0)}, r"q_norm.weight of shape \(0,\)"),
    ],
)
def test_weights_that_tell_of_a_network_much_larger_than_they_are(tmp_path, model, changes, told):
    names = {"cls_token": (1, 1, 4), "pos_embed": (1, 5, 4), "patch_embed.proj.weight": (4, 1, 2, 2)}
    names |= {"blocks.0.ls1.gamma": (4,), "blocks.0.q_norm.weight": (4,)}
    save_file({key: torch.zeros(shape) for key, shape in names.items()} | changes, tmp_path / "w.safetensors")
    with little(), pytest.raises(ValueError, match=rf"w\.safetensors: found .*{told}"):
        model(str(tmp_path / "w.safetensors"))
