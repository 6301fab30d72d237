"""Run one step of `make check`, then print its name, its verdict and its time.

Usage: timed.py NAME COMMAND...
"""

from __future__ import annotations

import subprocess
import sys
import time


def main() -> int:
    name, command = sys.argv[1], sys.argv[2:]
    started = time.monotonic()
    code = subprocess.run(command).returncode
    verdict = "ok" if code == 0 else f"failed ({code})"
    print(f"== {name}: {verdict}, {time.monotonic() - started:.1f} s", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
