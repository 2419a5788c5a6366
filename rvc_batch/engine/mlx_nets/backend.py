"""MlxBackend: the three networks in MLX behind the numpy seam of `engine.backend`.

It loads strictly, chooses the memory policy of the device, and turns numpy into device arrays and back. What a network
computes is in its own file. `engine.blas.prepare_process` must have run before this module is imported.
"""

from __future__ import annotations

import logging
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import mlx.core as mx
import numpy as np
from mlx import nn

from rvc_batch.engine.blas import prepare_process
from rvc_batch.engine.checkpoints import (
    PITCH_KINDS,
    CheckpointHeader,
    NetworkConfig,
    NetworkKind,
    check_keys,
    read_header,
    read_tensors,
)
from rvc_batch.engine.dialect import MelPadding
from rvc_batch.engine.memory import Appetite
from rvc_batch.engine.mlx_nets.crepe import Crepe
from rvc_batch.engine.mlx_nets.fcpe import Fcpe
from rvc_batch.engine.mlx_nets.hubert import Hubert
from rvc_batch.engine.mlx_nets.layers import canonical_shapes, load_canonical
from rvc_batch.engine.mlx_nets.mel import FcpeLogMel, LogMel, pad_frames
from rvc_batch.engine.mlx_nets.rmvpe import Rmvpe
from rvc_batch.engine.mlx_nets.synthesizer import Synthesizer
from rvc_batch.engine.network_config import CrepeConfig, FcpeConfig, HubertConfig, RmvpeConfig, SynthesizerConfig
from rvc_batch.engine.precision import FULL, Precision
from rvc_batch.engine.requests import check_content_request, check_synthesis_inputs
from rvc_batch.engine.resident import RESIDENT_VOICES, ResidentVoices
from rvc_batch.engine.types import F32, DeviceMemory, SynthesisInputs
from rvc_batch.engine.voice import Voice

__all__ = ["MlxBackend", "device_name", "load_network", "matmul_gflops"]

logger = logging.getLogger(__name__)

# Freed buffers kept for reuse. The CPU default of 32 MB makes every large array a page fault, two to four times
# slower; 2 GB are no faster than 512 MB and stay resident. The GPU default is all memory there is.
CPU_CACHE_BYTES = 512 << 20
GPU_CACHE_BYTES = 1 << 30

# benchmarks/memory_model.py measures these; the factors are rounded up
APPETITE = Appetite(process=300 << 20, stages=96 << 20, scores=0.0, content=3.0, pitch=12.0, prior=12.0, decode=9.0)

CREPE_AT_ONCE = 16  # frames: the first convolution makes 1 MB of each, and four copies of that are held

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class _PitchNetwork:
    """A network of another pitch method that is loaded."""

    checkpoint: Path
    bytes: int
    header: CheckpointHeader
    network: Fcpe | Crepe


class MlxBackend:
    """The networks in MLX, on the default device."""

    name = "mlx"
    appetite = APPETITE

    def __init__(self, *, hubert: Path, rmvpe: Path, precision: Precision = FULL) -> None:
        self.device, self._cache_bytes = _set_up_device()
        self.precision = precision
        self._dtype: mx.Dtype = getattr(mx, precision.dtype)
        if self.device == "cpu" and precision != FULL:
            logger.warning("precision %s on a CPU is many times slower than float32; it is meant for GPUs", precision)
        content_header = read_header(hubert, NetworkKind.HUBERT)
        content = content_header.config
        assert isinstance(content, HubertConfig)
        self.content_config = content
        self._content = load_network(Hubert(content), hubert, precision)
        pitch_header = read_header(rmvpe, NetworkKind.RMVPE)
        self.networks_sha256 = f"{content_header.source_sha256} {pitch_header.source_sha256}"
        self.networks_bytes = hubert.stat().st_size + rmvpe.stat().st_size
        pitch = pitch_header.config
        assert isinstance(pitch, RmvpeConfig)
        self.pitch_config = pitch
        self._pitch = load_network(Rmvpe(pitch), rmvpe)
        self._log_mel = LogMel()
        self._pitch_networks: dict[str, _PitchNetwork] = {}
        self._voices = ResidentVoices(self._load_voice, RESIDENT_VOICES)

    def load_voice(self, voice: Voice) -> None:
        """See `Backend.load_voice`."""
        self._voices.make_current(voice.checkpoint)

    def content(self, wave: F32, *, layer: int, project: bool) -> F32:
        """See `Backend.content`."""
        check_content_request(wave, layer, self.content_config)
        return _numpy(self._content(self._array(wave), layer=layer, project=project))

    def pitch_salience(self, wave: F32, *, padding: MelPadding) -> F32:
        """See `Backend.pitch_salience`."""
        mel = self._log_mel(mx.array(wave))
        padded = pad_frames(mel, self.pitch_config.frame_multiple, padding)
        return _numpy(self._pitch(padded)[: mel.shape[0]])

    def pitch_planes(self, mel: F32) -> F32:
        """See `Backend.pitch_planes`."""
        return _numpy(self._pitch.planes(mx.array(mel)))

    def pitch_head(self, planes: F32, state: F32) -> tuple[F32, F32]:
        """See `Backend.pitch_head`."""
        states = self._pitch.recurrent(mx.array(planes), mx.array(state))
        return _numpy(self._pitch.salience(states)), _numpy(states[:, : state.size])

    def load_pitch(self, method: str, checkpoint: Path) -> str:
        """See `Backend.load_pitch`."""
        loaded = self._pitch_networks.get(method)
        if loaded is None or loaded.checkpoint != checkpoint:
            header = read_header(checkpoint, PITCH_KINDS[method])
            network = _load_pitch(header.config, checkpoint)
            self.networks_bytes += checkpoint.stat().st_size - (loaded.bytes if loaded else 0)
            loaded = self._pitch_networks[method] = _PitchNetwork(
                checkpoint, checkpoint.stat().st_size, header, network
            )
        return loaded.header.source_sha256

    def fcpe_config(self) -> FcpeConfig:
        """See `Backend.fcpe_config`."""
        config = self._pitch_networks["fcpe"].header.config
        assert isinstance(config, FcpeConfig)
        return config

    def fcpe_log_mel(self, wave: F32) -> F32:
        """See `Backend.fcpe_log_mel`."""
        return _numpy(FcpeLogMel(self.fcpe_config().n_mels)(mx.array(wave)))

    def fcpe_stem(self, mel: F32) -> F32:
        """See `Backend.fcpe_stem`."""
        return _numpy(self._fcpe().stem(mx.array(mel)))

    def fcpe_salience(self, stem: F32, mean: F32, variance: F32) -> F32:
        """See `Backend.fcpe_salience`."""
        return _numpy(self._fcpe().salience(mx.array(stem), mx.array(mean), mx.array(variance)))

    def crepe_salience(self, method: str, frames: F32) -> F32:
        """See `Backend.crepe_salience`."""
        network = self._pitch_networks[method].network
        assert isinstance(network, Crepe)
        parts = (frames[i : i + CREPE_AT_ONCE] for i in range(0, frames.shape[0], CREPE_AT_ONCE))
        return np.concatenate([_numpy(network(mx.array(part))) for part in parts])

    def encode_prior(self, x: SynthesisInputs) -> tuple[F32, F32]:
        """See `Backend.encode_prior`."""
        mean, logs = self._voice(x).prior(self._array(x.content), mx.array(x.coarse), x.valid)
        return _numpy(mean), _numpy(logs)

    def reverse_flow(self, latent: F32, x: SynthesisInputs) -> F32:
        """See `Backend.reverse_flow`."""
        return _numpy(self._voice(x).reverse_flow(self._array(latent), x.speaker, x.valid))

    def generate(self, z: F32, x: SynthesisInputs) -> F32:
        """See `Backend.generate`."""
        return _numpy(self._voice(x).generate(self._array(z), self._array(x.source), x.speaker, x.origin))

    def decode(self, latent: F32, x: SynthesisInputs) -> F32:
        """See `Backend.decode`."""
        voice = self._voice(x)
        z = voice.reverse_flow(self._array(latent), x.speaker, x.valid)
        return _numpy(voice.generate(z, self._array(x.source), x.speaker, x.origin))

    def excitation(self, x: SynthesisInputs) -> F32:
        """See `Backend.excitation`."""
        source = self._voice(x).dec.m_source
        if source is None:
            raise ValueError("the voice has no f0 and therefore no excitation")
        return _numpy(source(self._array(x.source))[:, 0])

    def log_mel(self, wave: F32) -> F32:
        """See `Backend.log_mel`."""
        return _numpy(self._log_mel(mx.array(wave)))

    def content_stages(self, wave: F32) -> dict[str, F32]:
        """See `Backend.content_stages`."""
        check_content_request(wave, 1, self.content_config)
        return {name: _numpy(x) for name, x in self._content.stages(self._array(wave)).items()}

    def pitch_stages(self, wave: F32, *, padding: MelPadding) -> dict[str, F32]:
        """See `Backend.pitch_stages`."""
        mel = pad_frames(self._log_mel(mx.array(wave)), self.pitch_config.frame_multiple, padding)
        return {name: _numpy(x) for name, x in self._pitch.stages(mel).items()}

    def peak_memory(self) -> int:
        """See `Backend.peak_memory`."""
        peak = mx.get_peak_memory()
        mx.reset_peak_memory()
        return peak

    def memory(self) -> DeviceMemory:
        """See `Backend.memory`."""
        return DeviceMemory(mx.get_active_memory(), mx.get_cache_memory(), self._cache_bytes)

    def limit_memory(self, *, cache_bytes: int, voices: int) -> None:
        """See `Backend.limit_memory`."""
        self._cache_bytes = cache_bytes
        mx.set_cache_limit(cache_bytes)
        self._voices.keep(voices)

    def release(self) -> None:
        """See `Backend.release`."""
        mx.clear_cache()

    def _array(self, x: F32) -> mx.array:
        """Bring an input to the device, in the dtype of the networks: nothing is cast inside them."""
        return mx.array(x).astype(self._dtype)

    def _load_voice(self, path: Path) -> tuple[SynthesizerConfig, Synthesizer]:
        config = read_header(path, NetworkKind.SYNTHESIZER).config
        assert isinstance(config, SynthesizerConfig)
        return config, load_network(Synthesizer(config), path, self.precision)

    def _fcpe(self) -> Fcpe:
        network = self._pitch_networks["fcpe"].network
        assert isinstance(network, Fcpe)
        return network

    def _voice(self, x: SynthesisInputs) -> Synthesizer:
        config, network = self._voices.current
        check_synthesis_inputs(x, config)
        return network


def matmul_gflops(size: int = 512) -> float:
    """Measure a matrix product of `size`³, the median of five: an optimised BLAS (hundreds) or the reference (six)?"""
    a = mx.random.normal((size, size), key=mx.random.key(0))
    mx.eval(a, a @ a)  # the first product pays for starting threads
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        mx.eval(a @ a)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds) / 1e9


def device_name() -> str:
    """Return what MLX computes on: "cpu", or the name of the GPU."""
    is_cpu = mx.default_device().type == mx.DeviceType.cpu
    return "cpu" if is_cpu else str(mx.device_info()["device_name"])


def _set_up_device() -> tuple[str, int]:
    """Return the name of the device and the bytes of freed buffers that are kept on it."""
    name = device_name()
    cache = CPU_CACHE_BYTES if name == "cpu" else GPU_CACHE_BYTES
    mx.set_cache_limit(cache)
    library = prepare_process()
    where = f"{name}, BLAS {library.source} {library.path or ''}".rstrip() if name == "cpu" else name
    logger.info("mlx on %s: %.0f GFLOP/s in a 512 by 512 matrix product", where, matmul_gflops())
    return name, cache


def _load_pitch(config: NetworkConfig, path: Path) -> Fcpe | Crepe:
    if isinstance(config, CrepeConfig):
        return load_network(Crepe(config), path)
    assert isinstance(config, FcpeConfig)
    return load_network(Fcpe(config), path)


def load_network(network: Network, path: Path, precision: Precision = FULL) -> Network:
    """Fill a network from a canonical checkpoint.

    Raises:
        ModelKeys: tensors missing, unexpected or misshaped.
    """
    tensors = read_tensors(path)
    check_keys(str(path), canonical_shapes(network), {key: tuple(value.shape) for key, value in tensors.items()})
    load_canonical(network, tensors, precision)
    return network


def _numpy(x: mx.array) -> F32:
    return np.array(x.astype(mx.float32), order="C")  # numpy knows no bfloat16
