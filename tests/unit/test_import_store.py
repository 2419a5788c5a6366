"""The model store: first use imports, unchanged files are not read again, replaced ones are noticed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rvc_batch.engine.checkpoints import NetworkKind, read_header
from rvc_batch.errors import (
    FolderGone,
    IndexInvalid,
    ModelCorrupt,
    ModelMissing,
    ModelNotRvc,
    ModelTraining,
    VoiceUnknown,
)
from rvc_batch.importers import cache as cache_module
from rvc_batch.importers import isolation
from rvc_batch.importers.isolation import import_isolated
from rvc_batch.importers.sources import source_sha256
from rvc_batch.importers.store import ModelStore

VOICE = "v2_40k_f0_feat48"
INDEX_48, INDEX_256 = "added_IVF30_Flat_nprobe_1_golden_v2.index", "added_IVF15_Flat_nprobe_1_golden_v1.index"


class Home:
    """A home under test: its folders, its store, and how many imports ran."""

    def __init__(self, root: Path, generated: Path) -> None:
        self.models, self.voices, self.cache = root / "models", root / "voices", root / "state" / "cache"
        self.models.mkdir()
        self.voices.mkdir()
        self.generated = generated
        self.store = ModelStore(models=self.models, voices=self.voices, cache=self.cache)
        self.imports: list[Path] = []

    def put(self, file: str, target: str) -> Path:
        path = self.models.parent / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.generated / file, path)
        return path

    def put_voice(self, target: str = "amy.pth", source: str = VOICE) -> Path:
        return self.put(f"voices/{source}.pth", f"voices/{target}")


@pytest.fixture
def home(tmp_path: Path, checkpoints: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Home:
    home = Home(tmp_path, checkpoints("tiny"))

    def counted(source: Path, target: Path, *, sha256: str) -> NetworkKind:
        home.imports.append(source)
        return import_isolated(source, target, sha256=sha256)

    monkeypatch.setattr(cache_module, "import_isolated", counted)
    return home


def kill_itself_halfway(folder: Path) -> Path:
    """Return a program that stands for the helper: it writes half a checkpoint, then dies as if out of memory."""
    script = folder / "dies"
    script.write_text('#!/bin/sh\nprintf unfinished > "$4"\nkill -9 $$\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


# networks


def test_missing_networks_name_the_files_and_the_folder(home: Home) -> None:
    with pytest.raises(ModelMissing, match=r"hubert_base\.pt into .*models.*contentvec/.*config\.json"):
        home.store.hubert()
    with pytest.raises(ModelMissing, match=r"rmvpe\.pt into .*models"):
        home.store.rmvpe()


def test_networks_are_imported_once(home: Home) -> None:
    source = home.put("hubert_base.pt", "models/hubert_base.pt")
    home.put("rmvpe.pt", "models/rmvpe.pt")
    hubert, rmvpe = home.store.hubert(), home.store.rmvpe()
    assert (home.store.hubert(), home.store.rmvpe()) == (hubert, rmvpe)
    assert len(home.imports) == 2
    header = read_header(hubert, NetworkKind.HUBERT)
    assert hubert.name == f"hubert-{source_sha256(source)}.safetensors"
    assert (header.source_name, header.source_sha256) == ("hubert_base.pt", source_sha256(source))
    assert read_header(rmvpe, NetworkKind.RMVPE).kind is NetworkKind.RMVPE


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_hugging_face_folder_serves_as_content_network(home: Home, weights: str) -> None:
    home.put("contentvec/config.json", "models/contentvec/config.json")
    home.put(f"contentvec/{weights}", f"models/contentvec/{weights}")
    first = home.store.hubert()
    assert read_header(first, NetworkKind.HUBERT).source_name == "contentvec"
    (home.models / "contentvec" / "config.json").write_text(
        (home.generated / "contentvec" / "config.json").read_text() + "\n"
    )
    assert home.store.hubert() != first  # the config is part of the source


def test_a_file_of_another_kind_is_refused(home: Home) -> None:
    home.put("rmvpe.pt", "models/hubert_base.pt")
    with pytest.raises(ModelNotRvc, match="holds a rmvpe network, expected hubert"):
        home.store.hubert()


# the cache


def test_unchanged_sources_are_not_hashed_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.put_voice()
    first = home.store.voice("amy")
    monkeypatch.setattr(cache_module, "source_sha256", lambda _: pytest.fail("hashed again"))
    assert home.store.voice("amy") == first
    again = ModelStore(models=home.models, voices=home.voices, cache=home.cache)  # another process, later
    assert again.voice("amy") == first


def test_a_replaced_source_is_noticed(home: Home) -> None:
    path = home.put_voice()
    first = home.store.voice("amy")
    home.put("voices/v2_48k_f0_feat48.pth", "new.pth").replace(path)
    second = home.store.voice("amy")
    assert (first.sample_rate, second.sample_rate) == (40_000, 48_000)
    assert first.sha256 != second.sha256
    assert first.checkpoint.exists()  # a running job may still read it


def test_a_touched_or_copied_source_is_hashed_but_not_imported_again(home: Home) -> None:
    path = home.put_voice()
    first = home.store.voice("amy")
    os.utime(path, (1, 1))
    home.put_voice("bob.pth")
    assert home.store.voice("amy").checkpoint == home.store.voice("bob").checkpoint == first.checkpoint
    assert len(home.imports) == 1


@pytest.mark.parametrize("damage", ["delete", "cut", "schema"])
def test_a_lost_or_stale_checkpoint_is_imported_again(home: Home, damage: str) -> None:
    home.put_voice()
    checkpoint = home.store.voice("amy").checkpoint
    whole = checkpoint.read_bytes()
    if damage == "delete":
        checkpoint.unlink()
    else:
        checkpoint.write_bytes(whole[:100] if damage == "cut" else whole.replace(b'"schema":"1"', b'"schema":"0"'))
    assert home.store.voice("amy").checkpoint == checkpoint
    assert len(checkpoint.read_bytes()) == len(whole)
    assert len(home.imports) == 2


def test_a_source_that_changes_during_its_import_is_not_cached(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home.put_voice()

    def while_it_changes(source: Path, target: Path, *, sha256: str) -> NetworkKind:
        kind = import_isolated(source, target, sha256=sha256)
        os.utime(path, (7, 7))
        return kind

    monkeypatch.setattr(cache_module, "import_isolated", while_it_changes)
    with pytest.raises(ModelCorrupt, match="changed while it was imported"):
        home.store.voice("amy")
    assert not list(home.cache.glob("*.safetensors"))


def test_a_helper_killed_halfway_leaves_no_checkpoint(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.put_voice()
    monkeypatch.setattr(isolation.sys, "executable", str(kill_itself_halfway(tmp_path)))
    with pytest.raises(ModelCorrupt, match=r"amy\.pth \(\d+ bytes\) could not be imported: .* ended by SIGKILL"):
        home.store.voice("amy")
    assert not [p for p in home.cache.iterdir() if p.suffix != ".json"]
    monkeypatch.undo()
    assert home.store.voice("amy").sample_rate == 40_000  # the failure is not remembered against it


def test_a_helper_that_hangs_is_stopped(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = kill_itself_halfway(tmp_path)
    script.write_text("#!/bin/sh\nexec tail -f /dev/null\n")
    monkeypatch.setattr(isolation.sys, "executable", str(script))
    with pytest.raises(ModelCorrupt, match=r"not imported within 0\.2 s"):
        import_isolated(home.put_voice(), tmp_path / "out", sha256="0" * 64, time_limit_s=0.2)


def test_leftovers_of_killed_imports_are_removed_after_a_day(home: Home) -> None:
    home.put_voice()
    home.cache.mkdir(parents=True)
    old, young = home.cache / "old.part", home.cache / "young.part"
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    home.store.voice("amy")
    assert (old.exists(), young.exists()) == (False, True)


def test_two_imports_at_once_agree(home: Home) -> None:
    home.put_voice()
    barrier, results = threading.Barrier(2), list[Path]()

    def use() -> None:
        store = ModelStore(models=home.models, voices=home.voices, cache=home.cache)
        barrier.wait()
        results.append(store.voice("amy").checkpoint)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert read_header(results[0], NetworkKind.SYNTHESIZER).kind is NetworkKind.SYNTHESIZER
    assert not list(home.cache.glob("*.part"))


def test_a_cache_that_cannot_be_written_names_the_folder(home: Home) -> None:
    home.put_voice()
    home.cache.parent.mkdir(parents=True)
    home.cache.write_text("a file is in the way")
    with pytest.raises(FolderGone, match=r"cannot write to .*cache"):
        home.store.voice("amy")


# voices


def test_names_come_from_files_and_folders_alone(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.put_voice("amy.pth")
    home.put_voice("Bob (live)/model.pth")
    home.put_voice("deep/er/x.pth")
    home.put_voice("._amy.pth")
    home.put_voice(".hidden/x.pth")
    (home.voices / "empty").mkdir()
    (home.voices / "notes.txt").touch()
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("a file was opened"))
    assert home.store.voice_names() == ["Bob (live)", "amy", "deep"]
    assert home.imports == []


def test_no_voices_folder_means_no_voices(tmp_path: Path) -> None:
    store = ModelStore(models=tmp_path, voices=tmp_path / "none", cache=tmp_path)
    assert store.voice_names() == []
    with pytest.raises(VoiceUnknown, match=r"holds no voices: copy a \.pth there or run `rvc-batch import"):
        store.voice("amy")


def test_names_are_found_in_either_unicode_form(home: Home) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    home.put_voice(f"{decomposed}.pth")
    assert home.store.voice_names() == [composed]
    assert home.store.voice(decomposed).name == home.store.voice(composed).name == composed


def test_an_unknown_voice_lists_near_matches(home: Home) -> None:
    for name in ("Amelia", "amy", "zoe"):
        home.put_voice(f"{name}.pth")
    with pytest.raises(VoiceUnknown, match=r"no voice 'Amilia' in .*near matches: Amelia"):
        home.store.voice("Amilia")
    with pytest.raises(VoiceUnknown, match=r"there are Amelia, amy, zoe"):
        home.store.voice("qqqqqq")


def test_two_places_of_one_name_are_an_error(home: Home) -> None:
    home.put_voice("amy.pth")
    home.put_voice("amy/model.pth")
    with pytest.raises(VoiceUnknown, match=r"names 2 voices: .*amy and .*amy\.pth; rename one"):
        home.store.voice("amy")
    assert all("names 2 voices" in str(listing.error) for listing in home.store.listing())


def test_a_folder_is_one_voice(home: Home) -> None:
    home.put_voice("amy/G_2333.pth")
    home.put_voice("amy/sub/amy_e20.pth")
    assert home.store.voice("amy").name == "amy"  # training files beside the export are passed over
    home.put_voice("amy/amy_e40.pth")
    with pytest.raises(ModelNotRvc, match=r"holds 2 \.pth files .* keep one, or name it amy\.pth"):
        home.store.voice("amy")
    home.put_voice("amy/model.pth")
    assert home.store.voice("amy").sample_rate == 40_000


def test_a_voice_file_anywhere_has_its_index_beside_it(home: Home) -> None:
    path = home.put(f"voices/{VOICE}.pth", "elsewhere/amy.pth")
    index = home.put(f"index/{INDEX_48}", "elsewhere/amy.index")
    voice = home.store.voice_file(path)
    assert (voice.name, voice.index) == ("amy", index)
    with pytest.raises(ModelMissing, match=r"none\.pth is not there"):
        home.store.voice_file(path.with_name("none.pth"))


def test_indexes_are_matched_and_checked(home: Home) -> None:
    home.put_voice("amy.pth")
    assert home.store.voice("amy").index is None
    index = home.put(f"index/{INDEX_48}", "voices/added_IVF30_Flat_nprobe_1_amy_v2.index")
    assert home.store.voice("amy").index == index
    other = home.put(f"index/{INDEX_256}", "other.index")
    with pytest.raises(IndexInvalid, match=r"256 features per vector, but voice 'amy' needs 48"):
        home.store.voice("amy", index=other)
    index.write_bytes(index.read_bytes()[:-4])
    with pytest.raises(IndexInvalid, match="damaged or cut short"):
        home.store.voice("amy")


def test_a_trained_index_is_not_used_and_warned_of(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.put_voice("amy/amy.pth")
    home.put(f"index/{INDEX_48}", "voices/amy/trained_IVF30_Flat_nprobe_1_amy_v2.index")
    assert home.store.voice("amy").index is None
    assert "'trained' index without vectors" in caplog.text
    assert any("'trained' index" in w for w in home.store.listing()[0].warnings)


# the listing


def test_the_listing_imports_nothing_and_describes_what_is_imported(home: Home) -> None:
    home.put_voice("amy.pth")
    home.put(f"index/{INDEX_48}", "voices/amy.index")
    home.put_voice("bob.pth", "applio_v2_40k")
    home.store.voice("bob")
    amy, bob = home.store.listing()
    assert len(home.imports) == 1
    assert (amy.name, amy.is_imported, amy.voice, amy.error) == ("amy", False, None, None)
    assert amy.index == home.voices / "amy.index"
    assert amy.index_info is not None
    assert amy.index_info.count == 1200
    assert bob.is_imported
    assert bob.voice is not None
    assert (bob.voice.embedder, bob.voice.config.n_speakers) == ("contentvec", 109)


def test_the_listing_tells_why_a_voice_failed_until_it_is_replaced(home: Home) -> None:
    torch.save({"model": {"enc_p.emb_phone.weight": torch.zeros(1)}, "iteration": 1}, home.voices / "amy.pth")
    with pytest.raises(ModelTraining):
        home.store.voice("amy")
    assert "raw training file" in str(home.store.listing()[0].error)
    home.put_voice("amy.pth")
    assert home.store.listing()[0].error is None


def test_the_listing_shows_an_index_that_does_not_fit(home: Home) -> None:
    home.put_voice("amy.pth")
    home.store.voice("amy")
    home.put(f"index/{INDEX_256}", "voices/amy.index")
    assert "256 features per vector" in str(home.store.listing()[0].error)


def test_the_store_loads_no_framework(tmp_path: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path; from rvc_batch.importers.store import ModelStore;"
        "p = Path(sys.argv[1]); ModelStore(models=p, voices=p, cache=p).voice_names();"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    out = subprocess.run([sys.executable, "-c", code, tmp_path], check=True, capture_output=True, text=True).stdout
    assert not {"torch", "mlx", "faiss"} & set(json.loads(out))


def test_the_helper_process_loads_no_framework(home: Home, tmp_path: Path) -> None:
    code = (
        "import json, sys; from rvc_batch.importers.process import main; main(sys.argv[1:]);"
        "print('\\n' + json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    command = [sys.executable, "-c", code, home.put_voice(), tmp_path / "out", "0" * 64, "0"]
    report, modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert json.loads(report) == {"kind": "synthesizer"}
    assert not {"torch", "mlx", "faiss", "scipy"} & set(json.loads(modules))
