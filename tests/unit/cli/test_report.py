from __future__ import annotations

from functools import partial

from made_job import write_job, write_tone

from tests import command

call = partial(command.call, "report")


def test_report_writes_a_page_and_names_it(tmp_path, capsys):
    write_job(tmp_path / "out", 9)
    assert call(tmp_path / "out") == 0
    assert "report.html: 0.0 MB" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").is_file()


def test_audio_goes_into_the_page_where_it_is_asked_for(tmp_path):
    for item in write_job(tmp_path / "out", 9):
        write_tone(tmp_path / "in" / f"{item.id}.flac", 0.1)
    assert call(tmp_path / "out", "--page", tmp_path / "p.html", "--embed-mb", "1") == 0
    assert (tmp_path / "p.html").read_text().count("data:audio/flac") == 9


def test_a_folder_without_a_job_is_an_error(tmp_path, capsys):
    assert call(tmp_path) == 1
    assert "holds no job" in capsys.readouterr().err
