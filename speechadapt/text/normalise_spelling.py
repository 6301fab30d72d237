"""British to American spellings, grown from a small table of stems.

Transformers ships the rules of Whisper's English normaliser and not its list of spellings, which
comes with a model (`normalizer.json`). This table is our own: stems by the way they differ
(`colour`, `realise`, `travelled`, `centre`, ...) in `spelling_en.json`, put through their endings
here. Both texts of a pair are mapped alike, so an ending nobody writes costs nothing; what matters
is that two spellings of one word meet. It is not the list published with Whisper, and the
normaliser's label says which of the two was used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from speechadapt.core.errors import ConfigError

_TABLE = Path(__file__).with_name("spelling_en.json")

_OUR_ENDINGS = (
    *("", "s", "ed", "ing", "ings", "er", "ers", "able", "ably", "al", "ally", "ful", "fully"),
    *("less", "ite", "ites", "itism", "ism", "ist", "ists", "y", "ies", "hood", "hoods", "ly"),
    *("some", "ant", "ants", "ize", "izes", "ized", "izing", "ization"),
)
_ISE_ENDINGS = (
    *("ise", "ises", "ised", "ising", "isingly", "iser", "isers", "isation", "isations"),
    *("isable", "isement", "isements"),
)
_YSE_ENDINGS = ("yse", "yses", "ysed", "ysing", "yser", "ysers")


@cache
def own_spellings() -> dict[str, str]:
    """Return the bundled table: British form to American form, lower case."""
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    stems = {name: words for name, words in table.items() if isinstance(words, list)}
    return dict(_grow(stems)) | dict(table["pairs"])


@cache
def own_spellings_label() -> str:
    """Return the name and version of the bundled table."""
    version = json.loads(_TABLE.read_text(encoding="utf-8"))["version"]
    return f"speechadapt {version}, {len(own_spellings())} forms"


def read_spellings(path: Path) -> tuple[dict[str, str], str]:
    """Read a published spelling map, such as the `normalizer.json` of a Whisper model folder.

    Args:
        path: A JSON object of British form to American form.

    Returns:
        The map, and a label that names the file, its size and the start of its hash.

    Raises:
        ConfigError: The file cannot be read or is not an object of texts.
    """
    try:
        data = path.read_bytes()
        spellings = json.loads(data)
    except (OSError, ValueError) as error:
        raise ConfigError(f"spelling map {str(path)!r} cannot be read: {error}.") from error
    if not isinstance(spellings, dict) or not all(
        isinstance(value, str) for value in spellings.values()
    ):
        raise ConfigError(
            f"spelling map {str(path)!r} must be a JSON object of British to American spellings."
        )
    digest = hashlib.sha256(data).hexdigest()[:8]
    return spellings, f"{path.name} {digest}, {len(spellings)} forms"


def _grow(stems: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    for ending in _OUR_ENDINGS:
        yield from _ended(stems["our"], f"our{ending}", f"or{ending}")
        if ending.startswith("iz"):
            yield from _ended(stems["our"], f"our{ending.replace('iz', 'is')}", f"or{ending}")
            yield from _ended(stems["our"], f"or{ending.replace('iz', 'is')}", f"or{ending}")
    for ending in _ISE_ENDINGS:
        yield from _ended(stems["ise"], ending, ending.replace("is", "iz", 1))
    for ending in _YSE_ENDINGS:
        yield from _ended(stems["yse"], ending, ending.replace("ys", "yz", 1))
    for british, american in (("re", "er"), ("res", "ers"), ("red", "ered"), ("ring", "ering")):
        yield from _ended(stems["re"], british, american)
    for ending in ("ed", "ing", "ings", "er", "ers"):
        # Each stem of this group ends in a single l already.
        yield from _ended(stems["ll"], f"l{ending}", ending)
    for ending in ("", "s"):
        yield from _ended(stems["l"], ending, f"l{ending}")
    for digraph in ("ae", "oe"):
        yield from ((word, word.replace(digraph, "e", 1)) for word in stems[digraph])
    for british, american in (("", ""), ("s", "s"), ("d", "ed")):
        yield from _ended(stems["ogue"], f"ogue{british}", f"og{american}")
    yield from _ended(stems["ogue"], "oguing", "oging")
    yield from ((word, word.replace("ence", "ense")) for word in stems["ence"])


def _ended(beginnings: Iterable[str], british: str, american: str) -> Iterator[tuple[str, str]]:
    return ((begin + british, begin + american) for begin in beginnings)
