"""The library of voices: what is found in the layouts of other programs, which index belongs to which voice."""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rvc_batch.config import LibrarySettings, load_settings
from rvc_batch.errors import HomeInvalid, ModelCorrupt, ModelNotRvc, ModelUnsafe, RvcBatchError, SettingsInvalid
from rvc_batch.home import Home
from rvc_batch.importers import archive, library
from rvc_batch.importers.library import checked_name, find, indexes_of, scan
from rvc_batch.importers.roots import REPLAY, replay_folders
from rvc_batch.importers.shelving import remove, rename
from rvc_batch.importers.store import ModelStore
from tests.unit.test_import_index import write_index

ADDED = "added_IVF210_Flat_nprobe_1"


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def found(root: Path) -> dict[str, str | None]:
    """Return the voices of a root, each with the index that belongs to it, by paths below the root."""
    answer = dict[str, str | None]()
    for entry in scan(root / "no home", [root]):
        match = indexes_of(entry, entry.weights()).match
        answer[f"{entry.name} {entry.weights().relative_to(root)}"] = match and str(match.relative_to(root))
    return answer


def test_applio_has_a_folder_per_voice(tmp_path: Path) -> None:
    touch(tmp_path, "logs/amy/amy_200e_4000s.pth", "logs/amy/amy.index", "logs/amy/G_4000.pth", "logs/amy/D_4000.pth")
    touch(tmp_path, "logs/only training/G_4000.pth", "logs/mute/config.json", "rvc/models/pretraineds/f0G40k.pth")
    assert found(tmp_path) == {"amy logs/amy/amy_200e_4000s.pth": "logs/amy/amy.index"}


def test_several_saves_of_one_training_are_voices_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "logs/amy/amy_100e_2000s.pth", "logs/amy/amy_200e_4000s.pth", f"logs/amy/{ADDED}_amy_v2.index")
    index = f"logs/amy/{ADDED}_amy_v2.index"
    assert found(tmp_path) == {
        "amy_100e_2000s logs/amy/amy_100e_2000s.pth": index,
        "amy_200e_4000s logs/amy/amy_200e_4000s.pth": index,
    }


@pytest.mark.parametrize("weights", ["assets/weights", "weights"])
def test_webui_keeps_indexes_apart_from_voices(tmp_path: Path, weights: str) -> None:
    touch(tmp_path, f"{weights}/amy_e20_s100.pth", f"{weights}/bob.pth", f"{weights}/cy.pth", f"{weights}/dan.pth")
    touch(tmp_path, f"assets/indices/amy_{ADDED}_amy_v2.index", f"logs/bob/{ADDED}_v2.index", "logs/bob/G_1.pth")
    touch(tmp_path, f"logs/cy/trained_{ADDED[6:]}_cy_v2.index", "logs/zoe/G_1.pth", "logs/zoe/zoe.index")
    touch(tmp_path, f"logs/dan sings/{ADDED}_v2.index")
    assert found(tmp_path) == {
        f"amy_e20_s100 {weights}/amy_e20_s100.pth": f"assets/indices/amy_{ADDED}_amy_v2.index",
        f"bob {weights}/bob.pth": f"logs/bob/{ADDED}_v2.index",
        f"cy {weights}/cy.pth": None,
        f"dan {weights}/dan.pth": None,
    }
    (cy,) = [entry for entry in scan(tmp_path / "no home", [tmp_path]) if entry.name == "cy"]
    assert [t.name for t in indexes_of(cy, cy.weights()).trained] == [f"trained_{ADDED[6:]}_cy_v2.index"]


def test_replay_has_folders_whatever_the_files_are_called(tmp_path: Path) -> None:
    models = tmp_path / REPLAY[0]
    touch(models, "Amy (live)/model.pth", "Amy (live)/model.index", "Bob/deep/x.pth", f"Bob/{ADDED}_y_v2.index")
    assert replay_folders(tmp_path) == [models]
    assert found(models) == {
        "Amy (live) Amy (live)/model.pth": "Amy (live)/model.index",
        "Bob Bob/deep/x.pth": f"Bob/{ADDED}_y_v2.index",
    }


def test_plain_folder_has_files_side_by_side(tmp_path: Path) -> None:
    touch(tmp_path, "amy.pth", "amy.index", "bob.pth", f"{ADDED}_bob_v2.index", "G_2333.pth", "notes.txt", ".x.pth")
    assert found(tmp_path) == {"amy amy.pth": "amy.index", "bob bob.pth": f"{ADDED}_bob_v2.index"}


def test_home_goes_before_roots_and_roots_in_their_order(tmp_path: Path) -> None:
    home, one, two = (
        touch(tmp_path / n, *f) for n, f in [("h", ["a.pth"]), ("1", ["a.pth", "b.pth"]), ("2", ["b.pth"])]
    )
    touch(two, "c.pth")
    names = {name: find(home, name, [two, one, two]).place for name in "abc"}
    assert names == {"a": home / "a.pth", "b": two / "b.pth", "c": two / "c.pth"}
    assert find(home, "b", [one, two]).place == one / "b.pth"
    assert [e.place for e in scan(home, [home, home / "."])] == [home / "a.pth"]  # the home itself is no root


def test_listing_names_the_place_that_is_not_used(tmp_path: Path) -> None:
    home, root = touch(tmp_path / "home", "amy.pth"), touch(tmp_path / "root", "amy/model.pth")
    (listing,) = ModelStore(models=tmp_path, voices=home, cache=tmp_path / "c", roots=[root]).listing()
    assert (listing.path, listing.root) == (home / "amy.pth", None)
    assert f"{root / 'amy'} has the same name and is not used" in listing.warnings


def test_root_that_is_not_there_is_named_and_stops_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "amy.pth")
    store = ModelStore(models=tmp_path, voices=tmp_path, cache=tmp_path / "c", roots=[tmp_path / "usb"])
    assert store.voice_names() == ["amy"]
    assert store.root_faults() == [
        f"the voice root {tmp_path / 'usb'} cannot be read (No such file or directory); bring it back, or take it out "
        "of library.roots"
    ]


def test_roots_come_from_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    touch(tmp_path / REPLAY[1], "amy/model.pth")
    (tmp_path / "rvc-batch.toml").write_text('[library]\nroots = ["~/Applio", "shelf"]\n')
    home = Home(tmp_path)
    assert load_settings(home, {}).library.folders(home) == (
        tmp_path / "Applio",
        tmp_path / "shelf",
        tmp_path / REPLAY[1],
    )
    assert LibrarySettings(replay=False).folders(home) == ()


# which index, and what is said of it


def warnings_of(voices: Path, name: str = "amy") -> str:
    store = ModelStore(models=voices, voices=voices, cache=voices.parent / "cache")
    (listing,) = [x for x in store.listing() if x.name == name]
    return "; ".join(listing.warnings)


def test_missing_trained_and_unclear_indexes_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "amy/amy.pth")
    assert warnings_of(tmp_path) == "no index: retrieval has no effect"
    touch(tmp_path, f"amy/trained_{ADDED[6:]}_amy_v2.index")
    assert f"trained_{ADDED[6:]}_amy_v2.index is a 'trained' index" in warnings_of(tmp_path)
    touch(tmp_path, "amy/x.index", "amy/y.index")
    assert "no index is used: none of x.index, y.index names the voice" in warnings_of(tmp_path)


def test_trained_index_of_another_voice_is_not_held_against_this_one(tmp_path: Path) -> None:
    touch(tmp_path, "amy.pth", "bob.pth", f"trained_{ADDED[6:]}_bob_v2.index")
    assert warnings_of(tmp_path) == "no index: retrieval has no effect"
    assert "'trained' index" in warnings_of(tmp_path, "bob")


def test_indexes_that_match_equally_are_named_unless_they_are_one(tmp_path: Path) -> None:
    touch(tmp_path, "amy.pth")
    first = write_index(tmp_path / "added_IVF1_Flat_nprobe_1_amy_v2.index", count=20)
    second = write_index(tmp_path / "added_IVF2_Flat_nprobe_1_amy_v2.index", count=20)
    os.utime(first, (1, 1))
    assert warnings_of(tmp_path) == ""  # a copy
    write_index(second, count=21)
    assert f"{first} matches as well as {second}; the newest is used" in warnings_of(tmp_path)
    write_index(second, count=3).replace(first)
    assert "holds 3 vectors, fewer than the 8 that retrieval mixes" in warnings_of(tmp_path)


# zip files


def zipped(path: Path, *members: str | zipfile.ZipInfo, comment: bytes = b"") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in members:
            file.writestr(member, f"content of {getattr(member, 'filename', member)}")
        file.comment = comment
    return path


def test_zip_is_unpacked_under_bare_names_once_per_content(tmp_path: Path) -> None:
    path = zipped(tmp_path / "amy.zip", "x/amy.pth", "x/y/added.index", "readme.txt", "__MACOSX/x/._amy.pth")
    folder = archive.unpack(path, tmp_path / "cache")
    assert {f.name: f.read_text() for f in folder.iterdir()} == {
        "amy.pth": "content of x/amy.pth",
        "added.index": "content of x/y/added.index",
    }
    (folder / "amy.pth").write_text("kept")
    assert archive.unpack(path, tmp_path / "cache") == archive.unpacked(path, tmp_path / "cache") == folder
    assert (folder / "amy.pth").read_text() == "kept"
    zipped(path, "amy.pth", comment=b"another")
    assert archive.unpacked(path, tmp_path / "cache") is None
    (folder.parent / ".unpack-now").mkdir()
    (folder.parent / ".unpack-old").mkdir()
    os.utime(folder.parent / ".unpack-old", (1, 1))
    again = archive.unpack(path, tmp_path / "cache")
    assert sorted(f.name for f in folder.parent.iterdir()) == sorted([".unpack-now", again.name])


def member(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


@pytest.mark.parametrize(
    ("members", "error", "said"),
    [
        (["../../amy.pth"], ModelUnsafe, "names a path outside of its folder, ../../amy.pth"),
        (["/etc/amy.pth"], ModelUnsafe, "outside of its folder, /etc/amy.pth"),
        (["a.pth", "x\\..\\..\\b.txt"], ModelUnsafe, "outside of its folder"),
        (["C:\\amy.pth"], ModelUnsafe, "outside of its folder"),
        ([member("amy.pth", stat.S_IFLNK | 0o777)], ModelUnsafe, "amy.pth, which is a link or device"),
        ([member("a.pth", 0o644), member("b", stat.S_IFIFO)], ModelUnsafe, "b, which is a link or device"),
        (["a/amy.pth", "b/AMY.pth"], ModelNotRvc, "holds amy.pth more than once"),
        (["amy.index"], ModelNotRvc, "there is no .pth in it"),
    ],
)
def test_zip_that_reaches_out_is_refused_before_anything_is_written(
    tmp_path: Path, members: list[str | zipfile.ZipInfo], error: type[RvcBatchError], said: str
) -> None:
    path = zipped(tmp_path / "amy.zip", *members)
    with pytest.raises(error) as caught:
        archive.unpack(path, tmp_path / "cache")
    assert said in str(caught.value)
    assert not [f for f in (tmp_path / "cache").rglob("*") if f.is_file() or f.name.startswith(".")]


def test_zip_larger_than_any_voice_is_refused_from_its_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "amy.zip", "amy.pth")
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 10)
    with pytest.raises(ModelNotRvc, match=r"unpacks to 18 bytes, more than any voice \(10\)"):
        archive.unpack(path, tmp_path / "cache")
    monkeypatch.setattr(archive, "MAX_MEMBERS", 0)
    with pytest.raises(ModelNotRvc, match="holds 1 files or more"):
        archive.unpack(path, tmp_path / "cache")


def test_zip_that_unpacks_to_more_than_it_says_is_damaged(tmp_path: Path) -> None:
    path = zipped(tmp_path / "amy.zip", "amy.pth")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24  # the size in the list of members
    data[at : at + 4] = (5).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ModelCorrupt, match=r"amy\.pth is damaged"):
        archive.unpack(path, tmp_path / "cache")


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_damaged_zip_is_no_voice(tmp_path: Path, damage: str) -> None:
    path = zipped(tmp_path / "amy.zip", "amy.pth")
    assert [e.name for e in scan(tmp_path)] == ["amy"]
    path.write_bytes({"cut": path.read_bytes()[:-30], "text": b"text", "empty": b""}[damage])
    assert scan(tmp_path) == []
    with pytest.raises(ModelCorrupt, match="not a whole zip file"):
        archive.unpack(path, tmp_path / "cache")


def test_zip_without_a_voice_is_no_voice(tmp_path: Path) -> None:
    zipped(tmp_path / "amy.zip", "amy.txt", ".hidden.pth")
    assert scan(tmp_path) == []


def test_voice_in_a_zip_is_used_like_any_other(tmp_path: Path, checkpoints: Callable[[str], Path]) -> None:
    voices, generated = tmp_path / "voices", checkpoints("tiny")
    voices.mkdir()
    with zipfile.ZipFile(voices / "amy.zip", "w") as file:
        file.write(generated / "voices" / "v2_40k_f0_feat48.pth", "amy_e20.pth")
        file.write(generated / "index" / "added_IVF30_Flat_nprobe_1_golden_v2.index", "whatever.index")
    store = ModelStore(models=tmp_path, voices=voices, cache=tmp_path / "cache")
    (listing,) = store.listing()
    assert (listing.name, listing.path, listing.is_imported) == ("amy", voices / "amy.zip", False)
    voice = store.voice("amy")
    assert (voice.name, voice.sample_rate, voice.index and voice.index.name) == ("amy", 40_000, "whatever.index")
    (listing,) = store.listing()
    assert (listing.is_imported, listing.error, listing.warnings) == (True, None, ())


# names, renaming, removing


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a\x1b[31m", " a", "a\n", "ä" * 101])
def test_names_that_leave_the_folder_or_drive_a_terminal_are_refused(name: str) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be the name of a voice"):
        checked_name(name)


def test_names_are_kept_composed() -> None:
    assert checked_name("Zoe\u0308 (live)") == "Zoë (live)"


@pytest.fixture
def shelf(tmp_path: Path) -> ModelStore:
    touch(tmp_path / "voices", "amy.pth", "amy.toml", f"{ADDED}_amy_v2.index", "bob.pth", "Cy/Cy.pth", "Cy/Cy.index")
    touch(tmp_path / "root", "dan.pth")
    return ModelStore(models=tmp_path, voices=tmp_path / "voices", cache=tmp_path / "cache", roots=[tmp_path / "root"])


def files(store: ModelStore) -> list[str]:
    return sorted(str(f.relative_to(store.voices)) for f in store.voices.rglob("*") if f.is_file())


def test_renamed_voice_takes_its_index_and_settings_along(shelf: ModelStore) -> None:
    rename(shelf, "amy", "Eve")
    rename(shelf, "Cy", "Di")
    assert files(shelf) == ["Di/Di.index", "Di/Di.pth", "Eve.index", "Eve.pth", "Eve.toml", "bob.pth"]
    for name in ("Di", "Eve"):
        entry = find(shelf.voices, name)
        assert indexes_of(entry, entry.weights()).match is not None


def test_removed_voice_is_in_the_trash_whole(shelf: ModelStore) -> None:
    trash = shelf.voices / ".trash"
    assert remove(shelf, "amy", trash) == trash / "amy"
    assert remove(shelf, "Cy", trash) == trash / "Cy"
    touch(shelf.voices, "amy.pth")
    assert remove(shelf, "amy", trash) == trash / "amy (2)"
    assert files(shelf) == [
        ".trash/Cy/Cy/Cy.index",
        ".trash/Cy/Cy/Cy.pth",
        ".trash/amy (2)/amy.pth",
        f".trash/amy/{ADDED}_amy_v2.index",
        ".trash/amy/amy.pth",
        ".trash/amy/amy.toml",
        "bob.pth",
    ]
    assert [e.name for e in library.scan(shelf.voices)] == ["bob"]


def test_index_that_another_voice_uses_stays(tmp_path: Path) -> None:
    touch(tmp_path, "amy_e20.pth", "amy_e40.pth", f"{ADDED}_amy_v2.index")
    remove(ModelStore(models=tmp_path, voices=tmp_path, cache=tmp_path / "c"), "amy_e20", tmp_path / ".trash")
    assert (tmp_path / f"{ADDED}_amy_v2.index").is_file()


@pytest.mark.parametrize("act", ["rename", "remove"])
def test_voice_of_another_root_is_never_touched(shelf: ModelStore, act: str) -> None:
    with pytest.raises(HomeInvalid, match=r"voice 'dan' lies in .*root, which is not this home's to change"):
        rename(shelf, "dan", "x") if act == "rename" else remove(shelf, "dan", shelf.voices / ".trash")
    assert (shelf.roots[0] / "dan.pth").is_file()


@pytest.mark.parametrize(("new", "error"), [("bob", HomeInvalid), ("BOB", HomeInvalid), ("../x", SettingsInvalid)])
def test_rename_to_a_taken_or_bad_name_changes_nothing(shelf: ModelStore, new: str, error: type[RvcBatchError]) -> None:
    before = files(shelf)
    with pytest.raises(error):
        rename(shelf, "amy", new)
    touch(shelf.voices, "Eve.index")
    with pytest.raises(HomeInvalid, match=r"Eve\.index is in the way"):
        rename(shelf, "amy", "Eve")
    assert files(shelf) == sorted([*before, "Eve.index"])
