from __future__ import annotations

from typing import get_args

from speechadapt.jobs import restore_options
from speechadapt.restoration.request import SIGNALS, Length, RestoreConfig, SignalName


def test_a_length_is_rounded_once_at_every_rate() -> None:
    length = Length(7777, 22050, 48000)
    assert length.at(22050) == 7777
    assert length.restored == length.at(48000) == round(7777 * 48000 / 22050)


def test_the_level_is_kept_unless_asked_otherwise() -> None:
    assert RestoreConfig().level == "keep"


def test_a_job_knows_every_kind_of_signal() -> None:
    assert restore_options.SIGNALS == SIGNALS == get_args(SignalName)
