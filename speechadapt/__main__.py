"""`python -m speechadapt`, which is also what `torchrun -m speechadapt` starts."""

from __future__ import annotations

from speechadapt.cli.main import main

if __name__ == "__main__":
    main()
