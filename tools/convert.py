"""`python -m seif_nemo convert` from a checkout: `python tools/convert.py --from PATH --to PATH …`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seif_nemo.cli.convert import run_convert

if __name__ == "__main__":
    raise SystemExit(run_convert(sys.argv[1:]))
