"""Recipes and the settings of voices: who is stronger, what is wrong where, and what `recipe show` says of it."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from rvc_batch.config import Settings, load_settings
from rvc_batch.engine.settings import ConversionSettings
from rvc_batch.errors import RecipeInvalid, RvcBatchError, SettingsInvalid, SidecarInvalid, VoiceUnknown
from rvc_batch.home import Home
from rvc_batch.jobs.doctor import _presets
from rvc_batch.jobs.findings import Level
from rvc_batch.jobs.output_names import variant_name
from rvc_batch.jobs.presets import Presets
from rvc_batch.jobs.request import Choices, Request, output_rel, read_again, read_request, read_requests
from rvc_batch.jobs.voice_use import mentions
from tests.cli_harness import run

VOICES = ("alto", "bass", "tenor")


class Box:
    """The folders that choose settings, and the one file that is dropped."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)
        self.home.create()

    def write(self, name: str, text: str) -> None:
        (self.home.root / name).parent.mkdir(exist_ok=True)
        (self.home.root / name).write_text(text, encoding="utf-8")

    def choices(self, default: str = "") -> Choices:
        presets = Presets(self.home.recipes, self.home.voices)
        return Choices(VOICES, default, ConversionSettings(transpose=1.0, seed=1), presets)

    def read(self, rel: str, default: str = "") -> list[Request]:
        return read_requests(self.home.inbox / rel, rel.encode(), self.choices(default))


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_sidecar_beats_recipe_beats_voice_beats_configuration_beats_default(box: Box) -> None:
    box.write("voices/alto.toml", "transpose = 2\nindex_rate = 0.2\nprotect = 0.2\nseed = 2")
    box.write("recipes/soft.toml", 'voice = "alto"\ntranspose = 3\nindex_rate = 0.3')
    box.write("inbox/soft/a.wav.toml", "transpose = 4")
    (request,) = box.read("soft/a.wav")
    assert request.voice == "alto"
    assert request.settings == ConversionSettings(transpose=4.0, index_rate=0.3, protect=0.2, seed=2)
    assert [p.name for p in request.presets] == ["voices/alto.toml", "recipes/soft.toml", "a.wav.toml"]
    (plain,) = box.read("alto/b.wav")
    assert plain.settings == ConversionSettings(transpose=2.0, index_rate=0.2, protect=0.2, seed=2)
    assert box.read("bass/b.wav")[0].settings == ConversionSettings(transpose=1.0, seed=1)


def test_sidecar_overrules_the_voices_of_a_recipe_and_keeps_its_settings(box: Box) -> None:
    box.write("recipes/duo.toml", 'voice = ["alto", "bass"]\nprotect = 0.1')
    box.write("voices/tenor.toml", "seed = 7")
    box.write("inbox/duo/a.wav.toml", 'voice = "tenor"')
    (request,) = box.read("duo/a.wav")
    assert (request.voice, request.chosen_by) == ("tenor", "a.wav.toml")
    assert (request.settings.protect, request.settings.seed) == (0.1, 7)


def test_recipe_of_several_voices_asks_for_each_with_its_own_settings(box: Box) -> None:
    box.write("recipes/duo.toml", 'voice = ["Bass", "alto"]\nprotect = 0.1\noutput_format = "flac"')
    box.write("voices/alto.toml", "transpose = 12\nprotect = 0.4")
    bass, alto = box.read("duo/album/a.wav")
    assert (bass.voice, bass.settings.transpose, bass.settings.protect) == ("bass", 1.0, 0.1)
    assert (alto.voice, alto.settings.transpose, alto.settings.protect) == ("alto", 12.0, 0.1)
    assert output_rel(b"duo/album/a.wav", alto.settings, variant="alto") == b"duo/album/a (alto).flac"
    with pytest.raises(RecipeInvalid, match=r"recipes/duo\.toml names 2 voices now, and this job is one"):
        read_request(box.home.inbox / "duo/a.wav", b"duo/a.wav", box.choices())


def test_recipe_goes_before_a_voice_of_its_name_and_an_exact_voice_before_a_near_recipe(box: Box) -> None:
    box.write("recipes/alto.toml", 'voice = "bass"')
    box.write("recipes/TENOR.toml", 'voice = "bass"')
    assert box.read("alto/a.wav")[0].voice == "bass"
    assert box.read("tenor/a.wav")[0].voice == "tenor"
    assert box.read("TENOR/a.wav")[0].voice == "bass"


def test_recipe_is_found_in_any_case_and_unicode_form(box: Box) -> None:
    box.write(f"recipes/{unicodedata.normalize('NFD', 'Ärger')}.toml", 'voice = "bass"')
    assert box.read("ärger/a.wav")[0].voice == "bass"


def test_recipe_without_a_voice_leaves_it_to_the_default(box: Box) -> None:
    box.write("recipes/soft.toml", "protect = 0.1")
    (request,) = box.read("soft/a.wav", default="tenor")
    assert (request.voice, request.chosen_by, request.settings.protect) == ("tenor", "default_voice", 0.1)


def test_files_outside_folders_and_hidden_files_are_no_recipes(box: Box) -> None:
    box.write("recipes/.soft.toml", "")
    box.write("recipes/soft.txt", "")
    assert box.choices().presets.recipe_names() == []
    with pytest.raises(VoiceUnknown, match="no voice 'soft'"):
        box.read("soft/a.wav")
    box.write("recipes/softly.toml", "")
    with pytest.raises(VoiceUnknown, match="did you mean softly"):
        box.read("soft/a.wav")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ('voice = "alto"\n\nprotect = 7', RecipeInvalid, "recipes/x.toml:3: protect is 7"),
        ("banana = 1", RecipeInvalid, "recipes/x.toml:1: unknown setting 'banana'"),
        ("\nvoice = 3", RecipeInvalid, "recipes/x.toml:2: voice is 3, expected the name of a voice, or a list"),
        ("voice = []", RecipeInvalid, "recipes/x.toml:1: voice is [], expected"),
        ('voice = ["alto", 3]', RecipeInvalid, "recipes/x.toml:1: voice is ['alto', 3], expected"),
        ('voice = ["alto", "alto"]', RecipeInvalid, "recipes/x.toml:1: voice names 'alto' twice"),
        ('voice = ["alto", "ALTO"]', RecipeInvalid, "recipes/x.toml:1: voice names alto, alto; name each voice once"),
        ('\nvoice = ["alto", "nobody"]', VoiceUnknown, "recipes/x.toml:2: there is no voice 'nobody'"),
        ("voice = \n", RecipeInvalid, "recipes/x.toml: not TOML: "),
        ("# \udcff", RecipeInvalid, "recipes/x.toml:1: not UTF-8 text"),
        ("x" * 70_000, RecipeInvalid, "recipes/x.toml: more than 65536 bytes"),
        ("a" + ".a" * 5000 + " = 1", RecipeInvalid, "recipes/x.toml:"),
    ],
)
def test_bad_recipe_is_an_error_with_its_line(box: Box, text: str, error: type[RvcBatchError], said: str) -> None:
    (box.home.recipes / "x.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(error) as caught:
        box.read("x/a.wav")
    assert said in str(caught.value)


def test_settings_of_a_voice_name_no_voice_and_a_sidecar_names_one(box: Box) -> None:
    box.write("voices/alto.toml", 'protect = 0.1\nvoice = "bass"')
    with pytest.raises(RecipeInvalid, match=r"voices/alto\.toml:2: unknown setting 'voice'"):
        box.read("alto/a.wav")
    box.write("inbox/bass/a.wav.toml", 'voice = ["alto", "bass"]')
    with pytest.raises(SidecarInvalid, match=r"a\.wav\.toml:1: voice is \['alto', 'bass'\], expected the name of a"):
        box.read("bass/a.wav")


def test_job_keeps_its_voice_and_settings_when_its_sidecar_is_read_again(box: Box) -> None:
    box.write("recipes/duo.toml", 'voice = ["alto", "bass"]\ntranspose = 5')
    box.write("inbox/duo/a.wav.toml", "protect = 0.1")
    frozen = ConversionSettings(transpose=9.0)
    choices = Choices(VOICES, "", frozen, box.choices().presets)
    again = read_again(box.home.inbox / "duo/a.wav", b"duo/a.wav", "bass", choices)
    assert (again.voice, again.settings) == ("bass", ConversionSettings(transpose=9.0, protect=0.1))


@pytest.mark.parametrize(
    ("name", "voice", "expected"),
    [
        (b"x/a.b.wav", "alto", b"x/a.b (alto).wav"),
        (b"noend", "alto", b"noend (alto)"),
        (b"bad\xff.wav", "Zo\u00eb", b"bad\xff (Zo\xc3\xab).wav"),
    ],
)
def test_variants_have_the_voice_in_their_name(name: bytes, voice: str, expected: bytes) -> None:
    assert variant_name(name, voice) == expected


def test_variants_of_long_names_fit_into_a_file_name() -> None:
    name = variant_name(b"x/" + b"n" * 250 + b".wav", "\u00e4" * 150)
    assert len(name.removeprefix(b"x/")) <= 255
    assert name.decode().endswith("\u00e4).wav")


# the commands


def voiced(box: Box) -> Home:
    for name in VOICES:
        (box.home.voices / f"{name}.pth").touch()
    box.write("rvc-batch.toml", "[conversion]\nseed = 5\nrms_mix_rate = 0.5\n[library]\nreplay = false")
    box.write("voices/alto.toml", "rms_mix_rate = 0.6")
    box.write("recipes/duo.toml", 'voice = ["alto", "bass"]\nprotect = 0.1')
    return box.home


def test_show_says_where_each_value_comes_from(box: Box) -> None:
    home = voiced(box)
    box.write("inbox/duo/a.wav.toml", "transpose = -3")
    answer = json.loads(run(home, "recipe", "show", str(home.inbox / "duo" / "a.wav"), "--json").output)
    alto, bass = answer["jobs"]
    assert answer["file"] == "duo/a.wav"
    assert (alto["voice"], alto["voice_from"], alto["output"]) == ("alto", "recipes/duo.toml", "duo/a (alto).wav")
    origin = {name: (entry["value"], entry["from"]) for name, entry in alto["settings"].items()}
    assert origin["transpose"] == (-3.0, "a.wav.toml")
    assert origin["protect"] == (0.1, "recipes/duo.toml")
    assert origin["rms_mix_rate"] == (0.6, "voices/alto.toml")
    assert origin["seed"] == (5, "rvc-batch.toml")
    assert origin["index_rate"] == (0.75, "default")
    assert bass["settings"]["rms_mix_rate"] == {"value": 0.5, "from": "rvc-batch.toml"}
    text = run(home, "recipe", "show", "inbox/duo/a.wav").output
    assert "voice bass (recipes/duo.toml) → outbox/duo/a (bass).wav\n  transpose" in text
    assert run(home, "recipe", "show", "inbox/bass/new.mp3").output.startswith("voice bass (the folder) → outbox/bass/")
    with pytest.raises(SettingsInvalid, match="is not below"):
        run(home, "recipe", "show", "/etc/hosts")


def test_list_and_doctor_name_recipes_that_cannot_be_used(box: Box) -> None:
    home = voiced(box)
    assert run(home, "recipe", "list").output == "duo  alto, bass  protect = 0.1\n"
    assert [f.level for f in _presets(home)] == [Level.OK]
    box.write("recipes/bad.toml", "protect = 7")
    box.write("recipes/lost.toml", 'voice = "nobody"')
    box.write("voices/alto.toml", "seed = -1")
    lines = run(home, "recipe", "list", code=78).output.splitlines()
    assert lines[0].startswith("bad   –")
    assert "unusable: recipes/bad.toml:1: protect is 7" in lines[0]
    assert "unusable: recipes/lost.toml:1: there is no voice 'nobody'" in lines[2]
    found = [f.what for f in _presets(home) if f.level is Level.WARNING]
    assert [text.split(": ")[0] for text in found] == ["recipes/bad.toml:1", "voices/alto.toml:1"]


def test_add_takes_the_name_of_a_recipe(box: Box, tmp_path: Path) -> None:
    home = voiced(box)
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    run(home, "add", str(tmp_path / "song.wav"), "--voice", "duo")
    assert (home.inbox / "duo" / "song.wav").is_file()
    with pytest.raises(VoiceUnknown, match="no voice 'nobody'; voices and recipes are alto, bass, tenor, duo"):
        run(home, "add", str(tmp_path / "song.wav"), "--voice", "nobody")


def test_renamed_or_removed_voice_is_told_where_it_is_still_named(box: Box) -> None:
    home = voiced(box)
    box.write("recipes/bad.toml", "protect = 7")
    presets = Presets(home.recipes)
    assert mentions(presets, load_settings(home, {}), "bass") == ["recipes/duo.toml"]
    assert mentions(presets, load_settings(home, {}), "tenor") == []
    assert mentions(presets, Settings(default_voice="Tenor"), "tenor") == ["default_voice"]
    output = run(home, "voices", "rename", "bass", "basso").output
    assert "bass is basso.pth now" in output
    assert "warning: recipes/duo.toml still names bass" in output
