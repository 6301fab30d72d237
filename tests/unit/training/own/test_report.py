from __future__ import annotations

from speechadapt.data.manifest import Utterance
from speechadapt.training.adapt.text import Speller
from speechadapt.training.own.data import Checked, Finding
from speechadapt.training.own.report import about_letters, cautions, data_lines, part_lines, remarks
from speechadapt.training.own.split import Parts

SPELL = Speller()


def rows(name: str, count: int, speaker: str | None, text: str = "one") -> tuple[Utterance, ...]:
    return tuple(
        Utterance(f"{name}{n}.wav", 30.0, text=text, lang="de", speaker=speaker, id=f"{name}{n}")
        for n in range(count)
    )


def parts(train: str | None, test: str | None, text: str = "two", count: int = 30) -> Parts:
    return Parts(rows("a", 20, train), rows("b", 2, train), rows("c", count, test, text), "speaker")


def checked(found: Parts, *findings: Finding) -> Checked:
    kept = (*found.train, *found.dev, *found.test)
    return Checked(kept, findings, len(kept) + sum(one.left_out for one in findings))


def test_what_is_left_out_is_counted_and_its_first_rows_named() -> None:
    findings = [Finding("silent", f"s{n}", "x.wav", "-80 dB") for n in range(4)]
    findings.append(Finding("clipped", "c0", "c.wav", "2 %"))
    text = "\n".join(data_lines(checked(parts("ann", "bo"), *findings), "run/findings.jsonl"))
    assert "52 of 56 recordings can be used: 52 recordings, 26.0 min, 2 speakers, de" in text
    assert "4 left out, listed with the reason in run/findings.jsonl:" in text
    assert "  4 silence: s0 (-80 dB); s1 (-80 dB); s2 (-80 dB); ..." in text
    assert "  1 overdriven (clipped): c0 (2 %)" in text


def test_clean_data_is_said_in_one_line() -> None:
    assert len(data_lines(checked(parts("ann", "bo")), "x")) == 1
    assert part_lines(parts("ann", "bo"))[2] == "held out: 30 recordings, 15.0 min, 1 speaker, de"


def test_little_data_is_called_little() -> None:
    assert cautions(parts("ann", "bo")) == []
    few = Parts(rows("a", 6, "ann"), (), (), "speaker")
    assert "3.0 minutes to learn from are little" in cautions(few)[0]


def test_what_a_score_says_about_speakers_is_said() -> None:
    def said(found: Parts) -> str:
        return " ".join(remarks(checked(found), found, SPELL))

    assert said(parts("ann", "bo")) == ""
    assert "one speaker: the held-out score says nothing about" in said(parts("ann", "ann"))
    assert "not every recording says who speaks" in said(parts("ann", None))
    mixed = Parts(
        (*rows("a", 20, "ann"), *rows("d", 9, "bo")), (), rows("c", 30, "bo", "two"), "recording"
    )
    assert "2 speakers, but those held out speak in training too" in said(mixed)


def test_shared_texts_and_few_recordings_are_said() -> None:
    found = parts("ann", "bo", text="One!", count=5)
    first, second = remarks(checked(found), found, SPELL)
    assert first.startswith("5 of the 5 held-out texts are spoken in training too")
    assert second == "5 recordings held out: the interval will be wide."


def test_letters_the_model_lacks_are_named_with_a_way_out() -> None:
    said = about_letters(("7", "ß"), rows("a", 3, None, "straße 7"), SPELL)
    assert said.startswith("3 of 3 texts have letters that the model does not write: 7 ß.")
    assert "Writing numbers as words" in said
    assert "Writing numbers" not in about_letters(("ß",), rows("a", 1, None, "ß"), SPELL)
