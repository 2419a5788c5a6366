"""Hostile and damaged files: nothing runs, memory stays bounded, and the error says what is wrong."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rvc_batch.errors import ModelCorrupt, ModelError, ModelNotRvc, ModelUnsafe
from rvc_batch.importers import unpickle as unpickle_module
from rvc_batch.importers.identify import read_network
from rvc_batch.importers.isolation import import_isolated
from rvc_batch.importers.pickled_data import Inert
from rvc_batch.importers.unpickle import unpickle

FORBIDDEN_EVENTS = {
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pickle.find_class", "ctypes.dlopen",
    "socket.connect", "socket.bind", "shutil.rmtree", "os.remove", "os.rename",
}  # fmt: skip
_watched: list[str] | None = None


def _hook(event: str, _: tuple[Any, ...]) -> None:
    if _watched is not None and event in FORBIDDEN_EVENTS:
        _watched.append(event)


@pytest.fixture(scope="module", autouse=True)
def _audit_hook() -> None:
    sys.addaudithook(_hook)  # cannot be removed again; inert outside `nothing_runs`


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fail if the block starts a process, looks up a pickled class, loads a library or opens a connection."""
    global _watched
    _watched = []
    try:
        yield
        assert _watched == []
    finally:
        _watched = None


def torch_zip(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """Write a file in the form of torch.save around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        for key, raw in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", raw)
    return path


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


MARKER = "MARKER-FILE"
TOUCH = f"touch {MARKER}"
HOSTILE: dict[str, tuple[bytes, str]] = {
    "reduce os.system": (pickle.dumps({"weight": Calls(os.system, TOUCH)}, 2), "posix.system"),
    "reduce os.system, protocol 4": (pickle.dumps({"weight": Calls(os.system, TOUCH)}, 4), "posix.system"),
    "reduce eval": (pickle.dumps(Calls(eval, f"__import__('os').mkdir({MARKER!r})"), 2), "__builtin__.eval"),
    "reduce exec, protocol 4": (pickle.dumps(Calls(exec, f"__import__('os').mkdir({MARKER!r})"), 4), "builtins.exec"),
    "getattr": (pickle.dumps(Calls(getattr, {}, "__class__"), 4), "builtins.getattr"),
    "global never called": (b"\x80\x02cbuiltins\neval\n0}.", "builtins.eval"),
    "nested pickle": (pickle.dumps(Calls(pickle.loads, pickle.dumps(Calls(os.system, TOUCH))), 2), "pickle.loads"),
    "subprocess": (pickle.dumps(Calls(subprocess.Popen, ["touch", MARKER]), 4), "subprocess.Popen"),
    "torch's own loader": (b"\x80\x02ctorch.serialization\nload\nX\x01\x00\x00\x00x\x85R.", "torch.serialization.load"),
    "dotted name": (
        b"\x80\x04" + text("collections") + text("OrderedDict.__init__.__globals__") + b"\x93.",
        "collections.OrderedDict.__init__.__globals__",
    ),
    "instance of protocol 0": (b"(" + text(TOUCH) + b"ios\nsystem\n.", "os.system"),
    "instance of an allowed class": (b"(icollections\nOrderedDict\n.", "collections OrderedDict"),
    "object of protocol 1": (b"(ccollections\nOrderedDict\no.", "OBJ"),
    "extension registry": (b"\x80\x02\x82\x01.", "EXT1"),
    "state given to a class that runs it": (b"\x80\x02cfunctools\npartial\n)R}b.", "functools.partial"),
    "text of protocol 0, decoded with escapes": (b"\x80\x02S'\\x'\n.", "STRING"),
    "persistent id of protocol 0": (b"Pos.system\n.", "PERSID"),
    "persistent id with a callable": (
        b"\x80\x02(" + text("storage") + b"cos\nsystem\n" + text("0") + text("cpu") + b"K\x01tQ.",
        "os.system",
    ),
}


CONTAINERS = ("zip", "folder", "old", "bare")


@pytest.mark.parametrize(
    ("case", "container"),
    # a bare pickle in text form is not taken for a model at all, see the next test
    [(c, k) for c in HOSTILE for k in CONTAINERS if k != "bare" or HOSTILE[c][0].startswith(b"\x80")],
)
def test_code_in_a_pickle_is_refused_by_name_and_never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, container: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pickled, name = HOSTILE[case]
    path = tmp_path / "evil.pth"
    if container == "zip":
        torch_zip(path, pickled)
    elif container == "folder":
        path = tmp_path
        (path / "config.json").write_text("{}")
        torch_zip(path / "pytorch_model.bin", pickled)
    elif container == "old":
        head = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        path.write_bytes(head + pickled)
    else:
        path.write_bytes(pickled)
    with nothing_runs(), pytest.raises(ModelUnsafe) as caught:
        read_network(path)
    assert name in str(caught.value)
    assert "nothing was run" in str(caught.value)
    assert not (tmp_path / MARKER).exists()


def test_a_bare_text_pickle_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(HOSTILE["instance of protocol 0"][0])
    with nothing_runs(), pytest.raises(ModelNotRvc, match="not a torch file"):
        read_network(tmp_path / "evil.pth")


def test_the_corpus_is_dangerous_to_the_standard_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The marker would appear if the files were loaded the usual way: the tests above can fail."""
    monkeypatch.chdir(tmp_path)
    for case in ("reduce os.system", "reduce eval", "nested pickle"):
        pickle.loads(HOSTILE[case][0])  # noqa: S301
        assert (tmp_path / MARKER).exists(), case
        (tmp_path / MARKER).rename(tmp_path / case.replace(" ", "-"))


def test_the_helper_process_reports_hostile_files(tmp_path: Path) -> None:
    path = torch_zip(tmp_path / "evil.pth", pickle.dumps(Calls(os.system, f"touch {tmp_path / MARKER}"), 2))
    with pytest.raises(ModelUnsafe, match=r"posix\.system"):
        import_isolated(path, tmp_path / "out", sha256="0" * 64)
    assert not (tmp_path / MARKER).exists()
    assert not (tmp_path / "out").exists()


def test_attributes_of_stand_ins_are_only_kept(tmp_path: Path) -> None:
    state = b"}(" + text("__setstate__") + text("__class__") + text("__reduce__") + b"Nu"
    inert = unpickle(io.BytesIO(b"\x80\x02cargparse\nNamespace\n)\x81" + state + b"b."), "file")
    assert inert == Inert("argparse.Namespace", {"__setstate__": "__class__", "__reduce__": None})


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02ccollections\nOrderedDict\nK\x01R.",  # arguments that are no tuple
        b"\x80\x02}}R.",  # a call of data
        b"\x80\x02ctorch\nHalfStorage\n)R.",  # a call of a name that is only a name
        b"\x80\x02ccollections\nOrderedDict\n(K\x01K\x02tR.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"\x80\x02K\x01}b.",  # attributes of a number
        b"\x80\x02" + text("storage") + b"Q.",  # a persistent id that is no storage
        b"\x80\x02)}K\x01s.",  # items set in a tuple
        b"\x80\x02K\x01a.",
        b"\x80\x02h\x07.",  # memo entry that was never made
        b"\x80\x02t.",  # mark that was never set
        b"\x80\x02.",
        b"\x80\x02}))s.",  # tuple as key
        b"\x80\x02N",  # no end
    ],
)
def test_pickles_that_make_no_sense_are_damaged(pickled: bytes) -> None:
    with nothing_runs(), pytest.raises(ModelCorrupt, match=r"pickle is damaged"):
        unpickle(io.BytesIO(pickled), "file")


# size


def tensor_pickle(numel: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """A pickle of {"weight": {"enc_p.emb_phone.weight": tensor}} with any sizes."""
    body = b"ctorch._utils\n_rebuild_tensor_v2\n(("
    body += text("storage") + b"ctorch\nHalfStorage\n" + text("0") + text("cpu") + pickled_int(numel) + b"tQ"
    body += pickled_int(offset) + b"".join(b"(" + b"".join(map(pickled_int, t)) + b"t" for t in (shape, strides))
    body += b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + text("weight") + b"}" + text("enc_p.emb_phone.weight") + body + b"ss."


def pickled_int(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


@pytest.mark.parametrize(
    ("numel", "shape", "strides", "offset"),
    [
        (4, (2, 4), (4, 1), 0),  # larger than the storage
        (4, (2, 2), (4, 1), 0),  # strides beyond the end
        (4, (2, 2), (2, 1), 1),  # offset beyond the end
        (4, (2**20, 2**20), (0, 0), 0),  # one number repeated without end
        (4, (2, 2), (-2, 1), 3),
        (4, (-1, -4), (1, 1), 0),
        (4, (2, 2), (2,), 0),
        (4, (1,) * 9, (1,) * 9, 0),
        (2**62, (2**61, 2), (2, 1), 0),
    ],
)
def test_tensors_outside_their_storage_are_damaged(
    tmp_path: Path, numel: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> None:
    path = torch_zip(tmp_path / "big.pth", tensor_pickle(numel, shape, strides, offset), {"0": bytes(8)})
    with pytest.raises(ModelCorrupt, match="damaged"):
        read_network(path)


def test_a_storage_that_claims_more_than_the_file_holds_is_damaged(tiny_voice: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.pth"
    with zipfile.ZipFile(tiny_voice) as source, zipfile.ZipFile(short, "w") as target:
        for entry in source.infolist():
            raw = source.read(entry)
            target.writestr(entry.filename, raw[:-2] if entry.filename.endswith("/data/7") else raw)
    with pytest.raises(ModelCorrupt, match=r"data/7 has \d+ bytes, expected \d+"):
        read_network(short)


def test_a_missing_storage_is_damaged(tiny_voice: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tiny_voice) as source, zipfile.ZipFile(tmp_path / "less.pth", "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith("/data/7"):
                target.writestr(entry.filename, source.read(entry))
    with pytest.raises(ModelCorrupt, match=r"data/7 is missing"):
        read_network(tmp_path / "less.pth")


def test_a_compressed_bomb_is_refused_unopened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**25))
    with pytest.raises(ModelCorrupt, match="unpacks to more than its own size"):
        read_network(tmp_path / "bomb.pth")


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(10_000))
        for i in range(1, 50):  # many names for the same bytes
            info = zipfile.ZipInfo(f"archive/data/{i}")
            original = archive.getinfo("archive/data/0")
            info.file_size = info.compress_size = original.file_size
            info.CRC, info.header_offset = original.CRC, original.header_offset
            archive.filelist.append(info)
    with pytest.raises(ModelCorrupt, match="unpacks to more than its own size"):
        read_network(tmp_path / "bomb.pth")


def test_compressed_entries_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")  # grows, so the sizes add up
    with pytest.raises(ModelCorrupt, match="compressed or encrypted"):
        read_network(tmp_path / "z.pth")


def test_too_many_instructions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle_module, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(ModelCorrupt, match="more than 1000 pickle instructions"):
        unpickle(io.BytesIO(b"\x80\x02" + b"N0" * 1000 + b"N."), "file")


DEEP = 40_000
NESTED = {
    "lists": b"]" * DEEP + b"a" * (DEEP - 1),
    "tuples": b")" + b"\x85" * DEEP,
    "dicts": b"}" + b"K\x00}" * DEEP + b"s" * DEEP,
    "shared lists": b"]" + b"q\x000(h\x00h\x00l" * 200,  # 2**200 leaves
    "long number": b"\x8b" + struct.pack("<I", 100_000) + b"\x7f" * 100_000,
}


@pytest.mark.parametrize(
    "key", ["config", "f0", "version", "sr", "vocoder", "info", "embedder_model", "weight", "model"]
)
@pytest.mark.parametrize("nested", NESTED)
@pytest.mark.timeout(30)
def test_bottomless_values_are_refused_like_any_other(tmp_path: Path, tiny_voice: Path, nested: str, key: str) -> None:
    with zipfile.ZipFile(tiny_voice) as source:
        pickled = source.read("v2_40k_f0_feat48/data.pkl")
        storages = {e.filename.split("/")[-1]: source.read(e) for e in source.infolist() if "/data/" in e.filename}
    assert pickled.endswith(b"u.")  # the last instruction fills the outermost dict
    path = torch_zip(tmp_path / "deep.pth", pickled[:-1] + text(key) + NESTED[nested] + b"s.", storages)
    if key in ("info", "embedder_model", "model", "sr"):
        read_network(path)  # not needed, not printed, not kept
    else:
        with pytest.raises(ModelError):
            read_network(path)


# anything at all


@pytest.fixture(scope="module")
def tiny_voice(checkpoints: Callable[[str], Path]) -> Path:
    return checkpoints("tiny") / "voices" / "v2_40k_f0_feat48.pth"


@pytest.fixture(scope="module")
def small_file() -> bytes:
    """The bytes of a torch file with every kind of value in it, smaller than a voice."""
    buffer = io.BytesIO()
    weight = {"enc_p.emb_phone.weight": torch.zeros(4, 4).half(), "emb_g.weight": torch.zeros(2, 2)}
    torch.save({"weight": weight, "config": [1, 2, [3], "1"], "f0": 1, "sr": "40k", "version": "v2"}, buffer)
    return buffer.getvalue()


anything = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def only_model_errors(path: Path) -> None:
    with nothing_runs(), contextlib.suppress(ModelError):
        read_network(path)


@anything
@given(content=st.binary(max_size=300), start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04"]))
def test_random_bytes_give_only_model_errors(tmp_path: Path, content: bytes, start: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(start + content)
    with nothing_runs(), pytest.raises(ModelError):
        read_network(tmp_path / "x.pth")


@anything
@given(data=st.data())
def test_truncated_files_give_only_model_errors(tmp_path: Path, small_file: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(small_file) - 1))
    (tmp_path / "x.pth").write_bytes(small_file[:cut])
    with nothing_runs(), pytest.raises(ModelError):
        read_network(tmp_path / "x.pth")


@anything
@given(data=st.data())
def test_altered_files_give_only_model_errors(tmp_path: Path, small_file: bytes, data: st.DataObject) -> None:
    altered = bytearray(small_file)
    for place in data.draw(st.lists(st.integers(0, len(altered) - 1), min_size=1, max_size=8)):
        altered[place] = data.draw(st.integers(0, 255))
    (tmp_path / "x.pth").write_bytes(altered)
    only_model_errors(tmp_path / "x.pth")


@anything
@given(data=st.data())
def test_altered_pickles_give_only_model_errors(tmp_path: Path, small_file: bytes, data: st.DataObject) -> None:
    with zipfile.ZipFile(io.BytesIO(small_file)) as archive:
        pickled = bytearray(archive.read("archive/data.pkl"))
        storages = {e.filename.split("/")[-1]: archive.read(e) for e in archive.infolist() if "/data/" in e.filename}
    for place in data.draw(st.lists(st.integers(0, len(pickled) - 1), min_size=1, max_size=6)):
        pickled[place] = data.draw(st.integers(0, 255))
    only_model_errors(torch_zip(tmp_path / "x.pth", bytes(pickled), storages))


instructions = st.one_of(
    st.sampled_from([o.code.encode("latin-1") for o in pickletools.opcodes if o.arg is None]),
    st.sampled_from(
        [b"cos\nsystem\n", b"ccollections\nOrderedDict\n", b"ctorch\nHalfStorage\n", b"cargparse\nNamespace\n"]
    ),
    st.integers(0, 255).map(lambda n: b"K" + bytes([n])),
    st.integers(0, 5).map(lambda n: b"q" + bytes([n])),
    st.integers(0, 5).map(lambda n: b"h" + bytes([n])),
    st.sampled_from(["storage", "weight", "config", "0", "cpu"]).map(text),
    st.binary(max_size=6),
)


@anything
@given(parts=st.lists(instructions, max_size=40))
def test_random_programs_give_only_model_errors(tmp_path: Path, parts: list[bytes]) -> None:
    only_model_errors(torch_zip(tmp_path / "x.pth", b"\x80\x02" + b"".join(parts) + b"."))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces RLIMIT_AS")
def test_the_helpers_memory_is_limited() -> None:
    code = "from rvc_batch.importers.process import _limit_memory as limit; limit(2**31); bytearray(2**32)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr
