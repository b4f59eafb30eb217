# shellcheck shell=bash
# What a site decides. Sourced by round.sh with SEIF_ROOT set; a value from the environment of sbatch wins over these:
#   SEIF_CONTAINER=/images/seif.sqsh sbatch slurm/round.sh experiment=…

# Where Python comes from: an image for srun's --container-image (pyxis and enroot, as on NGC clusters), or, where this is
# empty, the virtual environment below. The image is built from the Dockerfile of this checkout.
: "${SEIF_CONTAINER:=}"
: "${SEIF_CONTAINER_MOUNTS:=$SEIF_ROOT:$SEIF_ROOT}" # comma-separated; models and run folders outside the checkout go here
: "${SEIF_VENV:=$SEIF_ROOT/.venv}"                  # made by tools/install.sh, on a file system that every node sees

# The interface that ranks talk over, such as ib0 or eth0. Needed where a node's own name resolves to a loopback address.
: "${SEIF_INTERFACE:=}"

# One thread per rank unless the site says otherwise: ranks share the cores, and waiting threads must not spin.
: "${OMP_NUM_THREADS:=1}"
: "${OMP_WAIT_POLICY:=passive}"

export SEIF_CONTAINER SEIF_CONTAINER_MOUNTS SEIF_VENV SEIF_INTERFACE OMP_NUM_THREADS OMP_WAIT_POLICY
