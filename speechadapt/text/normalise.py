"""Text normalisers for scoring, by name; every one says its version.

    verbatim   what was said, letter by letter: NFKC, lower case, punctuation out, numbers untouched
    whisper    Whisper's rules: English as in transformers, elsewhere with vowel signs kept
    basic      transformers' `BasicTextNormalizer` as it stands (it breaks Indic words apart)

A normaliser is applied to reference and hypothesis alike. `whisper` folds numbers ("nine eight
five" becomes "985", one word), so digit strings are better scored `verbatim`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from speechadapt.core.errors import CatalogError, near_misses
from speechadapt.text.normalise_spelling import (
    own_spellings,
    own_spellings_label,
    read_spellings,
)

Headline = Literal["wer", "cer"]

NORMALISERS = ("verbatim", "whisper", "basic")

_VERSION = "1"

# Before NFKC, which would turn U+00B4 into a space and a combining accent.
_APOSTROPHES = {ord(character): "'" for character in "\u2019\u2018\u201b\u02bc\u2032\u00b4`\uff07"}
# Format characters, variation selectors and the grapheme joiner carry no sound.
_SILENT = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef\u034f]")

_ARABIC_MARKS = (
    "\u0610-\u061a\u0640\u064b-\u0652\u0656-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
)
_HEBREW_MARKS = "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"


@dataclass(frozen=True)
class LanguagePolicy:
    """What scoring has to know about one language.

    Args:
        headline: The rate to put first; `cer` where writing has no spaces between words.
        optional_marks: Characters (as inside a regular expression's brackets) that only help
            reading and that most texts leave out, such as Arabic vowel marks; `verbatim` drops
            them. Vowel signs that belong to the word are never listed here.
        inside_word: Punctuation that stands inside words and is kept between letters.
        lower: Letters whose lower case differs from Unicode's default.
    """

    headline: Headline = "wer"
    optional_marks: str = ""
    inside_word: str = "'"
    lower: tuple[tuple[str, str], ...] = ()


_DEFAULT = LanguagePolicy()
_UNSPACED = LanguagePolicy(headline="cer")
_ARABIC_SCRIPT = LanguagePolicy(optional_marks=_ARABIC_MARKS)
_HEBREW_SCRIPT = LanguagePolicy(optional_marks=_HEBREW_MARKS)
_TURKIC = LanguagePolicy(lower=(("\u0130", "i"), ("I", "\u0131")))

POLICIES = MappingProxyType(
    {
        **dict.fromkeys(("zh", "yue", "cmn", "ja", "th", "lo", "my", "km"), _UNSPACED),
        **dict.fromkeys(("ar", "fa", "ur", "ps", "sd", "ckb"), _ARABIC_SCRIPT),
        **dict.fromkeys(("he", "yi"), _HEBREW_SCRIPT),
        **dict.fromkeys(("tr", "az"), _TURKIC),
        "ca": LanguagePolicy(inside_word="'\u00b7"),
    }
)


def base_code(language: str | None) -> str:
    """Return the first part of a BCP 47 code in lower case (`zh-TW` gives `zh`); "" for None."""
    return re.split("[-_]", language or "")[0].lower()


def policy_of(language: str | None) -> LanguagePolicy:
    """Return the policy of a BCP 47 code; only its first part counts (`zh-TW` is `zh`)."""
    return POLICIES.get(base_code(language), _DEFAULT)


@dataclass(frozen=True)
class Normaliser:
    """A named, versioned function from text to the text that is compared.

    Args:
        name: One of `NORMALISERS`.
        label: Name and version, to be printed beside every score.
        language: First part of the BCP 47 code; empty where none was given.
        policy: What the language asks for.
        clean: The rule itself.
    """

    name: str
    label: str
    language: str
    policy: LanguagePolicy
    clean: Callable[[str], str] = field(repr=False, compare=False)

    def __call__(self, text: str) -> str:
        """Return `text` normalised, words separated by single spaces, none at the ends."""
        return " ".join(self.clean(text).split())

    @property
    def headline(self) -> Headline:
        """The rate to put first for this language."""
        return self.policy.headline

    def characters(self, normalised: str) -> str:
        """Return what the character error rate compares.

        Spaces count as characters, except in languages written without spaces between words,
        where their places are arbitrary.
        """
        return normalised.replace(" ", "") if self.headline == "cer" else normalised


@cache
def load_normaliser(name: str = "verbatim", language: str | None = None) -> Normaliser:
    """Find a normaliser by name.

    Args:
        name: `verbatim`, `whisper` or `basic`; `whisper:FILE` takes the spelling map from FILE
            (the `normalizer.json` of a Whisper model folder) in place of the bundled one.
        language: BCP 47 code of the texts; `whisper` takes it for English where it is None.

    Returns:
        The normaliser; the same object for the same arguments.

    Raises:
        CatalogError: Nobody has the name.
        ConfigError: The spelling map cannot be used.
    """
    kind, _, argument = name.partition(":")
    code = base_code(language)
    policy = policy_of(language)
    if kind == "verbatim" and not argument:
        label = f"verbatim {_VERSION}" + (f" [{code}]" if policy != _DEFAULT else "")
        clean: Callable[[str], str] = partial(clean_verbatim, policy=policy)
    elif kind == "basic" and not argument:
        label, clean = f"basic ({_transformers_version()})", _basic_clean()
    elif kind == "whisper":
        label, clean = _whisper_rule(code or "en", argument)
    else:
        raise CatalogError(
            f"there is no normaliser {name!r}.{near_misses(name, NORMALISERS)} "
            "A spelling map goes with whisper alone: whisper:FILE."
        )
    return Normaliser(kind, label, code, policy, clean)


def clean_verbatim(text: str, policy: LanguagePolicy = _DEFAULT) -> str:
    """Keep the letters, digits and marks of a text, in lower case.

    NFKC; lower case; typographic apostrophes become `'` and stay between letters; every other
    punctuation mark or symbol becomes a space; combining marks stay where they follow a letter
    (Indic and Thai vowel signs among them). Numbers are neither spelt out nor joined.

    Args:
        text: Any text.
        policy: The language's policy.

    Returns:
        The text with runs of spaces left in place.
    """
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES))
    for upper, lower in policy.lower:
        text = text.replace(upper, lower)
    text = unicodedata.normalize("NFKC", text.lower()).translate(_APOSTROPHES)
    text = _without_silent(text, policy)
    kept: list[str] = []
    for position, character in enumerate(text):
        kind = unicodedata.category(character)[0]
        if kind == "M":
            kept.extend(character if kept and _is_letter(kept[-1]) else "")
        elif kind in "LN" or (character in policy.inside_word and _is_inside(kept, text, position)):
            kept.append(character)
        else:
            kept.append(" ")
    return unicodedata.normalize("NFC", "".join(kept))


def _without_silent(text: str, policy: LanguagePolicy) -> str:
    text = _SILENT.sub("", text)
    if policy.optional_marks:
        text = re.sub(f"[{policy.optional_marks}]", "", text)
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def _is_inside(kept: list[str], text: str, position: int) -> bool:
    """Tell whether the mark at `position` joins two word characters, one of them a letter."""
    before = kept[-1] if kept else " "
    after = text[position + 1] if position + 1 < len(text) else " "
    around = (unicodedata.category(before)[0], unicodedata.category(after)[0])
    return around[0] in "LMN" and around[1] in "LN" and around != ("N", "N")


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _transformers_version() -> str:
    return f"transformers {metadata.version('transformers')}"


def _basic_clean() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer

    clean: Callable[[str], str] = BasicTextNormalizer()
    return clean


def _whisper_rule(code: str, spelling_map: str) -> tuple[str, Callable[[str], str]]:
    """Build Whisper's rule for a language, with the label that says what it is made of."""
    from transformers.models.whisper.english_normalizer import (
        BasicTextNormalizer,
        EnglishTextNormalizer,
    )

    if code != "en":
        rule = BasicTextNormalizer()
        rule.clean = clean_symbols
        return f"whisper {_VERSION} [{code}] ({_transformers_version()}, vowel signs kept)", rule
    spellings, label = own_spellings(), own_spellings_label()
    if spelling_map:
        spellings, label = read_spellings(Path(spelling_map))
    clean: Callable[[str], str] = EnglishTextNormalizer(spellings)
    return f"whisper {_VERSION} [en] ({_transformers_version()}, spellings: {label})", clean


def clean_symbols(text: str) -> str:
    """Replace punctuation and symbols by spaces and keep marks that follow a letter (NFKC).

    Whisper's own rule for languages other than English drops every mark, vowel signs included.
    """
    kept: list[str] = []
    after_letter = False
    for character in unicodedata.normalize("NFKC", text):
        category = unicodedata.category(character)
        if category[0] in "SP" or (category[0] == "M" and not after_letter):
            kept.append(" ")
        else:
            kept.append(character)
        if category != "Cf":
            after_letter = category[0] in "LM" and kept[-1] != " "
    return "".join(kept)
