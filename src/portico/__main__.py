"""`python -m portico` is `portico`."""

from __future__ import annotations

import sys

from portico.cli import main

if __name__ == "__main__":
    sys.exit(main())
