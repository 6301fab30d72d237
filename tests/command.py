"""The command line, called in this process."""

from __future__ import annotations

import pytest

from speechadapt.cli.main import main


def call(*words: object) -> int:
    """Run the command line with these words; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)
