from __future__ import annotations

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from speechadapt.decoders.whisper_ar.generate import Generator
from speechadapt.decoders.whisper_ar.options import WhisperOptions
from speechadapt.decoders.whisper_ar.tiny import tiny_network, tiny_tokenizer
from speechadapt.decoders.whisper_ar.tokens import read_vocabulary

STEPS = 12


@pytest.fixture(scope="module")
def network():
    # Untrained, it writes timestamps at random, at which transformers would cut and begin anew.
    network = tiny_network()
    settings = network.generation_config
    times = range(settings.no_timestamps_token_id + 1, network.config.vocab_size)
    settings.suppress_tokens = [*settings.suppress_tokens, *times]
    return network


@pytest.fixture(scope="module")
def features():
    return torch.randn(4, 80, 200, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def frames(network, features):
    with torch.no_grad():
        return network.model.encoder(features).last_hidden_state


@pytest.fixture(scope="module")
def vocabulary(network):
    return read_vocabulary(network.generation_config, tiny_tokenizer())


def prompts(vocabulary, count: int, timestamps: bool = False) -> torch.Tensor:
    return torch.tensor([vocabulary.prompt("en", "transcribe", not timestamps)] * count)


def run(network, vocabulary, frames, temperature=0.0, *, lengths=None, seeds=None, **options):
    generator = Generator(network, vocabulary, WhisperOptions(sample_len=STEPS, **options))
    count = len(frames)
    with torch.no_grad():
        return generator.run(
            frames,
            torch.tensor(lengths or [frames.shape[1]] * count),
            prompts(vocabulary, count, not generator.options.without_timestamps),
            temperature,
            seeds or list(range(count)),
        )


def from_transformers(network, features, **options) -> list[list[int]]:
    rows = network.generate(
        features,
        language="en",
        task="transcribe",
        max_new_tokens=STEPS,
        return_dict_in_generate=False,
        **options,
    ).tolist()
    end = network.config.eos_token_id
    return [row[: row.index(end)] if end in row else row for row in rows]


def test_greedy_writes_what_transformers_writes(network, vocabulary, frames, features):
    expected = from_transformers(network, features)
    assert len({tuple(row) for row in expected}) == len(expected)
    drafts = run(network, vocabulary, frames)
    assert [list(draft.tokens) for draft in drafts] == expected


def test_beams_write_what_transformers_writes(network, vocabulary, frames, features):
    expected = from_transformers(network, features, num_beams=3)
    drafts = run(network, vocabulary, frames, beam_size=3)
    assert [list(draft.tokens) for draft in drafts] == expected


def test_log_probabilities_are_those_of_the_network_under_its_filters(network, vocabulary, frames):
    draft = run(network, vocabulary, frames)[0]
    begin = prompts(vocabulary, 1).shape[1]
    tokens = torch.cat([prompts(vocabulary, 1)[0], torch.tensor(draft.tokens)])
    generator = Generator(network, vocabulary, WhisperOptions())
    with torch.no_grad():
        logits = generator.forward(frames[:1], torch.tensor([100]), tokens[None, :-1])[0]
    logits[:, list(vocabulary.suppressed)] = -torch.inf
    logits[begin - 1, list(vocabulary.suppressed_first)] = -torch.inf
    log_probs = logits.log_softmax(-1)[begin - 1 :]
    expected = log_probs[torch.arange(len(draft.tokens)), list(draft.tokens)]
    torch.testing.assert_close(torch.tensor(draft.log_probs[: len(draft.tokens)]), expected)


def test_beams_and_greedy_agree_on_the_log_probability_of_a_text(network, vocabulary, frames):
    greedy = run(network, vocabulary, frames)
    beams = run(network, vocabulary, frames, beam_size=2)
    same = [
        (first, second)
        for first, second in zip(greedy, beams, strict=True)
        if first.tokens == second.tokens
    ]
    for first, second in same:
        assert second.avg_logprob == pytest.approx(first.avg_logprob, abs=1e-4)
    worse = [
        second.avg_logprob < first.avg_logprob - 1e-4
        for first, second in zip(greedy, beams, strict=True)
    ]
    assert not all(worse)


@pytest.mark.parametrize("beam_size", [None, 3])
def test_no_speech_is_the_probability_right_after_the_start_token(
    network, vocabulary, frames, beam_size
):
    drafts = run(network, vocabulary, frames, beam_size=beam_size)
    with torch.no_grad():
        start = torch.full((len(frames), 1), vocabulary.start)
        logits = Generator(network, vocabulary, WhisperOptions()).forward(
            frames, torch.tensor([100] * len(frames)), start
        )
    expected = logits[:, 0].softmax(-1)[:, vocabulary.no_speech]
    found = torch.tensor([draft.no_speech_prob for draft in drafts])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


def test_samples_hang_on_the_seed_alone(network, vocabulary, frames):
    together = run(network, vocabulary, frames, 1.0, seeds=[7, 8, 9, 10])
    alone = run(network, vocabulary, frames[2:3], 1.0, seeds=[9])
    other = run(network, vocabulary, frames[2:3], 1.0, seeds=[90])
    assert alone[0].tokens == together[2].tokens
    assert other[0].tokens != alone[0].tokens


def test_samples_follow_the_tempered_distribution(network, vocabulary, frames):
    count, temperature = 400, 0.7
    options = WhisperOptions(sample_len=1, best_of=1)
    generator = Generator(network, vocabulary, options)
    with torch.no_grad():
        drafts = generator.run(
            frames[:1].expand(count, -1, -1),
            torch.tensor([100] * count),
            prompts(vocabulary, count),
            temperature,
            list(range(count)),
        )
        logits = generator.forward(frames[:1], torch.tensor([100]), prompts(vocabulary, 1))[0, -1]
    logits[[*vocabulary.suppressed, *vocabulary.suppressed_first]] = -torch.inf
    expected = (logits / temperature).softmax(-1)
    counts = torch.zeros_like(expected)
    for draft in drafts:
        counts[draft.tokens[0]] += 1
    assert counts[expected == 0].sum() == 0
    # Total variation of 400 draws from a peaked distribution stays well below this.
    assert 0.5 * (counts / count - expected).abs().sum() < 0.12


def test_the_best_of_several_samples_is_kept(network, vocabulary, frames):
    one = run(network, vocabulary, frames, 1.0, best_of=1)
    five = run(network, vocabulary, frames, 1.0, best_of=5)
    gains = [b.avg_logprob - a.avg_logprob for a, b in zip(one, five, strict=True)]
    assert min(gains) >= -1e-6
    assert max(gains) > 0.01


def test_native_frames_past_a_length_change_nothing(network, vocabulary, frames):
    lengths = [100, 60, 40, 1]
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(2)) * 5
    spoiled = frames.clone()
    for row, length in enumerate(lengths):
        spoiled[row, length:] = noise[row, length:]
    first = run(network, vocabulary, frames, lengths=lengths, padding="native")
    second = run(network, vocabulary, spoiled, lengths=lengths, padding="native")
    assert [draft.tokens for draft in first] == [draft.tokens for draft in second]
    alone = run(network, vocabulary, frames[1:2, :60], lengths=[60], padding="native")
    assert alone[0].tokens == first[1].tokens
    full = run(network, vocabulary, spoiled, lengths=lengths)
    assert full[1].tokens != first[1].tokens


def test_native_beams_are_masked_with_their_row(network, vocabulary, frames):
    lengths = [100, 60, 40, 20]
    together = run(network, vocabulary, frames, lengths=lengths, padding="native", beam_size=2)
    alone = run(network, vocabulary, frames[2:3, :40], lengths=[40], padding="native", beam_size=2)
    assert alone[0].tokens == together[2].tokens


def test_timestamps_come_in_order_and_begin_the_text(frames):
    network = tiny_network()
    vocabulary = read_vocabulary(network.generation_config, tiny_tokenizer())
    for draft in run(network, vocabulary, frames, without_timestamps=False):
        times = [token for token in draft.tokens if vocabulary.is_timestamp(token)]
        assert vocabulary.is_timestamp(draft.tokens[0])
        assert draft.tokens[0] <= vocabulary.timestamp_begin + 50
        assert times == sorted(times)


def test_the_language_is_detected_as_transformers_does(network, vocabulary, frames):
    generator = Generator(network, vocabulary, WhisperOptions())
    with torch.no_grad():
        found = generator.detect(frames, torch.tensor([100] * len(frames)))
    ids = network.detect_language(encoder_outputs=BaseModelOutput(last_hidden_state=frames))
    assert [vocabulary.languages[code] for code, _ in found] == ids.tolist()
    assert all(1 / 3 <= probability <= 1 for _, probability in found)
