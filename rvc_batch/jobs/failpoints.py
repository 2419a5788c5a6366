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
INGEST_SETTLED = "ingest.settled"  # complete, not hashed yet
INGEST_HASHED = "ingest.hashed"  # hashed, no row yet
INGEST_SUBMITTED = "ingest.submitted"  # row `ingesting`, file still in the inbox
INGEST_FOLDER = "ingest.folder"  # its work folder is there, and empty
INGEST_TAKEN = "ingest.taken"  # the audio is in work/, its settings file still in the inbox
INGEST_MOVED = "ingest.moved"  # both durable in work/, row still `ingesting`
INGEST_QUEUED = "ingest.queued"
CLAIM_TAKEN = "claim.taken"  # row `running`, the worker knows nothing of it
CLAIM_PREPARED = "claim.prepared"  # source and outbox are there, the worker still knows nothing
CLAIM_ASSIGNED = "claim.assigned"  # the worker knows
RENDER_STARTED = "render.started"  # in the worker: nothing rendered
RENDER_WRITTEN = "render.written"  # in the worker: temporary file whole, not verified
RENDER_VERIFIED = "render.verified"  # in the worker: not durable yet
RENDER_SYNCED = "render.synced"  # in the worker: durable, not hashed
RENDER_SEALED = "render.sealed"  # in the worker: the daemon has not heard of it
PUBLISH_HEARD = "publish.heard"  # the daemon has
PUBLISH_INTENDED = "publish.intended"  # hash and size recorded
PUBLISH_FOLDER = "publish.folder"  # the folder of the final name exists
PUBLISH_LINKED = "publish.linked"  # final name exists, folder not yet durable
PUBLISH_SYNCED = "publish.synced"  # durable, the temporary name is still there
PUBLISH_TIDIED = "publish.tidied"  # it is gone, row still `running`
PUBLISH_RECORDED = "publish.recorded"  # row `done`, source still in work/
SOURCE_PLACED = "source.placed"  # source in processed/ or failed/, and still in work/
SOURCE_EXPLAINED = "source.explained"  # its .error.txt is beside it
SOURCE_COMPLETE = "source.complete"  # what belongs to it has followed
SOURCE_REMOVED = "source.removed"  # the work folder is gone
RECOVERY_FINISHED = "recovery.finished"  # at a start: published results recorded, nothing swept or released
RECOVERY_RELEASED = "recovery.released"  # at a start: rows released, sources not settled
ON_THE_WAY = (
    INGEST_SETTLED,
    INGEST_HASHED,
    INGEST_SUBMITTED,
    INGEST_FOLDER,
    INGEST_TAKEN,
    INGEST_MOVED,
    INGEST_QUEUED,
    CLAIM_TAKEN,
    CLAIM_PREPARED,
    CLAIM_ASSIGNED,
    RENDER_STARTED,
    RENDER_WRITTEN,
    RENDER_VERIFIED,
    RENDER_SYNCED,
    RENDER_SEALED,
    PUBLISH_HEARD,
    PUBLISH_INTENDED,
    PUBLISH_FOLDER,
    PUBLISH_LINKED,
    PUBLISH_SYNCED,
    PUBLISH_TIDIED,
    PUBLISH_RECORDED,
    SOURCE_PLACED,
    SOURCE_EXPLAINED,
    SOURCE_COMPLETE,
    SOURCE_REMOVED,
)
AT_A_START = (RECOVERY_FINISHED, RECOVERY_RELEASED)  # after a start that found something to recover
POINTS = ON_THE_WAY + AT_A_START

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
