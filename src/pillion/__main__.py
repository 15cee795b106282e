"""`python -m pillion` is the same as `pillion`."""

from __future__ import annotations

import sys

from pillion.cli import main

if __name__ == "__main__":
    sys.exit(main())
