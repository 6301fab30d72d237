"""From file to file: what a recording is, exact lengths, levels, recordings kept as they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.restore_file import FileRestorer, survey
from speechadapt.jobs.restore_options import RestoreOptions
from speechadapt.restoration.request import Length, RestoreConfig


class Same:
    """Gives back what it hears, one sample short."""

    input_rate = 16000

    def fingerprint(self) -> str:
        return "same"

    def channel(
        self, blocks: Iterable[np.ndarray], length: Length, config: RestoreConfig
    ) -> Iterator[np.ndarray]:
        whole = np.concatenate(list(blocks))
        yield whole[:-1]


def noise(count: int, channels: int = 1) -> np.ndarray:
    random = np.random.default_rng(0)
    return (0.1 * random.standard_normal((count, channels))).astype(np.float32)


def save(path: Path, samples: np.ndarray, rate: int = 16000) -> PlanItem:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return PlanItem(path.name, path.name, str(path), path.stem)


def files(tmp_path: Path, **options: object) -> FileRestorer:
    return FileRestorer(Same(), RestoreOptions(**options), tmp_path / "made")  # type: ignore[arg-type]


def test_a_survey_says_what_is_there(tmp_path: Path):
    samples = noise(22051, 2)
    samples[:, 1] = 0.25
    samples[0, 0] = 1.0
    found = survey(save(tmp_path / "a.wav", samples, 22050))
    assert (found.sample_rate, found.samples, found.flat) == (22050, 22051, (False, True))
    assert found.audio_s == pytest.approx(22051 / 22050)
    power = float(np.mean(np.square(samples)))
    assert found.level_db == pytest.approx(10 * np.log10(power), abs=0.01)
    assert found.clipped_rate == 1 / (2 * 22051)
    assert found.problem is None


def test_what_cannot_be_read_is_a_problem_and_no_exception(tmp_path: Path):
    spoiled = noise(4000)
    spoiled[3000] = np.inf
    assert survey(save(tmp_path / "a.wav", spoiled)).problem.reason == "NONFINITE"
    missing = PlanItem("b", "b", str(tmp_path / "b.wav"), "b")
    assert survey(missing).problem.reason == "UNREADABLE"
    good = save(tmp_path / "c.wav", noise(16000))
    data = (tmp_path / "c.wav").read_bytes()
    (tmp_path / "c.wav").write_bytes(data[: len(data) // 2])
    partial = survey(good)
    assert partial.problem.reason == "PARTIAL"
    assert 7000 < partial.samples < 9000


def test_a_part_of_a_recording_is_all_that_is_restored(tmp_path: Path):
    samples = noise(16000)
    save(tmp_path / "a.wav", samples)
    item = PlanItem("a", "a", str(tmp_path / "a.wav"), "a", offset=0.25, duration=0.5)
    made = files(tmp_path, format="wav").restore(survey(item))
    found, _ = soundfile.read(made.path, dtype="float32")
    assert len(found) == made.samples == 8000
    np.testing.assert_allclose(found[:-1], samples[4000:11999, 0], atol=1e-4)
    assert found[-1] == 0.0


def test_channels_stay_apart_and_a_flat_one_is_silence(tmp_path: Path):
    samples = noise(8000, 3)
    samples[:, 1] = 0.5
    made = files(tmp_path).restore(survey(save(tmp_path / "a.wav", samples)))
    found, _ = soundfile.read(made.path, dtype="float32")
    np.testing.assert_allclose(found[:-1, 0], samples[:-1, 0], atol=1e-4)
    np.testing.assert_allclose(found[:-1, 2], samples[:-1, 2], atol=1e-4)
    assert not found[:, 1].any()
    assert list((tmp_path / "made").iterdir()) == [made.path]


def test_the_bandwidth_before_and_after_is_the_widest_channels(tmp_path: Path):
    samples = noise(24000, 2)
    low = np.fft.rfft(samples[:, 0])
    low[np.fft.rfftfreq(24000, 1 / 48000) > 3000] = 0.0
    samples[:, 0] = np.fft.irfft(low)
    samples[:, 1] = 0.0
    known = survey(save(tmp_path / "a.wav", samples, 48000))
    assert known.bandwidth_hz == pytest.approx(3000, abs=500)
    made = files(tmp_path, sample_rate="16000").restore(known)
    assert made.bandwidth_hz == pytest.approx(3000, abs=500)
    samples[:, 1] = noise(24000)[:, 0]
    wide = survey(save(tmp_path / "b.wav", samples, 48000))
    assert wide.bandwidth_hz == pytest.approx(24000, abs=100)
    assert files(tmp_path, sample_rate="16000").keep(wide).bandwidth_hz <= 8000
    silence = survey(save(tmp_path / "c.wav", np.zeros((4000, 1), dtype=np.float32)))
    assert silence.bandwidth_hz is None


def test_a_loudness_is_reached_and_nothing_is_clipped(tmp_path: Path):
    from speechadapt.audio.loudness import LoudnessMeter

    known = survey(save(tmp_path / "a.wav", 0.01 * noise(32000)))
    made = files(tmp_path, loudness="-23LUFS").restore(known)
    meter = LoudnessMeter(16000)
    meter.add(soundfile.read(made.path, dtype="float32", always_2d=True)[0].T)
    assert meter.lufs() == pytest.approx(-23.0, abs=0.1)
    loud = files(tmp_path, loudness="-3LUFS").restore(known)
    assert float(np.abs(soundfile.read(loud.path)[0]).max()) < 1.0


def test_a_recording_is_kept_sample_for_sample_where_nothing_else_is_asked(tmp_path: Path):
    random = np.random.default_rng(0)
    source = random.integers(-32768, 32767, (5000, 2), dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", source, 44100)
    item = PlanItem("a", "a", str(tmp_path / "a.wav"), "a")
    made = files(tmp_path).keep(survey(item))
    found, rate = soundfile.read(made.path, dtype="int16")
    assert rate == 44100
    np.testing.assert_array_equal(found, source)


def test_a_kept_recording_has_the_rate_that_was_asked_for(tmp_path: Path):
    known = survey(save(tmp_path / "a.wav", noise(22050), 22050))
    made = files(tmp_path, sample_rate="8000").keep(known)
    info = soundfile.info(made.path)
    assert (info.samplerate, info.frames) == (8000, 8000)
    opus = files(tmp_path, format="opus").keep(known)
    assert (opus.sample_rate, soundfile.info(opus.path).frames) == (24000, opus.samples)


def test_memory_does_not_grow_with_the_recording(tmp_path: Path):
    import tracemalloc

    class Passing(Same):
        def channel(self, blocks, length, config):
            yield from blocks

    peaks = []
    for seconds in (160, 480):  # both beyond what is read at once
        known = survey(save(tmp_path / f"{seconds}.wav", noise(seconds * 16000)))
        maker = FileRestorer(Passing(), RestoreOptions(loudness="-23LUFS"), tmp_path / "made")
        tracemalloc.start()
        maker.restore(known)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_times_are_told_apart(tmp_path: Path):
    made = files(tmp_path).restore(survey(save(tmp_path / "a.wav", noise(8000))))
    assert min(made.decode_s, made.model_s, made.write_s) > 0.0
