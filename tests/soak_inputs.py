"""What people drop into an inbox, on purpose or not: good files in every manner, broken ones, and what is no audio.

Every drop is one `Drop` with what must become of it. Nothing a producer does here can lose a file by itself: a name
that is taken is not used again before it is free.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
FOLDERS = ("", "", "alto/", "tenor/", "tenor/album/cd 1/")
ONCE = ("raise", "enospc", "invalid", "nan", "oom", "kill", "abort", "segfault", "append")
ALWAYS = ("raise", "short", "nan", "kill")
ODD_NAMES = (
    "日本語 🎤 {}.wav",
    "\u202egnp.{}.wav",
    "new\nline\x1b[2J {}.wav",
    "-rf {}.wav",
    " lead'\"$(x) {}.wav",
    "cafe\u0301 {}.wav",
    "n" * 230 + "{}.wav",
    os.fsdecode(b"bad\xff\xfe {}.wav"),
)


@dataclass(frozen=True)
class Drop:
    """One file, and what must become of it."""

    kind: str
    rel: bytes
    sha256: str
    samples: int
    code: str  # of the error it must fail with; empty if it must be converted
    keeps_bytes: bool = True  # False: the fake engine has the source changed while it renders


class Producers:
    """Writers that drop files into a folder until they are stopped.

    Args:
        inbox: where; not by way of the daemon's mount point, so that a producer never sees a volume go.
        seed: the same seed makes the same files in each writer.
        backlog: how many drops are waiting; at the limit the writers wait.
        limit: of the backlog.
        has_empty_files: they are refused after a minute, so a short run has none.
    """

    def __init__(
        self, inbox: Path, *, seed: int, backlog: Callable[[int], int], limit: int, has_empty_files: bool
    ) -> None:
        self._inbox, self._backlog, self._limit = inbox, backlog, limit
        self._has_empty_files = has_empty_files
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._number = 0
        self.drops: list[Drop] = []
        self.ignored: set[bytes] = set()
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(seed * 100 + n),), name=f"producer {n}")
            for n in range(3)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each finish what it is writing."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.errors:
            raise self.errors[0]

    def _work(self, rng: random.Random) -> None:
        kinds = [self._good] * 10 + [self._odd_name, self._slow, self._old, self._settings] * 2
        kinds += [self._slow_render, self._once, self._once, self._once, self._hang, self._reused, self._twin]
        kinds += [self._always, self._truncated, self._text, self._unknown_voice, self._bad_settings, self._nothing]
        kinds += [self._empty] if self._has_empty_files else []
        try:
            while not self._stop.is_set():
                if self._backlog(len(self.drops)) >= self._limit:
                    self._stop.wait(0.3)
                    continue
                rng.choice(kinds)(rng)
                self._stop.wait(rng.uniform(0.02, 0.4))
        except BaseException as e:
            self.errors.append(e)

    # --- kinds ---

    def _good(self, rng: random.Random) -> None:
        self._put("good", f"{rng.choice(FOLDERS)}{self._next()}.wav", audio(rng))

    def _odd_name(self, rng: random.Random) -> None:
        self._put("odd name", rng.choice(ODD_NAMES).format(self._next()), audio(rng))

    def _slow(self, rng: random.Random) -> None:
        data, name = audio(rng, seconds=1.0), f"{rng.choice(FOLDERS)}{self._next()}.wav"
        path = self._path(name)
        with path.open("wb") as file:
            for start in range(0, len(data), len(data) // 6 + 1):
                file.write(data[start : start + len(data) // 6 + 1])
                file.flush()
                time.sleep(rng.uniform(0.05, 0.4))
        self._note("slow copy", name, data)

    def _old(self, rng: random.Random) -> None:
        self._put("old times", f"{self._next()}.wav", audio(rng), times=(rng.choice([1e9, 4e9]),) * 2)

    def _settings(self, rng: random.Random) -> None:
        name = f"{self._next()}.wav"
        form = rng.choice(["wav", "flac", "wav24"])
        self._path(name + ".toml").write_text(f'voice = "tenor"\ntranspose = 3\noutput_format = "{form}"\n')
        self._put("settings", name, audio(rng))

    def _slow_render(self, rng: random.Random) -> None:
        self._put("slow render", f"slow-{rng.uniform(0.5, 2.5):.1f}-{self._next()}.wav", audio(rng))

    def _once(self, rng: random.Random) -> None:
        verb = rng.choice(ONCE)
        name = f"{verb}-once-{self._next()}.wav"
        self._put(f"{verb} once", name, audio(rng), keeps_bytes=verb != "append")

    def _hang(self, rng: random.Random) -> None:
        if rng.random() < 0.4:
            self._put("hang once", f"hang-once-{self._next()}.wav", audio(rng))

    def _reused(self, rng: random.Random) -> None:
        self._put("name used again", "the same name.wav", audio(rng))

    def _twin(self, rng: random.Random) -> None:
        data = audio(rng)
        for _ in range(2):
            self._put("same content", f"{self._next()}.wav", data)

    def _always(self, rng: random.Random) -> None:
        verb = rng.choice(ALWAYS)
        codes = {"raise": "E_INTERNAL", "kill": "E_CRASH_REPEATED"}
        name = f"{verb}-{self._next()}.wav"
        self._put(f"{verb} always", name, audio(rng), code=codes.get(verb, "E_OUTPUT_INVALID"))

    def _truncated(self, rng: random.Random) -> None:
        data = audio(rng)
        self._put("truncated", f"{self._next()}.wav", data[: len(data) // 2], code="E_INPUT_TRUNCATED")

    def _text(self, rng: random.Random) -> None:
        data = f"<html>not audio {self._next()}</html>".encode() * 9
        self._put("text", f"{self._next()}.wav", data, code="E_INPUT_NOT_AUDIO")

    def _unknown_voice(self, rng: random.Random) -> None:
        self._put("unknown voice", f"nobody/{self._next()}.wav", audio(rng), code="E_VOICE_UNKNOWN")

    def _bad_settings(self, rng: random.Random) -> None:
        name = f"{self._next()}.wav"
        self._path(name + ".toml").write_text("banana = 2\n")
        self._put("bad settings", name, audio(rng), code="E_CONFIG_SIDECAR")

    def _empty(self, rng: random.Random) -> None:
        self._put("empty", f"{self._next()}.wav", b"", code="E_INPUT_EMPTY")

    def _nothing(self, rng: random.Random) -> None:
        """Leave something that is no candidate; it must stay as it is."""
        number = self._next()
        make: dict[str, Callable[[Path], object]] = {
            f"link {number}.wav": lambda path: path.symlink_to("/etc/hostname"),
            f"fifo {number}.wav": lambda path: os.mkfifo(path),
            f".hidden {number}.wav": lambda path: path.write_bytes(audio(rng)),
            f"notes {number}.txt": lambda path: path.write_text("not for us"),
            f"{number}.wav.part": lambda path: path.write_bytes(audio(rng)),
        }
        name = rng.choice(sorted(make))
        if len(self.ignored) < 40:
            make[name](self._path(name))
            self.ignored.add(os.fsencode(name))

    # --- how ---

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _path(self, name: str) -> Path:
        path = self._inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _put(
        self,
        kind: str,
        name: str,
        data: bytes,
        *,
        code: str = "",
        keeps_bytes: bool = True,
        times: tuple[float, float] | None = None,
    ) -> None:
        """Write under a hidden name, then give the file its own, unless that is taken just now."""
        path = self._path(name)
        temp = path.with_name(f".incoming-{self._next()}")
        temp.write_bytes(data)
        if times is not None:
            os.utime(temp, times)
        with contextlib.suppress(FileExistsError):
            os.link(temp, path)
            self._note(kind, name, data, code=code, keeps_bytes=keeps_bytes)
        temp.unlink()

    def _note(self, kind: str, name: str, data: bytes, *, code: str = "", keeps_bytes: bool = True) -> None:
        drop = Drop(kind, os.fsencode(name), hashlib.sha256(data).hexdigest(), (len(data) - 44) // 2, code, keeps_bytes)
        with self._lock:
            self.drops.append(drop)


def audio(rng: random.Random, *, seconds: float = 0.0) -> bytes:
    """Return a WAV file of noise that no other has."""
    length = int(RATE * (seconds or rng.uniform(0.02, 0.3)))
    noise = np.random.default_rng(rng.getrandbits(64)).integers(-3000, 3000, length, dtype=np.int16)
    file = io.BytesIO()
    soundfile.write(file, noise, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()
