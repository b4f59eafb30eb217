# shellcheck shell=bash
# Functions of the cluster path: from a Slurm allocation to one process per rank with the environment that
# torch.distributed reads. Sourced after env.sh by batch scripts, and alone by every task.

seif_die() {
  printf 'seif: %s\n' "$*" >&2
  exit 1
}

# The Python that runs the project, as the tasks see it.
seif_python() {
  if [[ -n $SEIF_CONTAINER ]]; then
    printf 'python'
  elif [[ -x $SEIF_VENV/bin/python ]]; then
    printf '%s' "$SEIF_VENV/bin/python"
  else
    seif_die "no Python in SEIF_VENV=$SEIF_VENV. Run tools/install.sh first, or set SEIF_CONTAINER to an image"
  fi
}

# The address of the first node of the allocation, where rank 0 runs: the one that Slurm itself uses (NodeAddr), not what
# the name service says, which on a node is often the loopback address for the node's own name.
seif_master_address() {
  local nodes first description
  nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST") || return
  first=${nodes%%$'\n'*}
  description=$(scontrol show node --oneliner "$first") || return
  [[ $description =~ (^|[[:space:]])NodeAddr=([^[:space:]]+) ]] && first=${BASH_REMATCH[2]}
  printf '%s' "$first"
}

# A port that follows from the job's number, so that jobs on one node do not meet; below the ports that Linux gives away.
seif_master_port() { printf '%d' $((15000 + SLURM_JOB_ID % 15000)); }

# seif_srun COMMAND…: COMMAND once per task of the allocation. Returns its exit code; one failing task ends all.
seif_srun() {
  local flags=(--kill-on-bad-exit=1 --export=ALL)
  MASTER_ADDR=$(seif_master_address) || seif_die "scontrol does not know the nodes $SLURM_JOB_NODELIST"
  MASTER_PORT=$(seif_master_port)
  export SEIF_ROOT MASTER_ADDR MASTER_PORT PYTHONUNBUFFERED=1
  # srun does not take this over from the allocation by itself (Slurm 22.05 and newer).
  [[ -z ${SLURM_CPUS_PER_TASK:-} ]] || flags+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")
  if [[ -n $SEIF_CONTAINER ]]; then
    flags+=(--container-image="$SEIF_CONTAINER" --container-mounts="$SEIF_CONTAINER_MOUNTS" --container-workdir="$SEIF_ROOT")
  fi
  # shellcheck disable=SC2016 # expanded by the task's own shell
  srun "${flags[@]}" bash -c 'source "$SEIF_ROOT/slurm/lib.sh" && seif_task "$@"' seif_task "$@"
}

# Runs in each task: Slurm's numbering becomes torch's, then the command takes the process over.
seif_task() {
  export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
  # Where Slurm shows each task only its own GPU (--gpus-per-task), that one is device 0.
  if [[ -n ${CUDA_VISIBLE_DEVICES:-} && $CUDA_VISIBLE_DEVICES != *,* ]]; then
    LOCAL_RANK=0
  fi
  if [[ -n ${SEIF_INTERFACE:-} ]]; then
    export GLOO_SOCKET_IFNAME=$SEIF_INTERFACE NCCL_SOCKET_IFNAME=$SEIF_INTERFACE
  fi
  exec "$@"
}
