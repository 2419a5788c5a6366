"""The numpy seam between the pipeline and the networks.

A backend turns numpy arrays into numpy arrays; which framework does it is nobody else's business. There is no
randomness, no audio file and no queue behind this line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from rvc_batch.engine.blas import prepare_process
from rvc_batch.engine.dialect import MelPadding
from rvc_batch.engine.memory import Appetite
from rvc_batch.engine.network_config import FcpeConfig, HubertConfig, RmvpeConfig
from rvc_batch.engine.precision import FULL, Precision
from rvc_batch.engine.types import F32, DeviceMemory, SynthesisInputs
from rvc_batch.engine.voice import Voice
from rvc_batch.errors import SettingsInvalid

BACKENDS = ("mlx", "torch")


class Backend(Protocol):
    """The networks of one framework, loaded and warm."""

    name: str
    device: str
    appetite: Appetite
    networks_bytes: int  # of the content and pitch networks
    precision: Precision
    networks_sha256: str  # of the sources of the content and pitch networks, to tell results apart
    content_config: HubertConfig
    pitch_config: RmvpeConfig

    def load_voice(self, voice: Voice) -> None:
        """Make a voice current. Strict; at most `resident.RESIDENT_VOICES` stay loaded.

        Raises:
            ModelKeys: tensors missing, unexpected or misshaped.
        """

    def content(self, wave: F32, *, layer: int, project: bool) -> F32:
        """Return content features [T50, D] of `wave` [N] at 16 kHz after transformer layer `layer` (1–12)."""

    def pitch_salience(self, wave: F32, *, padding: MelPadding) -> F32:
        """Return salience [1 + N // 160, 360] in 0–1 of `wave` [N] at 16 kHz."""

    def pitch_planes(self, mel: F32) -> F32:
        """Return what the recurrent layer hears, [T, 3·128], of log-mel [T, 128]; T a multiple of 32.

        Convolutions only: exact inside a window by as many frames as `tiling.pitch_halo` says.
        """

    def pitch_head(self, planes: F32, state: F32) -> tuple[F32, F32]:
        """Return salience [T, 360] and forward states [T, H] for `planes` [T, 3·128].

        The forward direction starts from `state` [H]; the backward one from zero after the last frame.
        """

    def load_pitch(self, method: str, checkpoint: Path) -> str:
        """Load the network of another pitch method, unless it is loaded; return the hash of its source.

        Raises:
            ModelKeys: tensors missing, unexpected or misshaped.
        """

    def fcpe_config(self) -> FcpeConfig:
        """Return the sizes of FCPE, which must be loaded."""

    def fcpe_log_mel(self, wave: F32) -> F32:
        """Return what FCPE hears of `wave` [(T - 1) · 160 + 1024], natural-log mel magnitudes [T, M]."""

    def fcpe_stem(self, mel: F32) -> F32:
        """Return what the group norm of FCPE takes its statistics of, [T, C], for log-mel [T, M].

        Exact but for the first and the last frame, which see zeros instead of a neighbour.
        """

    def fcpe_salience(self, stem: F32, mean: F32, variance: F32) -> F32:
        """Return salience [T, bins] in 0–1 for `stem` [T, C] and the statistics of its groups, [4] each.

        Convolutions only: exact inside a window by as many frames as `pitch_fcpe.reach` says.
        """

    def crepe_salience(self, method: str, frames: F32) -> F32:
        """Return salience [T, bins] in 0–1 for normalised frames [T, 1024]; method: "crepe" or "crepe-tiny", loaded."""

    def encode_prior(self, x: SynthesisInputs) -> tuple[F32, F32]:
        """Return mean and log standard deviation of the prior, [T, C] each, masked."""

    def reverse_flow(self, latent: F32, x: SynthesisInputs) -> F32:
        """Return z [T, C] for a prior sample `latent` [T, C]."""

    def generate(self, z: F32, x: SynthesisInputs) -> F32:
        """Return audio [T·hop] in ±1 for z [T, C]; the mask is not applied here."""

    def decode(self, latent: F32, x: SynthesisInputs) -> F32:
        """Return audio [T·hop] in ±1: `generate(mask · reverse_flow(latent))` without leaving the device."""

    def excitation(self, x: SynthesisInputs) -> F32:
        """Return the merged harmonic source [T·hop] the generator adds at each stage."""

    def log_mel(self, wave: F32) -> F32:
        """Return natural-log mel magnitudes [1 + N // 160, 128]."""

    def content_stages(self, wave: F32) -> dict[str, F32]:
        """Return every intermediate of the content network by name, for parity reports.

        Keys: conv [T50, C]; layer0 (transformer input) … layer12 [T50, D]; final_proj9, final_proj12.
        """

    def pitch_stages(self, wave: F32, *, padding: MelPadding) -> dict[str, F32]:
        """Return the intermediates of the pitch network: bottom [T/32, 4, C], unet, cnn [T, 128, C], gru [T, 2H]."""

    def peak_memory(self) -> int:
        """Return the peak device memory in bytes since the last call (0 where the framework has no count)."""

    def memory(self) -> DeviceMemory | None:
        """Return what is held on the device now; None where the framework keeps no count."""

    def limit_memory(self, *, cache_bytes: int, voices: int) -> None:
        """Keep at most so many bytes of freed buffers and so many voices from now on."""

    def release(self) -> None:
        """Give cached device memory back; networks stay loaded."""


def open_backend(name: str, *, hubert: Path, rmvpe: Path, precision: Precision = FULL) -> Backend:
    """Load the content and pitch networks of one framework from canonical checkpoints.

    Raises:
        SettingsInvalid: unknown backend, or it does not compute in this precision.
        ModelKeys, ModelCorrupt, ModelMissing: see `checkpoints`.
    """
    if name == "mlx":
        prepare_process()
        from rvc_batch.engine.mlx_nets.backend import MlxBackend

        return MlxBackend(hubert=hubert, rmvpe=rmvpe, precision=precision)
    if name == "torch":
        check_torch_precision(precision)
        from rvc_batch.engine.torch_nets.backend import TorchBackend

        return TorchBackend(hubert=hubert, rmvpe=rmvpe)
    raise SettingsInvalid(f"backend is {name!r}, expected one of {', '.join(BACKENDS)}")


def check_torch_precision(precision: Precision) -> None:
    """Refuse everything but float32 on the torch backend, which is there to be compared with.

    Raises:
        SettingsInvalid: another precision is asked for.
    """
    if precision != FULL:
        raise SettingsInvalid(
            f"the torch backend is the float32 reference and does not compute in {precision}; use backend mlx, or "
            "precision float32 with quantize_bits 0"
        )
