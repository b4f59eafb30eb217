#!/usr/bin/env bash
# From a fresh machine to three rounds of SEIF on two CPU ranks and a report:
#
#   bash tools/quickstart.sh [key=value …]
#
# Installs the environment, makes the tiny model (both once), then runs `python -m seif_nemo evolve experiment=quickstart`
# with the further arguments as overrides. Ctrl-C stops it, the same command continues. Relative paths count from the
# checkout. RANKS=4 takes more ranks; experiment=… another experiment, with its own model.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
PYTHON_HERE=${SEIF_VENV:-$ROOT/.venv}/bin/python
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

experiment=(experiment=quickstart)
for argument in "$@"; do
  [[ $argument != experiment=* ]] || experiment=()
done

trap 'printf "\nquickstart: stopped; run it again to continue\n" >&2; exit 130' INT TERM
bash "$ROOT/tools/install.sh"
cd -- "$ROOT"
"$PYTHON_HERE" tools/make_tiny_model.py --out .cache/tiny
exec "$PYTHON_HERE" tools/launch.py --ranks "${RANKS:-2}" -- "$PYTHON_HERE" -m seif_nemo evolve "${experiment[@]}" "$@"
