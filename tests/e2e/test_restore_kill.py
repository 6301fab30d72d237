"""kill -9 at random moments of a restoration, then resume: nothing shows in the outputs."""

from __future__ import annotations

from functools import partial

import pytest

from speechadapt.models.restorer_tiny import write_tiny_restorer
from tests.e2e.fake_restorer import HOOK
from tests.e2e.jobs import check_whole, end, kill_and_resume, start, tree


@pytest.mark.slow
def test_two_kills_leave_no_trace(source, tmp_path):
    more, hook = ("-f", "opus"), {"SPEECHADAPT_LOADER": HOOK}
    assert end(start("restore", source, tmp_path / "whole", *more, **hook)) == 0
    output = tmp_path / "out"
    begin = partial(start, "restore", source, output, *more, **hook)
    kill_and_resume(begin, output, [1, 6], FAKE_PAUSE_S="0.05")
    check_whole(output, tree(tmp_path / "whole"), attempts=None)


@pytest.mark.slow
def test_kills_leave_no_trace_in_what_a_network_restores(source, tmp_path):
    tiny = write_tiny_restorer(tmp_path / "tiny")
    more = ("--model", str(tiny))
    assert end(start("restore", source, tmp_path / "whole", *more)) == 0
    output = tmp_path / "out"
    kill_and_resume(partial(start, "restore", source, output, *more), output, [0, 2, 5, 8])
    check_whole(output, tree(tmp_path / "whole"), attempts=None)
    assert end(start("restore", source, tmp_path / "two", *more, "--workers", "2")) == 0
    assert tree(tmp_path / "two") == tree(tmp_path / "whole")
