"""The commands `import` and `voices`, and what importing puts into a home."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rvc_batch.cli import models, voices
from rvc_batch.cli.context import Context
from rvc_batch.config import Home
from rvc_batch.errors import (
    HomeInvalid,
    IndexInvalid,
    JobStateConflict,
    ModelMissing,
    ModelNotRvc,
    ModelUnsafe,
    SettingsInvalid,
    VoiceUnknown,
)
from rvc_batch.jobs.queue import Queue
from tests.queue_fakes import new_job

VOICE, OTHER = "voices/v2_40k_f0_feat48.pth", "voices/applio_v2_48k.pth"
INDEX = "index/added_IVF30_Flat_nprobe_1_golden_v2.index"


class Shell:
    """Runs the two commands in a home of its own."""

    def __init__(self, root: Path, generated: Path) -> None:
        self.home = Home(root / "home")
        self.outside = root / "downloads"
        self.generated = generated
        self.app = typer.Typer()
        models.register(self.app)
        voices.register(self.app)

    def __call__(self, *arguments: str | Path) -> str:
        result = CliRunner().invoke(self.app, [str(a) for a in arguments], obj=Context(home=self.home))
        if result.exception is not None:
            raise result.exception
        return result.output

    def json(self, command: str, *arguments: str | Path) -> list[Any]:
        answer = json.loads(self(command, *arguments, "--json"))
        assert answer["version"] == 1
        found: list[Any] = answer["imported" if command == "import" else "voices"]
        return found

    def put(self, file: str, target: str) -> Path:
        path = self.outside / target
        path.parent.mkdir(parents=True, exist_ok=True)
        source = self.generated / file
        shutil.copytree(source, path) if source.is_dir() else shutil.copyfile(source, path)
        return path

    def files(self) -> set[str]:
        """What lies in models/ and voices/, hidden files included."""
        root = self.home.root
        found = (f for folder in (self.home.models, self.home.voices) for f in folder.rglob("*") if f.is_file())
        return {str(f.relative_to(root)) for f in found}


@pytest.fixture
def shell(tmp_path: Path, checkpoints: Callable[[str], Path]) -> Shell:
    return Shell(tmp_path, checkpoints("tiny"))


def test_networks_are_recognised_by_content_and_placed(shell: Shell) -> None:
    hubert, rmvpe = shell.put("hubert_base.pt", "a.bin"), shell.put("rmvpe.pt", "b.pth")
    result = shell.json("import", hubert, rmvpe)
    assert [(r["kind"], r["copied"]) for r in result] == [("hubert", True), ("rmvpe", True)]
    assert shell.files() == {"models/hubert_base.pt", "models/rmvpe.pt"}
    assert [r["copied"] for r in shell.json("import", hubert, rmvpe)] == [False, False]


def test_a_hugging_face_folder_is_placed_without_the_rest_of_it(shell: Shell) -> None:
    folder = shell.put("contentvec", "anything")
    (folder / "README.md").touch()
    assert shell.json("import", folder)[0]["kind"] == "hubert"
    assert shell.files() == {"models/contentvec/config.json", "models/contentvec/model.safetensors"}
    with pytest.raises(HomeInvalid, match="is the content network already"):
        shell("import", shell.put("hubert_base.pt", "hubert_base.pt"))


def test_a_voice_brings_its_index_under_its_own_name(shell: Shell) -> None:
    path = shell.put(VOICE, "amy_e20_s100.pth")
    shell.put(INDEX, "added_IVF30_Flat_nprobe_1_amy_v2.index")
    (result,) = shell.json("import", path)
    assert (result["name"], result["version"], result["sample_rate"]) == ("amy_e20_s100", "v2", 40_000)
    assert shell.files() == {"voices/amy_e20_s100.pth", "voices/amy_e20_s100.index"}
    assert result["index"] == str(shell.home.voices / "amy_e20_s100.index")


def test_a_voice_folder_gives_the_voice_its_name(shell: Shell) -> None:
    path = shell.put(VOICE, "Amy (live)/model.pth")
    shell.put(INDEX, "Amy (live)/model.index")
    assert shell.json("import", path.parent)[0]["name"] == "Amy (live)"
    assert shell.files() == {"voices/Amy (live).pth", "voices/Amy (live).index"}


def test_what_lies_in_the_home_stays_where_it_is(shell: Shell) -> None:
    inside = shell.home.voices / "amy" / "model.pth"
    inside.parent.mkdir(parents=True)
    shutil.copyfile(shell.generated / VOICE, inside)
    (result,) = shell.json("import", inside.parent)
    assert (result["name"], result["placed"], result["copied"]) == ("amy", str(inside), False)
    assert shell.files() == {"voices/amy/model.pth"}


def test_a_different_file_is_never_replaced(shell: Shell) -> None:
    shell("import", shell.put(VOICE, "amy.pth"))
    before = (shell.home.voices / "amy.pth").read_bytes()
    with pytest.raises(HomeInvalid, match=r"amy\.pth is already there and is a different file"):
        shell("import", shell.put(OTHER, "second/amy.pth"))
    assert (shell.home.voices / "amy.pth").read_bytes() == before
    assert shell.files() == {"voices/amy.pth"}


def test_a_conflicting_index_stops_the_import_before_anything_is_copied(shell: Shell) -> None:
    shell.home.voices.mkdir(parents=True)
    (shell.home.voices / "amy.index").write_bytes(b"another")
    path = shell.put(VOICE, "amy.pth")
    shell.put(INDEX, "amy.index")
    with pytest.raises(HomeInvalid, match=r"amy\.index is already there"):
        shell("import", path)
    assert shell.files() == {"voices/amy.index"}


def test_a_name_taken_by_a_folder_is_refused(shell: Shell) -> None:
    (shell.home.voices / "amy").mkdir(parents=True)
    shutil.copyfile(shell.generated / OTHER, shell.home.voices / "amy" / "model.pth")
    with pytest.raises(HomeInvalid, match="has a voice 'amy' already"):
        shell("import", shell.put(VOICE, "amy.pth"))


def test_indexes_are_imported_alone(shell: Shell) -> None:
    path = shell.put(INDEX, "added_IVF30_Flat_nprobe_1_amy_v2.index")
    (result,) = shell.json("import", path)
    assert (result["kind"], result["index_dim"], result["index_vectors"]) == ("index", 48, 1200)
    assert shell.files() == {f"voices/{path.name}"}


def test_unusable_files_are_refused_and_leave_nothing(shell: Shell) -> None:
    bad = shell.outside / "bad.pth"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.")
    with pytest.raises(ModelUnsafe, match=r"posix\.system"):
        shell("import", bad)
    bad.with_suffix(".index").write_bytes(b"IwFlxx")
    with pytest.raises(IndexInvalid, match="damaged or cut short"):
        shell("import", bad.with_suffix(".index"))
    with pytest.raises(ModelMissing, match="is not there"):
        shell("import", shell.outside / "none.pth")
    (shell.outside / "empty").mkdir()
    with pytest.raises(ModelMissing, match="neither a voice"):
        shell("import", shell.outside / "empty")
    assert shell.files() == set()


def test_a_wrong_index_beside_a_voice_stops_its_import(shell: Shell) -> None:
    path = shell.put("voices/v2_40k_f0.pth", "amy.pth")
    shell.put(INDEX, "amy.index")
    with pytest.raises(IndexInvalid, match="48 features per vector, but voice 'amy' needs 768"):
        shell("import", path)
    assert shell.files() == set()


def test_files_that_came_before_a_refused_one_are_reported(shell: Shell) -> None:
    good, bad = shell.put(VOICE, "amy.pth"), shell.outside / "bad.pth"
    bad.write_bytes(b"text")
    result = CliRunner().invoke(shell.app, ["import", str(good), str(bad)], obj=Context(home=shell.home))
    assert isinstance(result.exception, ModelNotRvc)
    assert "amy.pth: voice amy, v2, 40 kHz, no index, copied to" in result.output


def test_voices_lists_without_importing(shell: Shell) -> None:
    assert "no voices in" in shell("voices")
    assert shell.json("voices") == []
    shell("import", shell.put(VOICE, "amy.pth"))
    shutil.copyfile(shell.generated / OTHER, shell.home.voices / "[bold]bob.pth")
    amy, bob = sorted(shell.json("voices"), key=lambda v: v["name"] != "amy")
    assert (amy["imported"], amy["version"], amy["n_speakers"]) == (True, "v2", 109)
    assert (bob["imported"], bob["version"], bob["error"]) == (False, None, None)
    table = shell("voices")
    assert "[bold]bob" in table  # a name is not markup
    assert "not imported yet" in table


def test_voices_with_a_name_imports_and_describes(shell: Shell) -> None:
    shell.home.voices.mkdir(parents=True)
    shutil.copyfile(shell.generated / OTHER, shell.home.voices / "bob.pth")
    (bob,) = shell.json("voices", "bob")
    assert (bob["imported"], bob["embedder"], bob["sample_rate"]) == (True, "contentvec", 48_000)
    assert "48000" in shell("voices", "bob")
    with pytest.raises(VoiceUnknown, match="near matches: bob"):
        shell("voices", "bobb")


def test_voice_is_added_from_a_zip_under_another_name(shell: Shell) -> None:
    shell.outside.mkdir(parents=True)
    with zipfile.ZipFile(shell.outside / "Amy.zip", "w") as file:
        file.write(shell.generated / VOICE, "model/amy_e20.pth")
        file.write(shell.generated / INDEX, "model/added.index")
    line = shell("voices", "add", shell.outside / "Amy.zip", "--name", "Eve")
    assert line.startswith("Amy.zip: voice Eve, v2, 40 kHz, index Eve.index, copied to ")
    assert shell.files() == {"voices/Eve.pth", "voices/Eve.index"}
    assert shell.json("import", shell.outside / "Amy.zip")[0]["name"] == "Amy"


def test_other_networks_are_no_voices_to_add(shell: Shell) -> None:
    with pytest.raises(ModelNotRvc, match="holds a rmvpe network, expected synthesizer"):
        shell("voices", "add", shell.put("rmvpe.pt", "rmvpe.pth"))
    with pytest.raises(ModelMissing, match=r"none\.zip is not there"):
        shell("voices", "add", shell.outside / "none.zip")
    assert shell.files() == set()


def test_name_of_a_file_drives_no_terminal(shell: Shell) -> None:
    name = "a\x1b[31mred\nline"
    shell.home.voices.mkdir(parents=True)
    shutil.copyfile(shell.generated / VOICE, shell.home.voices / f"{name}.pth")
    for command in (["voices"], ["voices", name], ["voices", "check"], ["import", shell.home.voices / f"{name}.pth"]):
        if command[0] == "import":
            with pytest.raises(SettingsInvalid, match="cannot be the name of a voice"):
                shell(*command)
        else:
            output = shell(*command)
            assert "\x1b" not in output
            assert "x1b" in output
    assert shell.json("voices")[0]["name"] == name


def test_check_reads_every_number_and_has_an_exit_code(shell: Shell) -> None:
    shell("import", shell.put(VOICE, "amy.pth"))
    shell("import", shell.put(INDEX, "amy.index"))
    assert shell("voices", "check") == "amy: ok\n"
    checkpoint = next(shell.home.cache.glob("synthesizer-*"))
    data = bytearray(checkpoint.read_bytes())
    data[-1] ^= 1
    checkpoint.write_bytes(data)
    assert "its copy in the model cache was damaged and was made anew" in shell("voices", "check", "amy")
    assert shell("voices", "check", "amy") == "amy: ok\n"
    index = shell.home.voices / "amy.index"
    data = bytearray(index.read_bytes())
    data[-1208:-1200] = b"\xff" * 8  # in the vectors of the last list
    index.write_bytes(data)
    result = CliRunner().invoke(shell.app, ["voices", "check", "--json"], obj=Context(home=shell.home))
    assert result.exit_code == 66
    (checked,) = json.loads(result.output)["checked"]
    assert checked["code"] == "E_INDEX_INVALID"
    assert "NaN or infinite" in checked["error"]
    index.unlink()
    (shell.home.voices / "amy.pth").write_bytes(b"text")
    result = CliRunner().invoke(shell.app, ["voices", "check"], obj=Context(home=shell.home))
    assert result.exit_code == 66
    assert "amy: unusable: amy.pth (4 bytes) is not a torch file" in result.output


def test_rename_and_remove_refuse_while_jobs_need_the_voice(shell: Shell) -> None:
    shell("import", shell.put(VOICE, "amy.pth"))
    shell.home.create()
    queue = Queue.open(shell.home.database)
    job = queue.submit(new_job(voice="amy"))
    queue.enqueue(job.id)
    for command in (["rename", "amy", "eve"], ["remove", "amy"]):
        with pytest.raises(JobStateConflict, match=r"'amy' is needed by 1 job\(s\) that have not ended \(1\)"):
            shell("voices", *command)
    queue.cancel(job.id)
    queue.close()
    assert shell("voices", "rename", "amy", "eve") == "amy is eve.pth now\n"
    assert "eve is in " in shell("voices", "remove", "eve")
    assert shell.files() == {"voices/.trash/eve/eve.pth"}


def test_voice_called_like_a_command_is_shown_by_its_long_form(shell: Shell) -> None:
    shell("import", shell.put(VOICE, "add.pth"))
    assert shell.json("voices", "show", "add")[0]["name"] == "add"
