"""The tree of errors: one base, reasons that survive pickling between processes, near misses."""

from __future__ import annotations

import copy

import pytest

from speechadapt.core import errors


def test_every_error_is_caught_by_the_base() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    raised = [kind for kind in kinds if issubclass(kind, Exception)]
    assert len(raised) >= 11
    assert all(issubclass(kind, errors.SpeechadaptError) for kind in raised)
    assert issubclass(errors.FingerprintError, errors.JobError)
    assert issubclass(errors.MissingExtra, ImportError)


@pytest.mark.parametrize(
    "error",
    [errors.AudioError("EMPTY", "the file is empty."), errors.MissingExtra("av", "m4a files")],
)
def test_an_error_with_fields_survives_a_copy(error: errors.SpeechadaptError) -> None:
    again = copy.copy(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_missing_extra_says_what_to_install() -> None:
    message = str(errors.MissingExtra("av", "reading m4a"))
    assert message == "reading m4a needs the extra 'av': pip install 'speechadapt[av]'."


def test_near_misses_come_first_and_else_everything_on_offer() -> None:
    assert errors.near_misses("whisperr", ["whisper", "ast"]) == " Did you mean whisper?"
    assert errors.near_misses("zzz", ["whisper", "ast"]) == " On offer: ast, whisper."
    assert errors.near_misses("zzz", []) == " On offer: nothing."
