"""Where everything is: one folder that holds everything of one render box.

It is apart from the settings so that commands which only look, such as `status`, need not load what validates them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rvc_batch.errors import HomeInvalid

CONFIG_NAME = "rvc-batch.toml"


@dataclass(frozen=True)
class Home:
    """One folder that holds everything of one render box."""

    root: Path

    @property
    def inbox(self) -> Path:
        """Where audio is dropped."""
        return self.root / "inbox"

    @property
    def outbox(self) -> Path:
        """Where results appear, whole and never overwritten."""
        return self.root / "outbox"

    @property
    def processed(self) -> Path:
        """Sources of finished jobs."""
        return self.root / "processed"

    @property
    def failed(self) -> Path:
        """Sources of failed jobs, each with an `.error.txt`."""
        return self.root / "failed"

    @property
    def models(self) -> Path:
        """`hubert_base.pt` or `contentvec/`, and `rmvpe.pt`."""
        return self.root / "models"

    @property
    def voices(self) -> Path:
        """`.pth` files or folders, indexes beside them."""
        return self.root / "voices"

    @property
    def recipes(self) -> Path:
        """`NAME.toml`: settings and voices for what is dropped into `inbox/NAME/`."""
        return self.root / "recipes"

    @property
    def trash(self) -> Path:
        """Removed voices, one folder each; on the volume of `voices/`, so that removing is a rename."""
        return self.voices / ".trash"

    @property
    def state(self) -> Path:
        """Database, accepted sources, model cache, logs."""
        return self.root / "state"

    @property
    def database(self) -> Path:
        """The job database."""
        return self.state / "jobs.sqlite3"

    @property
    def work(self) -> Path:
        """Accepted sources, one folder per job."""
        return self.state / "work"

    @property
    def cache(self) -> Path:
        """Canonical checkpoints, keyed by the SHA-256 of their source."""
        return self.state / "model-cache"

    @property
    def features(self) -> Path:
        """Content features and f0 of what was rendered, keyed by what they were computed from."""
        return self.state / "features"

    @property
    def backups(self) -> Path:
        """Copies of the job database."""
        return self.state / "backups"

    @property
    def logs(self) -> Path:
        """Rotating logs."""
        return self.state / "logs"

    @property
    def config_file(self) -> Path:
        """The optional configuration file."""
        return self.root / CONFIG_NAME

    def create(self, *, except_: Sequence[Path] = ()) -> None:
        """Create all folders that are not there.

        Args:
            except_: folders that are left as they are (`jobs.folders`: the places of volumes).

        Raises:
            HomeInvalid: a folder cannot be created.
        """
        for folder in (
            self.inbox,
            self.outbox,
            self.processed,
            self.failed,
            self.models,
            self.voices,
            self.recipes,
            self.work,
            self.cache,
            self.logs,
        ):
            if folder in except_:
                continue
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise HomeInvalid(f"cannot create {folder}: {e.strerror}; choose another --home") from e


def locate_home(option: Path | None, environment: Mapping[str, str] = os.environ) -> Home:
    """Choose the home: `--home`, else RVC_BATCH_HOME, else the checkout this runs from, else `~/rvc-batch`."""
    if option is not None:
        return Home(option.expanduser().absolute())
    if environment.get("RVC_BATCH_HOME"):
        return Home(Path(environment["RVC_BATCH_HOME"]).expanduser().absolute())
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "inbox").is_dir():
        return Home(checkout)
    return Home(Path.home() / "rvc-batch")
