"""What every command gets: the home, and its settings read on first use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rvc_batch.config import Home, Settings


@dataclass
class Context:
    """The shared options of one invocation."""

    home: Home

    @cached_property
    def settings(self) -> Settings:
        """The configuration file and environment, validated on first use.

        Raises:
            SettingsInvalid: see `load_settings`.
        """
        from rvc_batch.config import load_settings

        return load_settings(self.home)
