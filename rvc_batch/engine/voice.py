"""Voice: what is known of a voice without loading its network. Metadata and paths only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rvc_batch.engine.checkpoints import NetworkKind, read_header
from rvc_batch.engine.network_config import SynthesizerConfig


@dataclass(frozen=True)
class Voice:
    """A voice whose network is in the model cache.

    checkpoint: canonical safetensors · index: faiss file or None · sha256: of the source `.pth`.
    """

    name: str
    checkpoint: Path
    config: SynthesizerConfig
    index: Path | None
    sha256: str
    embedder: str | None = None
    vocoder: str = "HiFi-GAN"

    @property
    def sample_rate(self) -> int:
        """Output rate in Hz."""
        return self.config.sample_rate

    @classmethod
    def open(cls, name: str, checkpoint: Path, index: Path | None) -> Voice:
        """Read a voice's metadata from its canonical checkpoint.

        Raises:
            ModelMissing, ModelCorrupt, ModelNotRvc: see `read_header`.
        """
        header = read_header(checkpoint, NetworkKind.SYNTHESIZER)
        assert isinstance(header.config, SynthesizerConfig)
        return cls(
            name=name,
            checkpoint=checkpoint,
            config=header.config,
            index=index,
            sha256=header.source_sha256,
            embedder=header.extra.get("embedder_model"),
            vocoder=header.extra.get("vocoder", "HiFi-GAN"),
        )
