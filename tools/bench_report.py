"""Time the page of a job of two thousand files: writing it, and opening it in headless Chromium.

python tools/bench_report.py --output docs/results/report.json
python tools/bench_report.py --quick --screenshot page.png
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_facts import describe_command, environment, figure, result, run_tool
from browser import CHROMIUM, Page
from made_job import write_job

from speechadapt.core.errors import JobError
from speechadapt.report.page import write_page

_PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Write a page and open it again and again, each time in a new tab of a new browser.

    Raises:
        JobError: No browser is installed, or the page has errors.
    """
    if CHROMIUM is None:
        raise JobError("no chromium is installed, which is needed to open the page.")
    opened: list[float] = []
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_job(root / "out", arguments.files, words=arguments.words)
        began = time.perf_counter()
        page = write_page(root / "out")
        write_s = time.perf_counter() - began
        megabytes = page.stat().st_size / 1e6
        for number in range(arguments.repeats):
            with Page(root / f"profile{number}") as tab:
                opened.append(tab.open(page) / 1000)
                if number == 0 and arguments.screenshot:
                    show(tab, page, arguments.screenshot)
                if tab.problems:
                    raise JobError(f"the page has errors: {tab.problems}.")
    text = f"times a page of {arguments.files} files was opened"
    figures = [figure("report_open", opened, text), figure("report_size", [megabytes], "page")]
    details = {"files": arguments.files, "words": arguments.words, "write_s": round(write_s, 2)}
    command = describe_command("bench_report.py", words)
    facts = environment("cpu", "none", 1, "none")
    return result(command, facts, figures, details, arguments.quick)


def show(tab: Page, page: Path, picture: Path) -> None:
    """Save the page as a screen and as a phone show it, with a file opened."""
    opening = "document.querySelectorAll('.open')[{}].click()"
    tab.evaluate(opening.format(4))
    tab.screenshot(picture)
    tab.evaluate("document.getElementById('items').scrollIntoView()")
    tab.screenshot(picture.with_stem(picture.stem + "-files"))
    tab.send("Emulation.setDeviceMetricsOverride", **_PHONE)
    tab.open(page)
    tab.screenshot(picture.with_stem(picture.stem + "-phone"))
    tab.evaluate(opening.format(4))
    tab.evaluate("document.getElementById('items').scrollIntoView()")
    tab.screenshot(picture.with_stem(picture.stem + "-phone-files"))
    tab.send("Emulation.clearDeviceMetricsOverride")


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--words", type=int, default=30, help="of each reference")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--screenshot", type=Path, metavar="PNG", help="save how it looks")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    parser.add_argument("--quick", action="store_true", help="smoke run: 200 files, once")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.files, arguments.repeats = 200, 1
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    return run_tool("bench_report", given, parse, measure, quick_may_miss=True)


if __name__ == "__main__":
    sys.exit(main())
