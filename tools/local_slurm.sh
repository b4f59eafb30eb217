#!/usr/bin/env bash
# A real Slurm on one machine: munge, slurmctld and N slurmd "nodes", each in namespaces of its own.
#
#   tools/local_slurm.sh up           start the cluster
#   tools/local_slurm.sh run CMD…     run CMD against it (sbatch, squeue, a script …) and return its exit code;
#                                     starts a cluster for the time of the command if none is up
#   tools/local_slurm.sh crash N      node N loses power: all its processes die at once
#   tools/local_slurm.sh start N      node N boots again
#   tools/local_slurm.sh cut N        node N loses its network, its processes go on
#   tools/local_slurm.sh uncut N      node N is back on the network
#   tools/local_slurm.sh down         stop everything and remove what was made
#
# A node is a process group with its own hostname (node1 …), network address, process list, IPC and /dev/shm; the file
# system is shared, as on a cluster. Nodes hang on a bridge on this machine, which is the login and controller host.
# Needs root and the packages slurm-wlm munge iproute2 (seen working on Debian 12, Slurm 22.05); no systemd, no cgroups.
# To leave nothing behind even when the caller is killed, run a whole session in namespaces:
#   unshare --net --mount --pid --fork --mount-proc --kill-child tools/local_slurm.sh run CMD…
#
# Environment
#   LOCAL_SLURM_DIR     folder for state, logs and keys; made by `up`, removed by `down`; in a place that every user may
#                       enter (default /tmp/seif_nemo_slurm)
#   LOCAL_SLURM_NODES   number of nodes (default 2)
#   LOCAL_SLURM_CPUS    CPUs that each node offers, whatever the machine has (default 4)
#   LOCAL_SLURM_NET     first three bytes of the nodes' network (default 10.77.0)
set -euo pipefail

SELF=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)/$(basename -- "${BASH_SOURCE[0]}")
DIR=${LOCAL_SLURM_DIR:-/tmp/seif_nemo_slurm}
NODES=${LOCAL_SLURM_NODES:-2}
CPUS=${LOCAL_SLURM_CPUS:-4}
NET=${LOCAL_SLURM_NET:-10.77.0}
BRIDGE=seifbr0
PATH=$PATH:/usr/sbin:/sbin
export SLURM_CONF=$DIR/slurm.conf

say() { printf 'local_slurm: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
address() { printf '%s.%d' "$NET" $((10 + $1)); }

# wait_for SECONDS COMMAND…: polls until the command succeeds.
wait_for() {
  local deadline=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || { say "still failing after $1 s: ${*:2}"; return 1; }
    sleep 0.1
  done
}

# A process is known by its pid and its start time, so that a recycled pid is never taken for it.
start_time() {
  local text fields
  text=$(<"/proc/$1/stat") && read -ra fields <<<"${text##*) }"
  [[ ${fields[0]} != Z ]] && printf '%s' "${fields[19]}"
}
recorded() { [[ -f $DIR/pids/$1 ]] && read -r pid started <"$DIR/pids/$1"; }
running() { local pid started; recorded "$1" && [[ -n $started && $(start_time "$pid" 2>/dev/null) == "$started" ]]; }
gone() { ! running "$1"; }

# launch NAME COMMAND…: a daemon in a session of its own, its output in logs/NAME.
launch() {
  setsid "${@:2}" >>"$DIR/logs/$1" 2>&1 </dev/null &
  printf '%s %s\n' "$!" "$(start_time $! 2>/dev/null)" >"$DIR/pids/$1" # no time: it has ended already
}

# stop NAME: asks it to end, and ends it when it does not within ten seconds.
stop() {
  local pid started
  if running "$1"; then
    recorded "$1"
    kill -TERM "$pid" 2>/dev/null || :
    wait_for 10 gone "$1" || kill -KILL "$pid" 2>/dev/null || :
  fi
  rm -f "$DIR/pids/$1"
}

check_machine() {
  local program missing=()
  [[ $(id -u) == 0 ]] || die "needs root (namespaces, a network bridge); this is user $(id -un)"
  for program in slurmctld slurmd scontrol munged ip unshare; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  ((${#missing[@]} == 0)) || die "missing: ${missing[*]}. On Debian or Ubuntu: apt-get install slurm-wlm munge iproute2"
}

check_node() { if ! [[ ${1:-} =~ ^[1-9][0-9]*$ ]] || (($1 > NODES)); then die "node '${1:-}' must be a number from 1 to $NODES"; fi; }
check_up() { running slurmctld || die "no cluster is up in $DIR"; }

write_configuration() {
  local node host
  host=$(hostname -s)
  (umask 077 && head -c 1024 /dev/urandom >"$DIR/munge.key")
  cat >"$SLURM_CONF" <<END
ClusterName=local
SlurmctldHost=$host($NET.1)
SlurmctldPort=16817
SlurmUser=root
AuthInfo=socket=$DIR/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/%n.pid
SlurmctldLogFile=$DIR/logs/slurmctld.log
SlurmdLogFile=$DIR/logs/%n.log
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
KillWait=5
MinJobAge=3600
MailProg=/bin/true
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
PartitionName=main Nodes=ALL Default=YES DefaultTime=10 MaxTime=60
END
  printf '127.0.0.1 localhost\n%s.1 %s\n' "$NET" "$host" >"$DIR/hosts"
  for ((node = 1; node <= NODES; node++)); do
    printf '%s node%d\n' "$(address "$node")" "$node" >>"$DIR/hosts"
    printf 'NodeName=node%d NodeAddr=%s Port=%d CPUs=%d RealMemory=4000\n' "$node" "$(address "$node")" $((17000 + node)) "$CPUS" >>"$SLURM_CONF"
  done
}

# The first process of a node, in its own namespaces. Ends with its slurmd, and takes it along when asked to end.
node_main() {
  local slurmd
  hostname "node$1"
  mount --make-rprivate /
  mount -t proc proc /proc
  mount -t tmpfs tmpfs /dev/shm
  mount --bind "$DIR/hosts" /etc/hosts
  ip link set lo up
  wait_for 10 ip link show eth0
  ip address add "$(address "$1")/24" dev eth0
  ip link set eth0 up
  slurmd -D -N "node$1" &
  slurmd=$!
  trap 'kill -TERM "$slurmd"' TERM
  wait "$slurmd" || :
  wait "$slurmd" # the first wait returns early when the trap runs
}

has_own_network() { [[ $(readlink "/proc/$1/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }
node_is() { [[ " $3 " == *" $(sinfo --noheader --nodes="node$1" --format=%T) "* ]]; }

start_node() { # node
  local pid started
  gone "node$1" || die "node$1 is running already"
  mkdir -p "$DIR/spool/node$1"
  # unshare holds the network namespace; its child is process 1 of the node and dies with it.
  launch "node$1" unshare --net --uts --ipc --pid --mount --fork --kill-child bash "$SELF" node-main "$1"
  recorded "node$1"
  wait_for 5 has_own_network "$pid"
  ip link add "seif$1" type veth peer name eth0 netns "$pid"
  ip link set "seif$1" master "$BRIDGE" up
}

stop_node() { # node
  local pid started child
  if running "node$1"; then
    recorded "node$1"
    child=$(pgrep -P "$pid" || :)
    [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || :
    wait_for 10 gone "node$1" || kill -KILL "$pid" 2>/dev/null || :
  fi
  rm -f "$DIR/pids/node$1"
}

controller_decided() { gone slurmctld || scontrol ping | grep -q UP; }

check_free() {
  gone slurmctld || die "a cluster is up in $DIR already"
  [[ ! -e $DIR ]] || die "$DIR exists. If it is a cluster that was not taken down: $SELF down"
}

up() {
  local node
  mkdir -p "$DIR"/{logs,pids,spool,state}
  write_configuration
  ip link set lo up
  ip link add "$BRIDGE" type bridge
  ip address add "$NET.1/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  launch munged munged --foreground --key-file="$DIR/munge.key" --socket="$DIR/munge.socket" --pid-file="$DIR/munged.pid" \
    --log-file="$DIR/logs/munged.log" --seed-file="$DIR/munge.seed"
  wait_for 10 test -S "$DIR/munge.socket"
  launch slurmctld slurmctld -D
  wait_for 20 controller_decided
  running slurmctld || { tail -n 5 "$DIR/logs/slurmctld" "$DIR/logs/slurmctld.log" >&2 || :; die "slurmctld did not start"; }
  for ((node = 1; node <= NODES; node++)); do start_node "$node"; done
  for ((node = 1; node <= NODES; node++)); do wait_for 20 node_is "$node" is "idle mixed allocated"; done
  say "up: $NODES nodes; export SLURM_CONF=$SLURM_CONF"
}

queue_is_empty() { [[ -z $(timeout 5 squeue --noheader) ]]; }

down() {
  local file node stopping=()
  [[ ! -e $DIR || -d $DIR/pids ]] || die "$DIR is not the folder of a local cluster"
  if running slurmctld; then
    timeout 5 scancel --user=root || :
    wait_for 15 queue_is_empty || :
  fi
  for file in "$DIR"/pids/node*; do
    node=${file##*/node}
    [[ -e $file ]] || continue
    stop_node "$node" &
    stopping+=("$!")
  done
  ((${#stopping[@]} == 0)) || wait "${stopping[@]}"
  stop slurmctld
  stop munged
  ! ip link show "$BRIDGE" >/dev/null 2>&1 || ip link delete "$BRIDGE"
  rm -rf "$DIR"
}

crash() {
  local pid started
  gone "node$1" && die "node$1 is not running"
  recorded "node$1"
  kill -KILL "$pid"
  wait_for 5 gone "node$1"
  rm -f "$DIR/pids/node$1"
}

run_command() {
  (($# > 0)) || die "run: name a command"
  if gone slurmctld; then
    check_free
    trap down EXIT
    up
  fi
  "$@"
}

usage() { sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$SELF"; }

main() {
  local verb=${1:-help}
  shift || :
  case $verb in
    up)
      check_machine
      check_free
      trap down EXIT # a start that fails leaves nothing
      up
      trap - EXIT
      ;;
    down) check_machine; down ;;
    run) check_machine; run_command "$@" ;;
    start) check_up; check_node "${1:-}"; start_node "$1" ;;
    crash) check_up; check_node "${1:-}"; crash "$1" ;;
    cut) check_up; check_node "${1:-}"; ip link set "seif$1" down ;;
    uncut) check_up; check_node "${1:-}"; ip link set "seif$1" up ;;
    node-main) node_main "$1" ;;
    -h | --help | help) usage ;;
    *) usage >&2; die "unknown command '$verb'" ;;
  esac
}

main "$@"
