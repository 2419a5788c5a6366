"""Fetching the published networks, from a server of this test that misbehaves on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rvc_batch.errors import DiskFull, FetchFailed, HomeInvalid, ModelCorrupt
from rvc_batch.home import Home
from rvc_batch.importers import fetch
from rvc_batch.importers.fetch import Published
from tests.cli_harness import run

CONTENT = bytes(range(256)) * 4096  # 1 MiB
FILE = Published("rmvpe.pt", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@dataclass
class Hub:
    """What the server does. cut_after: bytes of each answer, then the connection is closed; None: all."""

    url: str = ""
    content: bytes = CONTENT
    cut_after: int | None = None
    honours_range: bool = True
    status: int = 200
    ranges: list[str | None] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.ranges.append(self.headers.get("Range"))
            state.paths.append(self.path)
            if self.path.startswith("/elsewhere"):  # the real hub sends large files from another address
                self._answer()
            elif state.status != 200:
                self.send_error(state.status)
            else:
                self.send_response(302)
                self.send_header("Location", f"/elsewhere{self.path}")
                self.end_headers()

        def _answer(self) -> None:
            start = 0
            if state.honours_range and (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))):
                start = int(asked.group(1))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(state.content) - 1}/{len(state.content)}")
            else:
                self.send_response(200)
            body = state.content[start:]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if state.cut_after is None else body[: state.cut_after])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_is_fetched_whole_and_under_its_name(hub: Hub, tmp_path: Path) -> None:
    seen: list[int] = []
    assert fetch.fetch(FILE, tmp_path / "models", f"{hub.url}/x", seen.append)
    assert (tmp_path / "models" / "rmvpe.pt").read_bytes() == CONTENT
    assert left(tmp_path / "models") == ["rmvpe.pt"]
    assert seen == sorted(seen)
    assert seen[-1] == FILE.size
    assert not fetch.fetch(FILE, tmp_path / "models", f"{hub.url}/x")
    assert len(hub.paths) == 2  # the second call asked nobody


def test_broken_connections_are_continued(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 300_000
    assert fetch.fetch(FILE, tmp_path, f"{hub.url}/x")
    assert (tmp_path / "rmvpe.pt").read_bytes() == CONTENT
    assert hub.ranges[::2] == ["bytes=0-", "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_interrupted_fetch_goes_on_in_the_next_run(hub: Hub, tmp_path: Path) -> None:
    def interrupt(there: int) -> None:
        if there > 400_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(FILE, tmp_path, f"{hub.url}/x", interrupt)
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith(".rmvpe.pt.")
    have = kept.stat().st_size
    assert 400_000 < have < FILE.size
    assert fetch.fetch(FILE, tmp_path, f"{hub.url}/x")
    assert hub.ranges[-1] == f"bytes={have}-"
    assert (tmp_path / "rmvpe.pt").read_bytes() == CONTENT


def test_server_that_knows_no_ranges_is_read_from_the_start(hub: Hub, tmp_path: Path) -> None:
    hub.honours_range = False
    (tmp_path / f".rmvpe.pt.{FILE.sha256[:8]}.part").write_bytes(b"x" * 1000)
    assert fetch.fetch(FILE, tmp_path, f"{hub.url}/x")
    assert (tmp_path / "rmvpe.pt").read_bytes() == CONTENT


def test_other_content_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    hub.content = CONTENT[:-1] + b"!"
    with pytest.raises(ModelCorrupt, match=r"not the published rmvpe\.pt"):
        fetch.fetch(FILE, tmp_path, f"{hub.url}/x")
    assert left(tmp_path) == []


def test_longer_content_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.content = CONTENT + b"more"
    with pytest.raises(FetchFailed, match="gave more than"):
        fetch.fetch(FILE, tmp_path, f"{hub.url}/x")
    assert not (tmp_path / "rmvpe.pt").exists()


def test_server_that_sends_nothing_is_given_up_and_what_is_there_kept(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = 0
    part = tmp_path / f".rmvpe.pt.{FILE.sha256[:8]}.part"
    part.write_bytes(CONTENT[:500_000])
    with pytest.raises(FetchFailed, match=r"0\.5 of 1\.0 MB are kept"):
        fetch.fetch(FILE, tmp_path, f"{hub.url}/x")
    assert part.read_bytes() == CONTENT[:500_000]


def test_refusal_and_silence_are_one_sentence(hub: Hub, tmp_path: Path) -> None:
    hub.status = 404
    with pytest.raises(FetchFailed, match="answered 404"):
        fetch.fetch(FILE, tmp_path, f"{hub.url}/x")
    with pytest.raises(FetchFailed, match="cannot be fetched"):
        fetch.fetch(FILE, tmp_path, "http://127.0.0.1:9/x")


def test_another_file_of_that_name_is_never_replaced(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "rmvpe.pt").write_bytes(b"mine")
    with pytest.raises(HomeInvalid, match="is not the published file"):
        fetch.fetch(FILE, tmp_path, f"{hub.url}/x")
    assert (tmp_path / "rmvpe.pt").read_bytes() == b"mine"


def test_two_fetches_of_one_file_do_not_mix(hub: Hub, tmp_path: Path) -> None:
    def again(there: int) -> None:
        with pytest.raises(FetchFailed, match="by another process"):
            fetch.fetch(FILE, tmp_path, f"{hub.url}/x")

    assert fetch.fetch(FILE, tmp_path, f"{hub.url}/x", again)


def test_full_volume_is_noticed_before_the_first_byte(tmp_path: Path) -> None:
    huge = Published("rmvpe.pt", 2**60, FILE.sha256)
    with pytest.raises(DiskFull, match="still to be fetched"):
        fetch.fetch(huge, tmp_path, "http://127.0.0.1:9/x")


def test_address_is_pinned_to_a_revision_and_may_be_a_mirror() -> None:
    for file in fetch.PUBLISHED:
        assert re.fullmatch(r"https://huggingface\.co/[\w/]+/resolve/[0-9a-f]{40}/\w+\.pt", file.url({}))
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert fetch.PUBLISHED[0].url({"HF_ENDPOINT": "http://mirror/"}).startswith("http://mirror/lj1995/")


def test_commands_fetch_what_is_missing_and_say_what_is_there(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(fetch, "PUBLISHED", (Published("hubert_base.pt", FILE.size, FILE.sha256), FILE))
    before = json.loads(run(home, "models", "status", "--json", code=66).stdout)["networks"]
    assert [row["path"] for row in before[:2]] == [None, None]
    assert "missing; `rvc-batch models fetch`" in run(home, "models", "status", code=66).stdout
    fetched = json.loads(run(home, "models", "fetch", "--json").stdout)["networks"]
    assert [row["fetched"] for row in fetched] == [True, True]
    assert all(path.startswith(f"/lj1995/VoiceConversionWebUI/resolve/{fetch.REVISION}/") for path in hub.paths[::2])
    after = json.loads(run(home, "models", "status", "--json").stdout)["networks"]
    assert [(row["bytes"], row["imported"]) for row in after[:2]] == [(FILE.size, False)] * 2
    assert "there already" in run(home, "models", "fetch").stdout


def test_content_network_in_a_folder_is_not_fetched_beside(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    folder = home.models / "contentvec"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(fetch, "PUBLISHED", (Published("hubert_base.pt", FILE.size, FILE.sha256), FILE))
    fetched = json.loads(run(home, "models", "fetch", "--json").stdout)["networks"]
    assert [(row["name"], row["fetched"]) for row in fetched] == [("hubert_base.pt", False), ("rmvpe.pt", True)]
    assert fetched[0]["path"] == str(folder)
