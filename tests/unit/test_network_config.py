"""The sizes of the networks as they are stored: what may be absent, and what may not."""

from __future__ import annotations

import pytest

from rvc_batch.engine.network_config import HIFIGAN, SynthesizerConfig
from rvc_batch.errors import ModelNotRvc
from tests.engine_fakes import fake_voice

CONFIG = fake_voice().config


def test_a_checkpoint_from_before_a_field_had_a_default_is_still_read() -> None:
    values = CONFIG.to_json()
    assert SynthesizerConfig.from_json(values) == CONFIG
    del values["vocoder"]
    assert SynthesizerConfig.from_json(values) == CONFIG
    assert CONFIG.vocoder == HIFIGAN


@pytest.mark.parametrize("change", [{"n_heads": None}, {"n_tails": 3}], ids=["missing", "unknown"])
def test_a_missing_and_an_unknown_field_are_refused(change: dict[str, int | None]) -> None:
    values = {key: value for key, value in (CONFIG.to_json() | change).items() if value is not None}
    with pytest.raises(ModelNotRvc, match="import it again"):
        SynthesizerConfig.from_json(values)
