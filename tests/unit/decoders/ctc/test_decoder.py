from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.decoders.ctc.decoder import CtcDecoder, CtcOptions
from speechadapt.text.alphabet import Alphabet, english

LETTERS = Alphabet(("<pad>", "|", "a", "b"))


def identity_decoder(**options) -> CtcDecoder:
    """A decoder whose frames are its logits."""
    decoder = CtcDecoder(LETTERS, len(LETTERS), CtcOptions(**options))
    with torch.no_grad():
        decoder.head.weight.copy_(torch.eye(len(LETTERS)))
        decoder.head.bias.zero_()
    return decoder.eval()


def logits(symbols: str, scale: float = 8.0) -> torch.Tensor:
    ids = [LETTERS.ids.get(symbol, 0) for symbol in symbols]
    return torch.nn.functional.one_hot(torch.tensor(ids), len(LETTERS)).float()[None] * scale


def decode(decoder: CtcDecoder, frames: torch.Tensor):
    return decoder.decode(frames, torch.tensor([frames.shape[1]]), 25.0)[0]


def test_greedy_reads_the_best_path():
    hypothesis = decode(identity_decoder(), logits("_aa_ab|_|b_"))
    assert hypothesis.text == "aab b"
    assert LETTERS.decode(hypothesis.tokens, collapse=False) == "aab b"
    assert [word.text for word in hypothesis.words] == ["aab", "b"]


def test_delimiters_at_the_ends_are_no_labels():
    hypothesis = decode(identity_decoder(), logits("|a_|"))
    assert hypothesis.tokens == (2,)


def test_average_log_probability_is_the_forward_probability_per_label_and_end():
    frames = logits("a_", scale=2.0)
    hypothesis = decode(identity_decoder(), frames)
    table = frames[0].softmax(-1)
    paths = [(2, 0), (0, 2), (2, 2)]
    total = sum(table[0, first] * table[1, second] for first, second in paths)
    assert hypothesis.text == "a"
    assert hypothesis.avg_logprob == pytest.approx(float(total.log()) / 2, abs=1e-6)


def test_frames_past_the_length_do_not_count():
    frames = torch.cat([logits("a_b"), logits("bab")], dim=1)
    short = identity_decoder().decode(frames, torch.tensor([3]), 25.0)[0]
    assert short == decode(identity_decoder(), frames[:, :3])


def test_a_clip_of_blanks_has_the_empty_text_and_no_words():
    hypothesis = decode(identity_decoder(), logits("____"))
    assert (hypothesis.text, hypothesis.tokens, hypothesis.words) == ("", (), ())
    assert hypothesis.avg_logprob > -0.1


def test_word_list_and_language_model_correct_a_misheard_word(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("ab\nbb\n")
    sentences = tmp_path / "sentences.txt"
    sentences.write_text("ab bb\nab bb\n")
    misheard = logits("a_a|b_b", scale=4.0)
    assert decode(identity_decoder(), misheard).text == "aa bb"
    corrected = decode(identity_decoder(word_list=str(words), prune_logprob=-30.0), misheard)
    assert corrected.text in {"ab bb", "bb bb"}
    with_model = identity_decoder(lm=str(sentences), word_list="lm", alpha=1.0, prune_logprob=-30.0)
    assert decode(with_model, misheard).text == "ab bb"


def test_settings_name_files_by_their_content(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("ab\n")
    second.write_text("ab\n")
    settings = [identity_decoder(word_list=str(path)).settings() for path in (first, second)]
    assert settings[0] == settings[1]
    first.write_text("ab bb\n")
    assert identity_decoder(word_list=str(first)).settings() != settings[1]
    json.dumps(settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size must be 1 or more, got 0"),
        ({"beam_size": 1, "word_list": "x"}, "need a beam search"),
        ({"word_list": "lm"}, "but no lm is given"),
        ({"prune_logprob": 0.0}, "must be below 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        CtcOptions(**options)


def test_an_unreadable_language_model_is_named():
    with pytest.raises(ConfigError, match=r"lm=/nowhere/x.arpa cannot be read"):
        identity_decoder(lm="/nowhere/x.arpa")


def write_folder(folder, symbols: int = 29, dtype=torch.float16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {
        "lm_head.weight": torch.randn(symbols, 8, generator=generator).to(dtype),
        "lm_head.bias": torch.zeros(symbols, dtype=dtype),
        "wav2vec2_bert.other": torch.zeros(2),
    }
    save_file(weights, folder / "model.safetensors")
    english().write(folder)
    return weights


def test_from_folder_reads_the_head_in_float32(tmp_path):
    weights = write_folder(tmp_path)
    decoder = CtcDecoder.from_folder(tmp_path, {"beam_size": 4})
    assert decoder.head.weight.dtype == torch.float32
    assert torch.equal(decoder.head.weight, weights["lm_head.weight"].float())
    assert decoder.options.prefixes == 4


def test_a_head_wider_than_the_vocabulary_never_writes_the_rest(tmp_path):
    write_folder(tmp_path, symbols=31)
    decoder = CtcDecoder.from_folder(tmp_path, {})
    with torch.no_grad():
        decoder.head.bias[30] = 100.0
    assert decode(decoder, torch.zeros(1, 3, 8)).text == ""


def test_a_head_narrower_than_the_vocabulary_is_refused(tmp_path):
    write_folder(tmp_path, symbols=28)
    with pytest.raises(CheckpointError, match="29 symbols, the head only 28"):
        CtcDecoder.from_folder(tmp_path, {})


def test_a_folder_without_weights_is_refused(tmp_path):
    english().write(tmp_path)
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        CtcDecoder.from_folder(tmp_path, {})


def test_an_unknown_option_names_its_near_misses(tmp_path):
    write_folder(tmp_path)
    with pytest.raises(ConfigError, match=r"ctc has no option 'beamsize'. Did you mean beam_size"):
        CtcDecoder.from_folder(tmp_path, {"beamsize": 4})
