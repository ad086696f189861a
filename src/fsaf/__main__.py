"""``python -m fsaf``."""

from fsaf.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
