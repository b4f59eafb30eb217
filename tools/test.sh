#!/usr/bin/env bash
# Runs every test that this machine can run: installs the environment, then pytest. Further arguments go to pytest.
#
#   bash tools/test.sh [tests/unit -k gate …]
#
# As root on Debian or Ubuntu it also installs Slurm, munge and iproute2 for the tests of the cluster path; without them
# those tests are skipped with a reason. SEIF_APT=0 leaves the system's packages alone.
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=${SEIF_VENV:-$ROOT/.venv}

slurm_is_here() {
  local program
  for program in slurmctld slurmd munged ip; do
    command -v "$program" >/dev/null || return 1
  done
}

install_slurm() {
  [[ ${SEIF_APT:-1} == 1 && $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 0
  ! slurm_is_here || return 0
  echo "test: installing slurm-wlm, munge and iproute2 for the cluster tests" >&2
  export DEBIAN_FRONTEND=noninteractive
  { timeout 120 apt-get update -qq && timeout 300 apt-get install -y -qq --no-install-recommends slurm-wlm munge iproute2; } \
    >/dev/null || echo "test: that failed; the cluster tests will be skipped" >&2
}

PATH=$PATH:/usr/sbin:/sbin
bash "$ROOT/tools/install.sh"
install_slurm
cd -- "$ROOT"
# One thread per rank: several ranks share the cores, and spinning threads make small models many times slower.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}
exec "$VENV/bin/python" -m pytest "$@"
