"""The quality gate of a restoration: conditions under which a recording is left as it was.

speaker<0.75    cosine of the speaker before and after
cer>0.10        character error rate of what a recogniser hears after, against before
wer>0.20        the same of words
dnsmos<-0.1     change of DNSMOS OVRL; dnsmos_sig, dnsmos_bak and dnsmos_p808 likewise
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from speechadapt.core.errors import ConfigError, near_misses

SCORES = ("speaker", "cer", "wer", "dnsmos", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808")
# What has to be measured for a score of that name.
MEASURES = {"speaker": "speaker", "cer": "words", "wer": "words", "dnsmos": "dnsmos"}
_CONDITION = re.compile(r"\s*(\w+)\s*([<>])\s*(\S+)\s*")


@dataclass(frozen=True)
class Condition:
    """One condition.

    Args:
        score: Of `SCORES`.
        below: Whether it holds below the limit; else above it.
        limit: The limit, which itself passes.
    """

    score: str
    below: bool
    limit: float

    @property
    def measure(self) -> str:
        """What has to be measured for it: `speaker`, `words` or `dnsmos`."""
        return MEASURES[self.score.partition("_")[0]]

    def reason(self, value: float | None) -> str | None:
        """Say in which way a value meets the condition; None where it does not, or is missing.

        Args:
            value: The score; None where there is none.
        """
        if value is None or not (value < self.limit if self.below else value > self.limit):
            return None
        sign = "<" if self.below else ">"
        return f"{self.score} {value:.3f} {sign} {self.limit:g}"


def parse_condition(text: str) -> Condition:
    """Read `speaker<0.75`.

    Args:
        text: A score, `<` or `>`, and a number.

    Raises:
        ConfigError: It is something else, or there is no such score.
    """
    found = _CONDITION.fullmatch(text)
    limit = math.nan if found is None else _number(found[3])
    if found is None or math.isnan(limit):
        raise ConfigError(
            f"--keep-original-if takes a score, < or >, and a number, as 'speaker<0.75', got "
            f"{text!r}."
        )
    if found[1] not in SCORES:
        raise ConfigError(
            f"--keep-original-if knows no score {found[1]!r}.{near_misses(found[1], SCORES)}"
        )
    return Condition(found[1], found[2] == "<", limit)


def reasons(
    conditions: Sequence[Condition], values: Mapping[str, float | None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hold scores against conditions.

    Args:
        conditions: The gate.
        values: Scores by name; None or absent where there is none.

    Returns:
        The conditions that are met, with the scores that meet them; and the scores that are missing
        though a condition asks for them, which meet none.
    """
    met = [condition.reason(values.get(condition.score)) for condition in conditions]
    missing = [one.score for one in conditions if values.get(one.score) is None]
    return tuple(reason for reason in met if reason), tuple(dict.fromkeys(missing))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
