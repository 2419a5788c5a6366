"""Is a voice still needed? Before it is renamed or removed the queue is asked, afterwards recipes and settings."""

from __future__ import annotations

from contextlib import closing

from rvc_batch.config import Settings
from rvc_batch.errors import JobStateConflict, RecipeInvalid
from rvc_batch.home import Home
from rvc_batch.jobs.models import ACTIVE
from rvc_batch.jobs.presets import Presets, folded
from rvc_batch.jobs.reading import QueueReader

SHOWN = 8


def refuse_if_needed(home: Home, voice: str) -> None:
    """Make sure that no job that has not ended needs a voice.

    Raises:
        JobStateConflict: some do; names them. DatabaseUnusable: the database cannot be read.
    """
    if not home.database.is_file():
        return
    with closing(QueueReader.open_readonly(home.database)) as reader:
        jobs = reader.list(state=tuple(ACTIVE), voice=voice)
    if jobs:
        numbers = ", ".join(str(job.id) for job in jobs[::-1][:SHOWN]) + (", …" if len(jobs) > SHOWN else "")
        raise JobStateConflict(
            f"voice {voice!r} is needed by {len(jobs)} job(s) that have not ended ({numbers}); wait for them, or "
            "`rvc-batch cancel` them"
        )


def mentions(presets: Presets, settings: Settings, voice: str) -> list[str]:
    """Return where a voice is named: recipes that can be read, and keys of the configuration."""
    found = list[str]()
    for name in presets.recipe_names():
        try:
            recipe = presets.recipe(name)
        except RecipeInvalid:
            continue
        if folded(voice) in map(folded, recipe.voices):
            found.append(recipe.name)
    keys = {"default_voice": settings.default_voice, "worker.warm_voice": settings.worker.warm_voice}
    return found + [key for key, named in keys.items() if folded(named) == folded(voice)]
