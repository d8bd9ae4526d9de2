"""`python -m sartiq_conformance`, the same as `sartiq-conformance`."""

from sartiq_conformance.command import main

if __name__ == "__main__":
    raise SystemExit(main())
