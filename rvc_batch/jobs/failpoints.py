"""Named points where a test can make the program die, fail or wait. Off unless RVC_BATCH_FAILPOINTS is set.

The variable holds `name=action` pairs separated by commas; an action is `kill`, `raise:ENOSPC` (any errno name) or
`sleep:SECONDS`. A point acts each time it is passed. In service a point costs one look-up in an empty table.
"""

from __future__ import annotations

import errno
import os
import signal
import time

VARIABLE = "RVC_BATCH_FAILPOINTS"

# Every point there is, in the order one file passes them; the kill test walks this list.
INGEST_HASHED = "ingest.hashed"  # accepted, no row yet
INGEST_SUBMITTED = "ingest.submitted"  # row `ingesting`, file still in the inbox
INGEST_MOVED = "ingest.moved"  # file in work/, row still `ingesting`
INGEST_QUEUED = "ingest.queued"
CLAIM_TAKEN = "claim.taken"  # row `running`, the worker knows nothing of it
RENDER_WRITTEN = "render.written"  # in the worker: temporary file whole, not verified
RENDER_SEALED = "render.sealed"  # in the worker: verified and durable
PUBLISH_INTENDED = "publish.intended"  # hash and size recorded
PUBLISH_LINKED = "publish.linked"  # final name exists, folder not yet durable
PUBLISH_SYNCED = "publish.synced"  # durable, row still `running`
PUBLISH_RECORDED = "publish.recorded"  # row `done`, source still in work/
SOURCE_PLACED = "source.placed"  # source in processed/, and still in work/
POINTS = (
    INGEST_HASHED,
    INGEST_SUBMITTED,
    INGEST_MOVED,
    INGEST_QUEUED,
    CLAIM_TAKEN,
    RENDER_WRITTEN,
    RENDER_SEALED,
    PUBLISH_INTENDED,
    PUBLISH_LINKED,
    PUBLISH_SYNCED,
    PUBLISH_RECORDED,
    SOURCE_PLACED,
)

_actions: dict[str, str] | None = None


def failpoint(name: str) -> None:
    """Do what the environment asks for at this point; usually nothing.

    Raises:
        OSError: the action is `raise:ERRNO`.
    """
    actions = _configured()
    if actions and name in actions:
        _act(actions[name])


def _configured() -> dict[str, str]:
    global _actions
    if _actions is None:
        pairs = (p.partition("=")[::2] for p in os.environ.get(VARIABLE, "").split(",") if p)
        _actions = dict(pairs)
    return _actions


def _act(action: str) -> None:
    verb, _, argument = action.partition(":")
    if verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif verb == "raise":
        number = getattr(errno, argument)
        raise OSError(number, os.strerror(number))
    elif verb == "sleep":
        time.sleep(float(argument))
    else:
        raise ValueError(f"{VARIABLE}: {action!r} is no action; expected kill, raise:ERRNO or sleep:SECONDS")
