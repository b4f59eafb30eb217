"""`python -m seif_nemo <command> key=value …`"""

from seif_nemo.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
