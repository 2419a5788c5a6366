"""The memory model of a limit is an upper bound of what the device really needs, and not an idle one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rvc_batch.engine.backend import Backend
from rvc_batch.engine.dialect import RVC_2023
from rvc_batch.engine.memory import Needs
from rvc_batch.engine.requests import silent_inputs
from rvc_batch.engine.voice import Voice

FRAMES = {"content": 1_024, "pitch": 1_024, "prior": 1_024, "decode": 512}


@pytest.mark.parametrize("stage", FRAMES)
def test_a_stage_stays_below_what_the_model_says(
    stage: str, open_networks: Callable[[str, str], Backend], open_voice: Callable[[str, str], Voice]
) -> None:
    backend, voice = open_networks("mlx", "tiny"), open_voice("tiny", "v2_40k_f0_feat48")
    backend.load_voice(voice)
    configs = backend.content_config, backend.pitch_config, voice.config
    needs = Needs.of(backend.appetite, *configs, loaded=0, rules=RVC_2023)
    frames = FRAMES[stage]
    backend.release()
    backend.peak_memory()
    if stage == "content":
        backend.content(np.zeros(frames * 160, np.float32), layer=12, project=False)
        modelled = needs.content(frames)
    elif stage == "pitch":
        backend.pitch_planes(np.zeros((frames, 128), np.float32))
        modelled = needs.pitch_tile(frames - needs.pitch_halo)
    elif stage == "prior":
        backend.encode_prior(silent_inputs(voice.config, frames))
        modelled = needs.prior(frames)
    else:
        x = silent_inputs(voice.config, frames)
        backend.decode(np.zeros((frames, voice.config.inter_channels), np.float32), x)
        modelled = needs.tile(frames - needs.tile_halo)
    assert modelled / 20 < backend.peak_memory() <= modelled
