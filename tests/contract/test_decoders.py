"""What every decoder promises, for each folder of `speechadapt/decoders`."""

from __future__ import annotations

import json

import pytest
import torch

from speechadapt.decoders.catalog import decoder_class, decoder_names

DIM, RATE = 32, 50.0


@pytest.fixture(scope="module", params=decoder_names())
def decoder(request):
    return decoder_class(request.param).tiny(DIM)


@pytest.fixture(scope="module")
def frames():
    return torch.randn(3, 60, DIM, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def lengths():
    return torch.tensor([60, 41, 23])


@pytest.fixture(scope="module")
def hypotheses(decoder, frames, lengths):
    return decoder.decode(frames, lengths, RATE)


def test_there_is_one_hypothesis_per_row_in_order(decoder, frames, lengths, hypotheses):
    assert len(hypotheses) == 3
    order = torch.tensor([2, 0, 1])
    turned = decoder.decode(frames[order], lengths[order], RATE)
    assert [one.text for one in turned] == [hypotheses[row].text for row in order.tolist()]


def test_the_texts_hang_on_the_frames(hypotheses):
    assert len({one.text for one in hypotheses}) > 1


def test_a_batch_gives_what_its_rows_give_alone(decoder, frames, lengths, hypotheses):
    for row, together in enumerate(hypotheses):
        (alone,) = decoder.decode(frames[row : row + 1], lengths[row : row + 1], RATE)
        assert (alone.text, alone.tokens, alone.flags) == (
            together.text,
            together.tokens,
            together.flags,
        )
        assert alone.avg_logprob == pytest.approx(together.avg_logprob, abs=1e-4)
        assert alone.temperature == together.temperature


def test_decoding_twice_gives_the_same_whatever_the_global_seed(
    decoder, frames, lengths, hypotheses
):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1234)
        again = decoder.decode(frames, lengths, RATE)
    assert again == hypotheses


def test_a_row_without_frames_has_the_empty_text(decoder, frames, lengths, hypotheses):
    found = decoder.decode(frames, torch.tensor([60, 0, 23]), RATE)
    assert (found[1].text, found[1].tokens, found[1].words) == ("", (), ())
    assert found[0].text == hypotheses[0].text
    (nothing,) = decoder.decode(frames[:1, :0], torch.tensor([0]), RATE)
    assert nothing.text == ""


def test_one_frame_can_be_decoded(decoder, frames):
    (hypothesis,) = decoder.decode(frames[:1, :1], torch.tensor([1]), RATE)
    assert isinstance(hypothesis.text, str)


def test_scores_are_in_their_ranges(hypotheses):
    for hypothesis in hypotheses:
        assert hypothesis.avg_logprob <= 0.0
        assert hypothesis.compression_ratio > 0
        assert hypothesis.no_speech_prob is None or 0 <= hypothesis.no_speech_prob <= 1
        for word in hypothesis.words:
            assert 0 <= word.start <= word.end <= 60 / RATE
            assert 0 <= word.probability <= 1


def test_the_text_has_no_space_at_its_ends(hypotheses):
    assert all(one.text == one.text.strip() for one in hypotheses)


def test_settings_and_details_are_json(decoder, hypotheses):
    settings = decoder.settings()
    assert json.loads(json.dumps(settings)) == settings
    for hypothesis in hypotheses:
        assert json.loads(json.dumps(hypothesis.details)) == hypothesis.details


def test_it_claims_no_folder_without_architecture(decoder):
    assert not decoder.claims({})
    assert not decoder.claims({"architectures": None})
    assert not decoder.claims({"architectures": ["ASTModel"]})


def test_decoding_leaves_the_weights_and_the_mode_alone(decoder, frames, lengths):
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    decoder.decode(frames, lengths, RATE)
    assert not decoder.training
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, before[name])
