from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import pytest
import soundfile
from made_job import write_tone

from speechadapt.report.links import embedded_audio, relative_link


def test_a_link_leads_from_the_page_to_the_file(tmp_path):
    page, audio = tmp_path / "out", tmp_path / "in" / "a #1 ü?.flac"
    link = relative_link(audio, page)
    assert link == "../in/a%20%231%20%C3%BC%3F.flac"


def test_a_name_that_is_no_text_has_a_link_too(tmp_path):
    assert relative_link(Path(os.fsdecode(b"\xff.flac")), Path()) == "%FF.flac"


def test_a_stretch_is_named_in_seconds(tmp_path):
    assert relative_link(tmp_path / "a.flac", tmp_path, 1.5, 2.0) == "a.flac#t=1.500,3.500"
    assert relative_link(tmp_path / "a.flac", tmp_path, 1.5) == "a.flac#t=1.500"


@pytest.mark.parametrize(
    ("offset_s", "duration_s", "samples"), [(0.0, None, 16000), (0.25, 0.5, 8000)]
)
def test_audio_in_the_page_is_what_was_asked_for(tmp_path, offset_s, duration_s, samples):
    write_tone(tmp_path / "a.wav")
    link = embedded_audio(tmp_path / "a.wav", offset_s, duration_s)
    kind, _, text = link.partition(",")
    assert kind == "data:audio/flac;base64"
    waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(text)))
    assert (len(waveform), rate) == (samples, 16000)
    assert abs(waveform).max() == pytest.approx(0.1, abs=1e-3)


def test_what_cannot_be_decoded_is_not_put_into_the_page(tmp_path):
    (tmp_path / "a.wav").write_text("no audio")
    assert embedded_audio(tmp_path / "a.wav") is None
