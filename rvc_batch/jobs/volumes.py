"""What kind of volume a folder is on, and what that kind cannot do: events, locks that hold, certain names.

Only the mount table is asked. Nothing here touches a file.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from rvc_batch.errors import HomeInvalid
from rvc_batch.home import Home

NETWORK_TYPES = frozenset({"nfs", "nfs4", "cifs", "smbfs", "smb3", "afpfs", "webdav", "9p", "macfuse", "osxfuse"})
# Their server or their own rules refuse what Windows refuses.
WINDOWS_TYPES = frozenset({"cifs", "smbfs", "smb3", "vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk"})
WINDOWS_REFUSES = '<>:"\\|?*'


def kind_of(folder: Path) -> str:
    """Return the type of the file system that holds a folder, in lower case; empty if the system does not tell."""
    mounts = {p.mountpoint: p.fstype.lower() for p in psutil.disk_partitions(all=True)}
    return next((mounts[str(place)] for place in (folder, *folder.parents) if str(place) in mounts), "")


def is_network(folder: Path) -> bool:
    """Is the folder on a volume whose events do not reach us, and on which locks are not to be trusted?"""
    kind = kind_of(folder)
    return kind in NETWORK_TYPES or kind.startswith("fuse.")


def refuse_network_state(home: Home) -> None:
    """Make sure that the database is on a volume on which SQLite is safe.

    Raises:
        HomeInvalid: it is on a network volume.
    """
    if is_network(home.state):
        raise HomeInvalid(
            f"{home.state} is on a network volume ({kind_of(home.state)}), where a database gets damaged; put the home "
            "on a disk of this machine and only inbox/ and outbox/ on the share, or set network_state = true in "
            f"{home.config_file.name} if you know that its locks hold"
        )


def refuses_names(folder: Path) -> bool:
    """Is the folder on a volume that refuses the names Windows refuses?"""
    return kind_of(folder) in WINDOWS_TYPES


def acceptable(relative: bytes) -> bytes:
    """Return a path with what Windows refuses replaced by `_`: reserved characters, and dots or spaces at an end."""
    return b"/".join(_acceptable_part(part) for part in relative.split(b"/"))


def _acceptable_part(part: bytes) -> bytes:
    text = part.decode("utf-8", "surrogateescape")
    text = "".join("_" if c in WINDOWS_REFUSES or ord(c) < 32 or "\udc80" <= c <= "\udcff" else c for c in text)
    end = text.rstrip(". ")
    return (end + "_" * (len(text) - len(end))).encode()
