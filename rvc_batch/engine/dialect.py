"""The dialects of RVC as data: one frozen row of rules per program whose output is reproduced.

Adding a dialect is adding a row; no code anywhere asks for a dialect by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rvc_batch.errors import SettingsInvalid


class CutRule(StrEnum):
    """How the quiet spot for a cut is measured, over 160 samples."""

    SIGNED_SUM = "signed_sum"  # |sum of x|: releases up to 2024, Applio
    ABSOLUTE_SUM = "absolute_sum"  # sum of |x|: RVC 2026


class MelPadding(StrEnum):
    """How log-mel frames are padded on the right to a multiple of 32."""

    ZEROS = "zeros"  # zero in the log domain
    REFLECT = "reflect"


class Quantise(StrEnum):
    """What becomes of the final float samples."""

    INT16 = "int16"  # times 32768, truncated toward zero
    FLOAT = "float"  # kept


@dataclass(frozen=True)
class Dialect:
    """The rules in which the upstream programs differ (rates in samples at 16 kHz)."""

    name: str
    source: str
    cut_rule: CutRule
    mel_padding: MelPadding
    interpolates_f0: bool  # fills unvoiced frames before transposing
    v1_layer: int  # HuBERT layer whose projection a v1 voice gets
    quantise: Quantise
    # the float32 row of upstream's table: what every CPU and Mac user heard
    pad: int = 1 * 16_000
    query: int = 6 * 16_000
    centre: int = 38 * 16_000
    longest: int = 41 * 16_000


RVC_2023 = Dialect(
    name="rvc-2023",
    source="RVC-Project/Retrieval-based-Voice-Conversion-WebUI@9f2f055 (2.2.231006)",
    cut_rule=CutRule.SIGNED_SUM,
    mel_padding=MelPadding.ZEROS,
    interpolates_f0=False,
    v1_layer=9,
    quantise=Quantise.INT16,
)
RVC_2026 = Dialect(
    name="rvc-2026",
    source="RVC-Project/Retrieval-based-Voice-Conversion-WebUI@4338f12",
    cut_rule=CutRule.ABSOLUTE_SUM,
    mel_padding=MelPadding.ZEROS,
    interpolates_f0=True,
    v1_layer=9,
    quantise=Quantise.INT16,
)
APPLIO = Dialect(
    name="applio",
    source="IAHispano/Applio@b9c0ccb1",
    cut_rule=CutRule.SIGNED_SUM,
    mel_padding=MelPadding.REFLECT,
    interpolates_f0=False,
    v1_layer=12,
    quantise=Quantise.FLOAT,
)

DIALECTS = {d.name: d for d in (RVC_2023, RVC_2026, APPLIO)}


def dialect_named(name: str) -> Dialect:
    """Return the dialect of that name.

    Raises:
        SettingsInvalid: unknown name.
    """
    try:
        return DIALECTS[name]
    except KeyError:
        raise SettingsInvalid(f"dialect is {name!r}, expected one of {', '.join(DIALECTS)}") from None
