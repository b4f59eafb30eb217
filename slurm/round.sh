#!/usr/bin/env bash
# Runs SEIF rounds on a Slurm cluster, one task per rank:
#
#   sbatch slurm/round.sh experiment=quickstart run.name=first
#   sbatch --nodes=8 --ntasks-per-node=8 --gpus-per-node=8 slurm/round.sh experiment=… key=value…
#
# The arguments are those of `python -m seif_nemo evolve`. Options of sbatch on the command line win over the defaults
# below; the site's settings (container or virtual environment, network interface) are in slurm/env.sh. The job fails
# when a rank fails. Submitted again with the same arguments, it goes on where the run directory stands.
#
#SBATCH --job-name=seif
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=2
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
set -euo pipefail

# sbatch runs a copy of this file from its spool: the checkout is where the job was submitted, or where Slurm says the
# file was. SEIF_ROOT overrides both.
find_root() {
  local folder
  folder=$(dirname -- "${BASH_SOURCE[0]}")/..
  [[ -f $folder/slurm/lib.sh ]] || folder=${SLURM_SUBMIT_DIR:-}
  [[ -f $folder/slurm/lib.sh ]] || folder=$(scontrol show job "${SLURM_JOB_ID:-}" | sed -n 's|^ *Command=\(.*\)/slurm/round\.sh.*|\1|p')
  cd -- "$folder" && pwd -P
}

[[ -n ${SLURM_JOB_ID:-} ]] || { echo "seif: not in a Slurm job. Submit it: sbatch slurm/round.sh experiment=…" >&2; exit 2; }
SEIF_ROOT=${SEIF_ROOT:-$(find_root)}
source "$SEIF_ROOT/slurm/env.sh"
source "$SEIF_ROOT/slurm/lib.sh"
cd -- "$SEIF_ROOT"

python=$(seif_python)
seif_srun "$python" -m seif_nemo evolve "$@" # the last command: its exit code is the job's
