from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from transformers import Wav2Vec2BertForCTC

from speechadapt.audio.chunk import Segment
from speechadapt.audio.margin import add_margin
from speechadapt.core.errors import AudioError, CheckpointError, ShapeError
from speechadapt.decoders.base import Hypothesis, Word
from speechadapt.models import recogniser as module
from speechadapt.models.build import load
from speechadapt.models.recogniser import Recogniser
from speechadapt.text.alphabet import read_alphabet

RATE = 16000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).normal(size=round(seconds * RATE)) * 0.1
    return samples.astype(np.float32)


@pytest.fixture(scope="module")
def ctc(ctc_folder):
    return load(ctc_folder)


@pytest.fixture(scope="module")
def whisper(whisper_folder):
    return load(whisper_folder, language="en", sample_len=8, temperature=(0.0, 1.0))


@pytest.fixture(scope="module")
def native(whisper_folder):
    return load(whisper_folder, language="en", sample_len=8, padding="native", temperature=(0.0,))


@pytest.fixture(params=["ctc", "whisper", "native"])
def recogniser(request) -> Recogniser:
    return request.getfixturevalue(request.param)


def test_a_batch_gives_what_its_clips_give_alone(recogniser):
    clips = [noise(1.5, 1), noise(0.7, 2), noise(0.0), noise(0.01, 3)]
    together = recogniser.decode_batch(clips)
    alone = [recogniser.decode_batch([clip])[0] for clip in clips]
    assert [one.text for one in together] == [one.text for one in alone]
    assert together[0].text != together[1].text
    assert together[2].text == ""


def test_greedy_ctc_is_what_transformers_and_its_tokenizer_say(ctc_folder, ctc):
    model = Wav2Vec2BertForCTC.from_pretrained(ctc_folder, dtype=torch.float32).eval()
    extractor = ctc.encoder.extractor
    clip = noise(1.3, 4)
    with torch.no_grad():
        inputs = extractor([clip], sampling_rate=RATE, return_tensors="pt", pad_to_multiple_of=4)
        ids = model(**inputs).logits.argmax(-1)[0]
    frames = int(inputs["attention_mask"].sum())
    expected = read_alphabet(ctc_folder).decode(ids[:frames].tolist())
    assert len(expected) > 5
    assert ctc.decode_batch([clip])[0].text == expected


def test_a_clip_longer_than_the_window_is_refused(whisper):
    with pytest.raises(ShapeError, match=r"clip 1 of the batch lasts 2\.50 s; .* takes 2 s"):
        whisper.decode_batch([noise(1.0), noise(2.5)])


def test_an_encoder_of_any_length_gets_a_window_of_30_seconds(ctc):
    assert ctc.window_s == 30.0


def test_a_file_and_its_samples_give_the_same_transcript(ctc, tmp_path):
    samples = noise(1.2, 5)
    soundfile.write(tmp_path / "clip.wav", samples, RATE, subtype="FLOAT")
    transcript = ctc.transcribe(tmp_path / "clip.wav")
    assert transcript.text
    assert transcript == ctc.transcribe(samples, RATE)
    assert transcript == ctc.transcribe(str(tmp_path / "clip.wav"))
    assert transcript.duration == pytest.approx(1.2)
    assert 0 <= transcript.words[0].start < transcript.words[-1].end <= 1.2


def test_channels_are_mixed_and_rates_converted(ctc):
    samples = noise(1.2, 6)
    stereo = np.stack([samples, samples], axis=1)
    assert ctc.transcribe(stereo, RATE) == ctc.transcribe(samples, RATE)
    assert ctc.transcribe(samples, 8000).duration == pytest.approx(2.4)


def test_a_long_recording_is_decoded_in_pieces_of_its_speech(whisper, monkeypatch):
    spans = [(0.5, 2.0), (4.0, 5.5), (7.0, 8.0)]
    parts = [
        Segment(start, end, noise(end - start, seed), end - start)
        for seed, (start, end) in enumerate(spans)
    ]
    monkeypatch.setattr(module, "segments", lambda blocks, detector, window_s: iter(parts))
    transcript = whisper.transcribe(noise(9.0), RATE, batch_size=2)
    assert [(one.start, one.end) for one in transcript.segments] == spans
    alone = [whisper.decode_batch([part.waveform])[0].text for part in parts]
    assert transcript.text == " ".join(text for text in alone if text)


def test_a_long_recording_without_speech_has_no_text_and_says_so(whisper):
    transcript = whisper.transcribe(np.zeros(5 * RATE, dtype=np.float32), RATE)
    assert (transcript.text, transcript.flags) == ("", ("no_speech",))


@pytest.mark.parametrize(
    ("audio", "rate", "error", "message"),
    [
        (noise(1.0), None, ShapeError, "samples need their sample_rate"),
        (np.zeros((1, 2, 3)), RATE, ShapeError, "got \\(1, 2, 3\\)"),
        (np.zeros(10, dtype=np.int16), RATE, ShapeError, "got int16"),
        (np.full(100, np.nan), RATE, AudioError, "NaN or infinity"),
        ("clip.wav", RATE, ShapeError, "a file states its own"),
    ],
)
def test_samples_that_cannot_be_used_are_refused(ctc, audio, rate, error, message):
    with pytest.raises(error, match=message):
        ctc.transcribe(audio, rate)


def test_the_fingerprint_changes_with_weights_and_options_alone(ctc_folder, tmp_path, ctc):
    fingerprint = ctc.fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    copy = shutil.copytree(ctc_folder, tmp_path / "copy")
    assert load(copy).fingerprint() == fingerprint
    assert load(ctc_folder, beam_size=4).fingerprint() != fingerprint
    changed = load(copy)
    with torch.no_grad():
        changed.decoder.head.bias[3] += 1e-3
    assert changed.fingerprint()["weights"]["decoder"] != fingerprint["weights"]["decoder"]
    assert changed.fingerprint()["weights"]["encoder"] == fingerprint["weights"]["encoder"]


def test_beam_search_reaches_the_decoder(ctc_folder, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("one two three\n")
    text = load(ctc_folder, word_list=str(words)).decode_batch([noise(1.5, 1)])[0].text
    assert set(text.split()) <= {"one", "two", "three"}


def test_a_margin_is_not_seen_in_word_times() -> None:
    said = Hypothesis("go now", words=(Word("go", 0.05, 0.3, 0.9), Word("now", 0.4, 1.2, 0.8)))
    moved = module._without_margin(said, 0.1, 1.0)
    times = [(word.start, word.end) for word in moved.words]
    assert times == [(0.0, pytest.approx(0.2)), (pytest.approx(0.3), 1.0)]
    assert moved.text == said.text


def test_a_folder_states_its_margin(ctc_folder, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ctc_folder, folder)
    (folder / "recogniser.json").write_text('{"margin_s": 0.1}')
    padded = load(folder)
    assert padded.margin_s == 0.1
    assert padded.fingerprint() != load(ctc_folder).fingerprint()
    # The margin reaches the encoder: the same clip padded by hand reads alike.
    clip = noise(0.5)
    by_hand = load(ctc_folder).decode_batch([add_margin(clip, RATE, 0.1)])[0]
    assert padded.decode_batch([clip])[0].text == by_hand.text
    assert padded.decode_batch([clip])[0].avg_logprob == pytest.approx(by_hand.avg_logprob)


def test_a_margin_that_is_no_number_of_seconds_is_refused(ctc_folder, tmp_path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ctc_folder, folder)
    (folder / "recogniser.json").write_text('{"margin_s": 7}')
    with pytest.raises(CheckpointError, match="between 0 and 1 seconds"):
        load(folder)
