from __future__ import annotations

import json

import pytest
import torch

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.decoders.whisper_ar.decoder import WhisperDecoder
from speechadapt.decoders.whisper_ar.options import WhisperOptions
from speechadapt.decoders.whisper_ar.tiny import tiny_network, tiny_tokenizer

RATE = 50.0
FRAMES = torch.randn(4, 100, 32, generator=torch.Generator().manual_seed(3))
LENGTHS = torch.tensor([100, 70, 40, 10])


def lettered_network(timestamps: bool = False):
    """A network that writes small letters and spaces, so that its texts have words."""
    network = tiny_network()
    letters = set("abcdefghijklmnopqrstuvwxyz\u0120")  # the last one spells the space
    others = [
        index
        for token, index in tiny_tokenizer().get_vocab(with_added_tokens=False).items()
        if token not in letters
    ]
    first_time = network.generation_config.no_timestamps_token_id + 1
    if not timestamps:
        others += range(first_time, network.config.vocab_size)
    network.generation_config.suppress_tokens += sorted(others)
    return network


def make(**options) -> WhisperDecoder:
    settings = WhisperOptions(**({"sample_len": 10, "language": "en"} | options))
    network = lettered_network(timestamps=not settings.without_timestamps)
    return WhisperDecoder(network, tiny_tokenizer(), settings).eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"logprob_threshold": -0.2, "word_timestamps": True},
        {"language": None},
        {"padding": "native", "logprob_threshold": -0.2},
        {"without_timestamps": False},
    ],
)
def test_a_clip_is_decoded_alike_alone_and_in_a_batch(options):
    decoder = make(**options)
    together = decoder.decode(FRAMES, LENGTHS, RATE)
    for row, length in enumerate(LENGTHS.tolist()):
        size = length if decoder.options.padding == "native" else 100
        (alone,) = decoder.decode(FRAMES[row : row + 1, :size], LENGTHS[row : row + 1], RATE)
        assert alone.tokens == together[row].tokens
        assert alone.temperature == together[row].temperature
        assert alone.flags == together[row].flags
        assert [word.text for word in alone.words] == [word.text for word in together[row].words]
        assert alone.avg_logprob == pytest.approx(together[row].avg_logprob, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"beam_size": 3}, {"temperature": (0.6,)}])
def test_a_cache_of_fixed_size_writes_the_same(options):
    growing = make(**options).decode(FRAMES, LENGTHS, RATE)
    decoder = make(cache="static", **options)
    caches = []
    decoder.network.model.decoder.register_forward_pre_hook(
        lambda module, args, given: caches.append(given["cache"]), with_kwargs=True
    )
    fixed = decoder.decode(FRAMES, LENGTHS, RATE)
    kinds = {type(cache.self_attention_cache).__name__ for cache in caches if cache is not None}
    assert kinds == {"StaticCache"}
    for one, other in zip(fixed, growing, strict=True):
        assert one.tokens == other.tokens
        assert one.avg_logprob == pytest.approx(other.avg_logprob, abs=1e-4)


def test_failing_rows_end_at_the_last_temperature_with_a_flag():
    (hypothesis,) = make(logprob_threshold=-0.01).decode(FRAMES[:1], LENGTHS[:1], RATE)
    assert hypothesis.temperature == 1.0
    assert hypothesis.flags == ("logprob",)


def test_silence_keeps_what_was_written_beside_the_empty_text():
    decoder = make(no_speech_threshold=0.0, logprob_threshold=None)
    (hypothesis,) = decoder.decode(FRAMES[:1], LENGTHS[:1], RATE)
    (heard,) = make(no_speech_threshold=None).decode(FRAMES[:1], LENGTHS[:1], RATE)
    assert (hypothesis.text, hypothesis.tokens, hypothesis.flags) == ("", (), ("no_speech",))
    assert hypothesis.details["raw_text"]
    assert heard.details.get("raw_text") is None


def test_words_cover_the_text_inside_the_clip():
    decoder = make(word_timestamps=True, temperature=(0.0,))
    for hypothesis, length in zip(
        decoder.decode(FRAMES, LENGTHS, RATE), LENGTHS.tolist(), strict=True
    ):
        spelled = "".join(word.text for word in hypothesis.words)
        assert spelled == "".join(hypothesis.text.split())
        times = [time for word in hypothesis.words for time in (word.start, word.end)]
        assert times == sorted(times)
        assert 0 <= times[0] <= times[-1] <= length / RATE
        assert all(0 <= word.probability <= 1 for word in hypothesis.words)


def test_a_model_without_alignment_heads_gives_no_word_times():
    network = tiny_network()
    network.generation_config.alignment_heads = None
    settings = WhisperOptions(sample_len=6, language="en", word_timestamps=True)
    decoder = WhisperDecoder(network, tiny_tokenizer(), settings).eval()
    (hypothesis,) = decoder.decode(FRAMES[:1], LENGTHS[:1], RATE)
    assert hypothesis.text
    assert hypothesis.words == ()


def test_timestamps_cut_the_text_into_segments():
    decoder = make(without_timestamps=False, temperature=(0.0,))
    for hypothesis in decoder.decode(FRAMES, LENGTHS, RATE):
        segments = hypothesis.details["segments"]
        joined = "".join(segment["text"] for segment in segments)
        assert joined.replace(" ", "") == hypothesis.text.replace(" ", "")
        starts = [segment["start"] for segment in segments]
        assert starts == sorted(starts)


def test_the_language_asked_for_goes_before_the_detected_one():
    assert make(language="de").decode(FRAMES[:1], LENGTHS[:1], RATE)[0].details["language"] == "de"
    detected = make(language=None).decode(FRAMES[:1], LENGTHS[:1], RATE)[0].details
    assert detected["language_probability"] > 1 / 3


def test_a_rows_own_language_goes_before_the_detected_one_and_after_the_option():
    said = ["de-AT", "xx", None]
    found = make(language=None).decode(FRAMES[:3], LENGTHS[:3], RATE, said)
    detected = make(language=None).decode(FRAMES[:3], LENGTHS[:3], RATE)
    assert found[0].details["language"] == "de"
    assert "language_probability" not in found[0].details
    assert found[1:] == detected[1:]
    asked = make(language="de").decode(FRAMES[:2], LENGTHS[:2], RATE, ["en", "en"])
    assert [one.details["language"] for one in asked] == ["de", "de"]


def test_a_row_without_frames_shifts_no_language():
    lengths = torch.tensor([0, int(LENGTHS[1])])
    said = make(language=None).decode(FRAMES[:2], lengths, RATE, ["en", "de"])
    assert said[1].details["language"] == "de"


def test_token_probabilities_belong_to_the_tokens_and_the_end():
    (hypothesis,) = make(temperature=(0.0,)).decode(FRAMES[:1], LENGTHS[:1], RATE)
    logs = torch.tensor(hypothesis.details["token_probabilities"]).log()
    assert len(logs) in (10, len(hypothesis.tokens) + 1)
    assert all(0 < value <= 1 for value in logs.exp().tolist())


def test_settings_are_json_and_tell_options_apart():
    assert json.loads(json.dumps(make().settings())) == make().settings()
    assert make().settings() != make(best_of=2).settings()


def test_saved_and_loaded_it_writes_the_same_text(tmp_path):
    network = lettered_network()
    network.save_pretrained(tmp_path)
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    again = WhisperDecoder.from_folder(tmp_path, {"sample_len": 10, "language": "en"})
    assert again.decode(FRAMES, LENGTHS, RATE) == make().decode(FRAMES, LENGTHS, RATE)
    assert not any("encoder." in name for name in again.state_dict())


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        WhisperDecoder.from_folder(tmp_path, {})
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        WhisperDecoder.from_folder(tmp_path, {})


def test_a_language_the_model_lacks_is_refused():
    with pytest.raises(ConfigError, match="does not know the language 'fr'"):
        make(language="fr")
