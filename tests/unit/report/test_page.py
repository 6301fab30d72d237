"""The page as text, and as headless Chromium shows it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page
from made_job import write_job, write_tone

from speechadapt.core.errors import JobError
from speechadapt.report.page import write_page

in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

SHOWN = "[...document.querySelectorAll('.open')].map((node) => node.textContent)"


def data_of(text: str) -> list[dict]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    return json.loads(found[1])


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Start one browser for the tests of this file."""
    with Page(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    write_job(folder / "out", 300)
    write_tone(folder / "in" / "clip0003.flac")
    return write_page(folder / "out")


def test_the_page_states_rates_with_intervals_reasons_and_fingerprint(page):
    text = page.read_text()
    assert page.name == "report.html"
    assert "Complete: 300 files." in text
    assert "95% bootstrap over 5 speakers" in text
    assert re.search(r"WER</dt><dd>[\d.]+%<small>[\d.]+% to [\d.]+%", text)
    assert 'data-query="UNREADABLE">UNREADABLE: 1<' in text
    assert "<dt>model.name</dt><dd>made up</dd>" in text
    assert re.search(r"<dt>fingerprint</dt><dd>[0-9a-f]{64}</dd>", text)
    assert text.count("<svg") == 3


def test_no_text_of_a_job_ends_the_data(page):
    text = page.read_text()
    assert text.count("</script>") == 2
    rows = {row["name"]: row for row in data_of(text)}
    assert rows["deep/clip0009.flac"]["text"].endswith(" </script>")
    assert "not <audio> &" not in text


def test_the_page_depends_on_the_folder_alone(page):
    before = page.read_bytes()
    time.sleep(0.01)
    assert write_page(page.parent).read_bytes() == before


def test_a_job_under_way_says_so(tmp_path):
    write_job(tmp_path / "out", 30, done=10)
    text = write_page(tmp_path / "out", tmp_path / "p.html").read_text()
    assert "Under way or interrupted: 10 of 30 files done." in text
    assert data_of(text)[0]["audio"].startswith("in/")


def test_a_folder_without_a_job_is_refused(tmp_path):
    with pytest.raises(JobError, match="holds no job"):
        write_page(tmp_path)


@in_browser
def test_the_page_filters_sorts_opens_and_plays_without_an_error(page, tab):
    tab.open(page)
    shown = tab.evaluate(SHOWN)
    assert len(shown) == 100
    assert shown[0] == "deep/clip0003.flac"
    tab.press("/", "/")
    for letter in "wrong":
        tab.press(letter, letter)
    assert tab.evaluate("document.getElementById('count').textContent") == "75 of 300 files"
    tab.evaluate("change('query', 'unreadable')")
    assert tab.evaluate(SHOWN) == ["deep/clip0003.flac"]
    tab.evaluate("document.querySelector('.open').focus()")
    tab.press("Enter", "\r")
    assert "not <audio> & no header" in tab.evaluate("document.querySelector('.detail').innerText")
    played = """(async () => {
        const audio = document.querySelector('audio');
        await audio.play();
        await new Promise((done) => audio.addEventListener('timeupdate', done, {once: true}));
        return audio.duration;
    })()"""
    assert tab.evaluate(played) == pytest.approx(1.0, abs=0.05)
    tab.evaluate("change('query', ''); change('order', '-seconds')")
    lengths = tab.evaluate("state.found.slice(0, 3).map((row) => row.seconds)")
    assert lengths == [9, 9, 9]
    assert tab.problems == []


@in_browser
def test_a_view_can_be_bookmarked_and_differences_are_marked(page, tab):
    tab.open(page)
    tab.evaluate("location.hash = 'query=clip0020&order=name'")
    deadline = time.monotonic() + 10
    while tab.evaluate(SHOWN) != ["deep/clip0020.flac"]:
        assert time.monotonic() < deadline
    tab.evaluate("document.querySelector('.open').click()")
    marks = "[...document.querySelectorAll('.difference del, .difference ins')]"
    found = tab.evaluate(marks + ".map((node) => node.tagName + ' ' + node.textContent)")
    assert [mark.partition(" ")[0] for mark in found] == ["DEL", "INS", "DEL"]
    assert found[1] == "INS wrong"
    assert tab.problems == []


@in_browser
def test_nothing_is_wider_than_a_phone(page, tab):
    tab.send(
        "Emulation.setDeviceMetricsOverride",
        width=360,
        height=740,
        deviceScaleFactor=2,
        mobile=True,
    )
    tab.open(page)
    tab.evaluate("document.querySelectorAll('.open')[4].click()")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.send("Emulation.clearDeviceMetricsOverride")
    assert tab.problems == []


@in_browser
def test_files_are_drawn_a_hundred_at_a_time(page, tab):
    tab.open(page)
    assert len(tab.evaluate(SHOWN)) == 100
    tab.evaluate("document.getElementById('more').click()")
    assert len(tab.evaluate(SHOWN)) == 200
    tab.evaluate("document.getElementById('more').click()")
    assert len(tab.evaluate(SHOWN)) == 300
    assert tab.evaluate("document.getElementById('more').hidden")
    assert tab.problems == []
