"""In which numbers the networks compute: a setting, and no framework.

float32 is what the golden data is held to. Half precision halves the parameters and the traffic, which a GPU turns into
speed; a CPU multiplies float16 and bfloat16 in scalar loops and is many times slower. Quantised weights make the
linear layers small; they are not there for speed. See docs/precision.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from rvc_batch.errors import SettingsInvalid

__all__ = ["DTYPES", "FULL", "QUANTIZE_BITS", "Precision"]

DTYPES = ("float32", "float16", "bfloat16")
QUANTIZE_BITS = (0, 8, 4)


@dataclass(frozen=True)
class Precision:
    """Numbers of the content network and the synthesiser; the pitch network always computes in float32.

    dtype: of parameters and activations, one of `DTYPES`. quantize_bits: of the weights of linear layers, 0 = not
    quantised.
    """

    dtype: str = "float32"
    quantize_bits: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SettingsInvalid(f"precision is {self.dtype!r}, expected one of {', '.join(DTYPES)}")
        if type(self.quantize_bits) is not int or self.quantize_bits not in QUANTIZE_BITS:
            raise SettingsInvalid(
                f"quantize_bits is {self.quantize_bits!r}, expected one of {', '.join(map(str, QUANTIZE_BITS))}"
            )

    def __str__(self) -> str:
        """Return what tells results apart, as in "float16" and "float32, linear weights 8 bit"."""
        return f"{self.dtype}, linear weights {self.quantize_bits} bit" if self.quantize_bits else self.dtype


FULL = Precision()
