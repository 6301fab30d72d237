from __future__ import annotations

import numpy as np
import pytest

from speechadapt.core.errors import DataError
from speechadapt.data.manifest import Utterance
from speechadapt.data.mixture import Companies, activity, overlay


def rows(*speakers: str, seconds: float = 1.0) -> list[Utterance]:
    return [
        Utterance(f"{n}.wav", seconds, speaker=name or None, extra={"corpus": name[:1]})
        for n, name in enumerate(speakers)
    ]


def test_an_utterance_gets_another_speaker_and_other_recordings_of_its_own():
    utterances = rows("ann", "ann", "ann", "bob", "bob", "", "cleo", "ben", "ben")
    drawn = Companies(utterances, enrolment_s=1.5)
    assert sorted(drawn.members) == [0, 1, 2, 3, 4, 7, 8]
    random = np.random.default_rng(0)
    others = set()
    for index in drawn.members * 20:
        company = drawn.draw(index, random)
        speaker = utterances[index].speaker
        assert utterances[company.other].speaker != speaker
        assert {utterances[one].speaker for one in company.enrolment} == {speaker}
        assert index not in company.enrolment
        assert company.other not in company.other_enrolment
        assert len(company.enrolment) == (2 if speaker == "ann" else 1)
        others.add(company.other)
    assert others == set(drawn.members)


def test_the_same_randomness_draws_the_same():
    drawn = Companies(rows(*"aabbcc"))
    found = [drawn.draw(3, np.random.default_rng(5)) for _ in range(2)]
    assert found[0] == found[1]


def test_speakers_of_one_name_in_two_corpora_are_two():
    items = [Utterance("x.wav", 1.0, speaker="s", extra={"corpus": name}) for name in "aabb"]
    assert Companies(items).draw(0, np.random.default_rng(0)).other in (2, 3)


def test_one_speaker_is_too_few():
    with pytest.raises(DataError, match="of 3 utterances 1 speakers have two or more"):
        Companies(rows("ann", "ann", "bob"))


@pytest.mark.parametrize("offset", [300, -200, 0])
def test_voices_are_laid_over_each_other_at_the_asked_power(offset):
    random = np.random.default_rng(0)
    target = (0.1 * random.standard_normal(1000)).astype(np.float32)
    other = (0.02 * random.standard_normal(900)).astype(np.float32)
    mixture, voice, rest = overlay(target, other, 6.0, offset)
    np.testing.assert_allclose(mixture, voice + rest, atol=1e-6)
    start = max(0, -offset)
    np.testing.assert_array_equal(voice[start : start + 1000], target)
    power = np.square(voice).sum() / 1000, np.square(rest).sum() / 900
    assert 10 * np.log10(power[0] / power[1]) == pytest.approx(6.0, abs=1e-3)
    assert bool(rest[max(0, offset)])
    assert not rest[: max(0, offset)].any()
    assert len(mixture) == max(start + 1000, max(0, offset) + 900)


def test_a_loud_mixture_is_scaled_and_not_clipped():
    mixture, voice, rest = overlay(np.full(8, 0.9, np.float32), np.full(8, 0.9, np.float32), 0.0, 0)
    np.testing.assert_allclose(mixture, 1.0, atol=1e-6)
    np.testing.assert_allclose(voice, rest)


def test_a_voice_is_active_where_it_sounds():
    voice = np.zeros(1650, np.float32)
    voice[480:960] = 0.3
    voice[1120:1280] = 0.001
    found = activity(voice, 16000)
    assert found.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    assert not activity(np.zeros(100, np.float32), 16000).any()
