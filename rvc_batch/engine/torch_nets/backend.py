"""TorchBackend: the three networks in torch, on the CPU, behind the numpy seam of `engine.backend`.

The plain reference: parity, the baseline of benchmarks, `--backend torch`. It loads strictly and turns numpy into
tensors and back. What a network computes is in its own file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

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
from rvc_batch.engine.network_config import CrepeConfig, FcpeConfig, HubertConfig, RmvpeConfig, SynthesizerConfig
from rvc_batch.engine.precision import FULL
from rvc_batch.engine.requests import check_content_request, check_synthesis_inputs
from rvc_batch.engine.resident import RESIDENT_VOICES, ResidentVoices
from rvc_batch.engine.torch_nets.crepe import Crepe
from rvc_batch.engine.torch_nets.fcpe import Fcpe
from rvc_batch.engine.torch_nets.hubert import Hubert
from rvc_batch.engine.torch_nets.layers import canonical_shapes, load_canonical
from rvc_batch.engine.torch_nets.mel import FcpeLogMel, LogMel, pad_frames
from rvc_batch.engine.torch_nets.rmvpe import Rmvpe
from rvc_batch.engine.torch_nets.synthesizer import Synthesizer
from rvc_batch.engine.types import F32, I64, SynthesisInputs
from rvc_batch.engine.voice import Voice

__all__ = ["TorchBackend", "matmul_gflops"]

# benchmarks/memory_model.py measures these; the factors are rounded up
APPETITE = Appetite(process=450 << 20, stages=96 << 20, scores=1.2, content=4.0, pitch=25.0, prior=25.0, decode=23.0)

CREPE_AT_ONCE = 16  # frames: the first convolution makes 1 MB of each, and four copies of that are held

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class _PitchNetwork:
    """A network of another pitch method that is loaded."""

    checkpoint: Path
    bytes: int
    header: CheckpointHeader
    network: Fcpe | Crepe


class TorchBackend:
    """The networks in torch, on the CPU."""

    name = "torch"
    appetite = APPETITE
    device = "cpu"
    precision = FULL

    def __init__(self, *, hubert: Path, rmvpe: Path) -> None:
        content_header = read_header(hubert, NetworkKind.HUBERT)
        content = content_header.config
        assert isinstance(content, HubertConfig)
        self.content_config = content
        self._content = _load(lambda: Hubert(content), hubert)
        pitch_header = read_header(rmvpe, NetworkKind.RMVPE)
        self.networks_sha256 = f"{content_header.source_sha256} {pitch_header.source_sha256}"
        self.networks_bytes = hubert.stat().st_size + rmvpe.stat().st_size
        pitch = pitch_header.config
        assert isinstance(pitch, RmvpeConfig)
        self.pitch_config = pitch
        self._pitch = _load(lambda: Rmvpe(pitch), rmvpe)
        self._log_mel = LogMel()
        self._pitch_networks: dict[str, _PitchNetwork] = {}
        self._voices = ResidentVoices(_load_voice, RESIDENT_VOICES)

    def load_voice(self, voice: Voice) -> None:
        """See `Backend.load_voice`."""
        self._voices.make_current(voice.checkpoint)

    @torch.inference_mode()
    def content(self, wave: F32, *, layer: int, project: bool) -> F32:
        """See `Backend.content`."""
        check_content_request(wave, layer, self.content_config)
        return _numpy(self._content(_tensor(wave), layer=layer, project=project)[0])

    @torch.inference_mode()
    def pitch_salience(self, wave: F32, *, padding: MelPadding) -> F32:
        """See `Backend.pitch_salience`."""
        mel = self._log_mel(_tensor(wave))
        padded = pad_frames(mel, self.pitch_config.frame_multiple, padding)
        return _numpy(self._pitch(padded)[: mel.shape[0]])

    @torch.inference_mode()
    def pitch_planes(self, mel: F32) -> F32:
        """See `Backend.pitch_planes`."""
        return _numpy(self._pitch.planes(_tensor(mel))[0])

    @torch.inference_mode()
    def pitch_head(self, planes: F32, state: F32) -> tuple[F32, F32]:
        """See `Backend.pitch_head`."""
        states = self._pitch.recurrent(_tensor(planes)[None], _tensor(state))
        return _numpy(self._pitch.salience(states)[0]), _numpy(states[0, :, : state.size])

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

    @torch.inference_mode()
    def fcpe_log_mel(self, wave: F32) -> F32:
        """See `Backend.fcpe_log_mel`."""
        return _numpy(FcpeLogMel(self.fcpe_config().n_mels)(_tensor(wave)))

    @torch.inference_mode()
    def fcpe_stem(self, mel: F32) -> F32:
        """See `Backend.fcpe_stem`."""
        return _numpy(self._fcpe().stem(_tensor(mel))[0].T)

    @torch.inference_mode()
    def fcpe_salience(self, stem: F32, mean: F32, variance: F32) -> F32:
        """See `Backend.fcpe_salience`."""
        return _numpy(self._fcpe().salience(_channels_second(stem), _tensor(mean), _tensor(variance))[0])

    @torch.inference_mode()
    def crepe_salience(self, method: str, frames: F32) -> F32:
        """See `Backend.crepe_salience`."""
        network = self._pitch_networks[method].network
        assert isinstance(network, Crepe)
        parts = (frames[i : i + CREPE_AT_ONCE] for i in range(0, frames.shape[0], CREPE_AT_ONCE))
        return np.concatenate([_numpy(network(_tensor(part))) for part in parts])

    @torch.inference_mode()
    def encode_prior(self, x: SynthesisInputs) -> tuple[F32, F32]:
        """See `Backend.encode_prior`."""
        mean, logs = self._voice(x).prior(_tensor(x.content), _tensor(x.coarse), x.valid)
        return _numpy(mean[0].T), _numpy(logs[0].T)

    @torch.inference_mode()
    def reverse_flow(self, latent: F32, x: SynthesisInputs) -> F32:
        """See `Backend.reverse_flow`."""
        return _numpy(self._voice(x).reverse_flow(_channels_second(latent), x.speaker, x.valid)[0].T)

    @torch.inference_mode()
    def generate(self, z: F32, x: SynthesisInputs) -> F32:
        """See `Backend.generate`."""
        return _numpy(self._voice(x).generate(_channels_second(z), _tensor(x.source), x.speaker, x.origin))

    @torch.inference_mode()
    def decode(self, latent: F32, x: SynthesisInputs) -> F32:
        """See `Backend.decode`."""
        voice = self._voice(x)
        z = voice.reverse_flow(_channels_second(latent), x.speaker, x.valid)
        return _numpy(voice.generate(z, _tensor(x.source), x.speaker, x.origin))

    @torch.inference_mode()
    def excitation(self, x: SynthesisInputs) -> F32:
        """See `Backend.excitation`."""
        source = self._voice(x).dec.m_source
        if source is None:
            raise ValueError("the voice has no f0 and therefore no excitation")
        return _numpy(source(_tensor(x.source))[0, 0])

    @torch.inference_mode()
    def log_mel(self, wave: F32) -> F32:
        """See `Backend.log_mel`."""
        return _numpy(self._log_mel(_tensor(wave)))

    @torch.inference_mode()
    def content_stages(self, wave: F32) -> dict[str, F32]:
        """See `Backend.content_stages`."""
        check_content_request(wave, 1, self.content_config)
        return {name: _numpy(x[0]) for name, x in self._content.stages(_tensor(wave)).items()}

    @torch.inference_mode()
    def pitch_stages(self, wave: F32, *, padding: MelPadding) -> dict[str, F32]:
        """See `Backend.pitch_stages`."""
        mel = pad_frames(self._log_mel(_tensor(wave)), self.pitch_config.frame_multiple, padding)
        stages = {name: x[0] for name, x in self._pitch.stages(mel).items()}
        return {name: _numpy(x if x.ndim == 2 else x.permute(1, 2, 0)) for name, x in stages.items()}

    def peak_memory(self) -> int:
        """See `Backend.peak_memory`; torch does not count memory on the CPU."""
        return 0

    def memory(self) -> None:
        """See `Backend.memory`."""

    def limit_memory(self, *, cache_bytes: int, voices: int) -> None:
        """See `Backend.limit_memory`; torch keeps no cache on the CPU."""
        self._voices.keep(voices)

    def release(self) -> None:
        """See `Backend.release`; torch keeps no cache on the CPU."""

    def _fcpe(self) -> Fcpe:
        network = self._pitch_networks["fcpe"].network
        assert isinstance(network, Fcpe)
        return network

    def _voice(self, x: SynthesisInputs) -> Synthesizer:
        config, network = self._voices.current
        check_synthesis_inputs(x, config)
        return network


def matmul_gflops(size: int = 512) -> float:
    """Measure one matrix product of `size`³."""
    a = torch.ones(size, size)
    a @ a  # the first product pays for starting threads
    start = time.perf_counter()
    a @ a
    return 2 * size**3 / (time.perf_counter() - start) / 1e9


def _load(build: Callable[[], Network], path: Path) -> Network:
    with torch.device("meta"):  # shapes only: the values come from the file
        network = build()
    tensors = read_tensors(path)
    check_keys(str(path), canonical_shapes(network), {key: tuple(value.shape) for key, value in tensors.items()})
    load_canonical(network, tensors)
    return network.eval()


def _load_pitch(config: NetworkConfig, path: Path) -> Fcpe | Crepe:
    if isinstance(config, CrepeConfig):
        return _load(lambda: Crepe(config), path)
    assert isinstance(config, FcpeConfig)
    return _load(lambda: Fcpe(config), path)


def _load_voice(path: Path) -> tuple[SynthesizerConfig, Synthesizer]:
    config = read_header(path, NetworkKind.SYNTHESIZER).config
    assert isinstance(config, SynthesizerConfig)
    return config, _load(lambda: Synthesizer(config), path)


def _tensor(x: F32 | I64) -> torch.Tensor:
    return torch.from_numpy(np.array(x))  # a copy: torch warns of arrays it could write through to


def _channels_second(x: F32) -> torch.Tensor:
    return _tensor(x).T[None]


def _numpy(x: torch.Tensor) -> F32:
    return np.array(x.numpy(), dtype=np.float32, order="C")
