"""Every error that rvc-batch raises on purpose: a stable code, a retry class, one clear sentence.

    RvcBatchError
    ├── InputError                 the file that was dropped                     never retried
    │   ├── InputNotAudio          E_INPUT_NOT_AUDIO
    │   ├── InputEmpty             E_INPUT_EMPTY
    │   ├── InputNoAudio           E_INPUT_NO_AUDIO
    │   ├── InputTruncated         E_INPUT_TRUNCATED
    │   ├── InputUnreadable        E_INPUT_UNREADABLE
    │   ├── InputRate              E_INPUT_RATE
    │   ├── InputChannels          E_INPUT_CHANNELS
    │   ├── FormatNeedsFfmpeg      E_FORMAT_NEEDS_FFMPEG
    │   └── TagsMissing            E_TAGS_MISSING
    ├── ConfigError                settings, sidecars, options                   never retried
    │   ├── SettingsInvalid        E_CONFIG
    │   ├── SidecarInvalid         E_CONFIG_SIDECAR
    │   ├── RecipeInvalid          E_CONFIG_RECIPE
    │   ├── HomeInvalid            E_CONFIG_HOME
    │   └── ExtraMissing           E_EXTRA_MISSING
    ├── ModelError                 networks, voices, indexes                     refunded once
    │   ├── ModelMissing           E_MODEL_MISSING
    │   ├── ModelCorrupt           E_MODEL_CORRUPT
    │   ├── ModelUnsafe            E_MODEL_UNSAFE
    │   ├── ModelNotRvc            E_MODEL_NOT_RVC
    │   ├── ModelTraining          E_MODEL_TRAINING
    │   ├── ModelKeys              E_MODEL_KEYS
    │   ├── IndexInvalid           E_INDEX_INVALID
    │   ├── VoiceUnknown           E_VOICE_UNKNOWN
    │   └── VoiceNotChosen         E_VOICE_NOT_CHOSEN
    ├── EnvironmentFault           the machine, not the job                      refunded, queue pauses
    │   ├── DiskFull               E_DISK_FULL
    │   ├── FolderGone             E_FOLDER_GONE
    │   ├── DeviceMissing          E_NO_DEVICE
    │   ├── DatabaseUnusable       E_DATABASE
    │   └── FetchFailed            E_FETCH
    ├── OutputInvalid              E_OUTPUT_INVALID                              retried with delay
    ├── SourceGone                 E_SOURCE_GONE                                 never retried
    ├── SourceChanged              E_SOURCE_CHANGED                              retried with delay
    ├── CannotRenderAgain          E_RENDER_AGAIN                                never retried
    ├── JobNotFound                E_JOB_NOT_FOUND
    ├── JobStateConflict           E_JOB_STATE
    ├── DaemonRunning              E_DAEMON_RUNNING
    ├── ServiceFailed              E_SERVICE
    ├── HookFailed             E_HOOK            a hook did not take what it was told; it is told again later
    ├── LeaseLost                  E_LEASE_LOST      another claim owns the job: drop the work, write nothing
    └── Stopped                    E_STOPPED         cancellation or shutdown noticed between two segments

A message says what happened (with the value), what was expected, and what to do.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class RetryClass(StrEnum):
    """What the queue does with a job after this error (see docs/errors.md)."""

    NEVER = "never"  # the same input would fail the same way
    REFUND = "refund"  # the voice is at fault: the attempt is given back once
    PAUSE = "pause"  # the machine is at fault: the attempt is given back, the queue waits
    LATER = "later"  # unexpected: counted, tried again after a delay
    DROP = "drop"  # nothing is recorded against the job


class RvcBatchError(Exception):
    """Base of all errors raised on purpose."""

    code: ClassVar[str] = "E_INTERNAL"
    retry: ClassVar[RetryClass] = RetryClass.LATER

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else (self.__doc__ or self.code)


class InputError(RvcBatchError):
    """The dropped file cannot be converted."""

    code = "E_INPUT"
    retry = RetryClass.NEVER


class InputNotAudio(InputError):
    """The file is not audio that can be decoded."""

    code = "E_INPUT_NOT_AUDIO"


class InputEmpty(InputError):
    """The file has zero bytes."""

    code = "E_INPUT_EMPTY"


class InputNoAudio(InputError):
    """The file has a valid header but no samples."""

    code = "E_INPUT_NO_AUDIO"


class InputTruncated(InputError):
    """The header promises more audio than the file holds."""

    code = "E_INPUT_TRUNCATED"


class InputUnreadable(InputError):
    """The operating system refuses to read the file."""

    code = "E_INPUT_UNREADABLE"


class InputRate(InputError):
    """The sample rate is outside 4 kHz to 768 kHz."""

    code = "E_INPUT_RATE"


class InputChannels(InputError):
    """The file has more channels than were asked to be kept."""

    code = "E_INPUT_CHANNELS"


class FormatNeedsFfmpeg(InputError):
    """The container is known but libsndfile cannot decode it."""

    code = "E_FORMAT_NEEDS_FFMPEG"


class TagsMissing(InputError):
    """The file does not say what it was made from."""

    code = "E_TAGS_MISSING"


class ConfigError(RvcBatchError):
    """Settings cannot be used as they are."""

    code = "E_CONFIG"
    retry = RetryClass.NEVER


class SettingsInvalid(ConfigError):
    """A conversion setting or a configuration key has a bad value."""


class SidecarInvalid(ConfigError):
    """The settings file beside the audio cannot be used."""

    code = "E_CONFIG_SIDECAR"


class RecipeInvalid(ConfigError):
    """A recipe, or the settings file of a voice, cannot be used."""

    code = "E_CONFIG_RECIPE"


class HomeInvalid(ConfigError):
    """The folders of the home cannot be used as they are."""

    code = "E_CONFIG_HOME"


class ExtraMissing(ConfigError):
    """What was asked for needs a package that is not installed."""

    code = "E_EXTRA_MISSING"


class ModelError(RvcBatchError):
    """A network, voice or index cannot be used."""

    code = "E_MODEL"
    retry = RetryClass.REFUND


class ModelMissing(ModelError):
    """A model file is not where it should be."""

    code = "E_MODEL_MISSING"


class ModelCorrupt(ModelError):
    """A model file is damaged."""

    code = "E_MODEL_CORRUPT"


class ModelUnsafe(ModelError):
    """A model file asks for code to be run."""

    code = "E_MODEL_UNSAFE"


class ModelNotRvc(ModelError):
    """A model file is readable but is not what it is used for."""

    code = "E_MODEL_NOT_RVC"


class ModelTraining(ModelError):
    """A raw training checkpoint was given instead of an exported voice."""

    code = "E_MODEL_TRAINING"


class ModelKeys(ModelError):
    """Tensors are missing, unexpected or misshaped."""

    code = "E_MODEL_KEYS"


class IndexInvalid(ModelError):
    """A retrieval index does not fit the voice or is empty."""

    code = "E_INDEX_INVALID"


class VoiceUnknown(ModelError):
    """No voice of that name is in the library."""

    code = "E_VOICE_UNKNOWN"
    retry = RetryClass.NEVER


class VoiceNotChosen(ModelError):
    """The file names no voice and there is no default."""

    code = "E_VOICE_NOT_CHOSEN"
    retry = RetryClass.NEVER


class EnvironmentFault(RvcBatchError):
    """The machine, not the job, is at fault."""

    code = "E_ENVIRONMENT"
    retry = RetryClass.PAUSE


class DiskFull(EnvironmentFault):
    """A volume has no space left."""

    code = "E_DISK_FULL"


class FolderGone(EnvironmentFault):
    """A folder is missing or cannot be written."""

    code = "E_FOLDER_GONE"


class DeviceMissing(EnvironmentFault):
    """The compute device is not available."""

    code = "E_NO_DEVICE"


class DatabaseUnusable(EnvironmentFault):
    """The job database cannot be used."""

    code = "E_DATABASE"


class FetchFailed(EnvironmentFault):
    """A published file cannot be fetched now."""

    code = "E_FETCH"


class OutputInvalid(RvcBatchError):
    """The rendered audio is not finite, or not as long as it must be."""

    code = "E_OUTPUT_INVALID"


class SourceGone(RvcBatchError):
    """The accepted copy of the source file is gone."""

    code = "E_SOURCE_GONE"
    retry = RetryClass.NEVER


class SourceChanged(RvcBatchError):
    """The source file changed while it was read."""

    code = "E_SOURCE_CHANGED"


class CannotRenderAgain(RvcBatchError):
    """What a result was made with or from is not what is here now."""

    code = "E_RENDER_AGAIN"
    retry = RetryClass.NEVER


class JobNotFound(RvcBatchError):
    """No job has this number."""

    code = "E_JOB_NOT_FOUND"
    retry = RetryClass.NEVER


class JobStateConflict(RvcBatchError):
    """The job is not in a state that allows this."""

    code = "E_JOB_STATE"
    retry = RetryClass.NEVER


class DaemonRunning(RvcBatchError):
    """Another daemon already serves this home."""

    code = "E_DAEMON_RUNNING"
    retry = RetryClass.NEVER


class ServiceFailed(RvcBatchError):
    """launchd or systemd refused, or the service did not become ready."""

    code = "E_SERVICE"
    retry = RetryClass.NEVER


class HookFailed(RvcBatchError):
    """A hook did not take what it was told."""

    code = "E_HOOK"
    retry = RetryClass.DROP


class LeaseLost(RvcBatchError):
    """Another claim owns the job now."""

    code = "E_LEASE_LOST"
    retry = RetryClass.DROP


class Stopped(RvcBatchError):
    """The conversion was asked to stop between two segments."""

    code = "E_STOPPED"
    retry = RetryClass.DROP
