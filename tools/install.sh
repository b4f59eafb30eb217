#!/usr/bin/env bash
# Makes the virtual environment of this checkout: PyTorch for this machine, megatron-core, the project (editable), its test tools.
#
#   bash tools/install.sh
#
# Needs Python 3.11 or newer with the venv module and a package registry that pip can reach. Sets nothing outside the checkout.
# A second run with an unchanged pyproject.toml returns at once. Two runs at the same time wait for each other.
#
# Environment
#   PYTHON            interpreter to build the environment with (default: the first of python3, python3.13 … python3.11 that is new enough)
#   SEIF_VENV         folder of the environment (default: .venv in the checkout); an existing environment is used as it is
#   TORCH_INDEX_URL   package index to take torch from, for sites with a mirror or another CUDA version
set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=${SEIF_VENV:-$ROOT/.venv}
STAMP=$VENV/.seif_nemo_installed
TORCH_TESTED=torch==2.13.0                                # what the tests ran with; pyproject.toml holds the range that is accepted
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu      # PyTorch's documented home of builds without CUDA
ATTEMPTS=3

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Runs a command up to ATTEMPTS times, for registries and networks that fail now and then.
retry() {
  local attempt
  for ((attempt = 1; attempt <= ATTEMPTS; attempt++)); do
    "$@" && return
    ((attempt == ATTEMPTS)) || { say "failed (attempt $attempt of $ATTEMPTS), trying again: $*"; sleep $((5 * attempt)); }
  done
  return 1
}

new_enough() { "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local candidate
  if [[ -n ${PYTHON:-} ]]; then
    new_enough "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.11 or newer ($("$PYTHON" --version 2>&1 || :))"
    printf '%s\n' "$PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
      command -v "$candidate"
      return
    fi
  done
  die "needs Python 3.11 or newer, found $(python3 --version 2>&1 || echo none). Install one or name it: PYTHON=/path/to/python3.11 bash tools/install.sh"
}

# Holds a lock file until this script ends. The lock belongs to the open file, so it outlives the short Python that takes it.
lock() {
  mkdir -p "$ROOT/.cache"
  exec 9>"$ROOT/.cache/install.lock"
  "$1" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null && return
  say "another install of this checkout is running, waiting for it"
  "$1" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
}

# What the environment was made from: this script, pyproject.toml, the place of the checkout (an editable install points at it).
fingerprint() {
  { printf '%s\n%s\n' "$ROOT" "${TORCH_INDEX_URL:-}"; cat "$ROOT/pyproject.toml" "$ROOT/tools/install.sh"; } |
    "$1" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

has_module() { "$1" -c 'import importlib.util as u, sys; raise SystemExit(u.find_spec(sys.argv[1]) is None)' "$2" 2>/dev/null; }
has_cuda_torch() { has_module "$1" torch && "$1" -c 'import torch; raise SystemExit(torch.version.cuda is None)' 2>/dev/null; }
has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }

make_venv() { # python
  local flags=()
  if [[ -e $VENV ]]; then
    new_enough "$VENV/bin/python" || die "$VENV is not a working Python 3.11 environment. Remove the folder, or choose another with SEIF_VENV"
    say "using the environment in $VENV"
    return
  fi
  has_module "$1" ensurepip || die "$1 has no venv module (Debian, Ubuntu: apt-get install python3-venv)"
  if has_cuda_torch "$1"; then
    say "the machine's Python has a PyTorch with CUDA: keeping it and everything beside it"
    flags=(--system-site-packages)
  fi
  say "making $VENV with $("$1" --version)"
  "$1" -m venv "${flags[@]}" "$VENV"
}

pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

# True where installing this torch would bring CUDA packages of several gigabytes. Asks pip for its plan and downloads nothing but metadata.
drags_in_cuda() {
  local plan
  plan=$(pip install --dry-run --ignore-installed --quiet --report - "$1") || return 2
  printf '%s' "$plan" | "$VENV/bin/python" -c '
import json, sys
names = [item["metadata"]["name"].lower() for item in json.load(sys.stdin)["install"]]
raise SystemExit(not any(name.startswith(("nvidia-", "cuda-", "triton")) for name in names))'
}

install_torch() {
  if has_module "$VENV/bin/python" torch; then
    say "keeping torch $("$VENV/bin/python" -c 'import torch; print(torch.__version__)')"
  elif [[ -n ${TORCH_INDEX_URL:-} ]]; then
    say "installing torch from TORCH_INDEX_URL"
    retry pip install --quiet "torch>=2.6" --index-url "$TORCH_INDEX_URL"
  elif has_gpu; then
    say "installing torch with CUDA (this machine has an NVIDIA GPU)"
    retry pip install --quiet "torch>=2.6"
  else
    install_cpu_torch
  fi
}

install_cpu_torch() {
  local status=0
  drags_in_cuda "$TORCH_TESTED" || status=$?
  case $status in
    1) say "installing $TORCH_TESTED for the CPU"
       retry pip install --quiet "$TORCH_TESTED" ;;
    0) say "installing $TORCH_TESTED for the CPU from PyTorch's index (the registry's build brings CUDA packages)"
       retry pip install --quiet "$TORCH_TESTED" --index-url "$TORCH_CPU_INDEX" || {
         say "PyTorch's index did not answer: installing the registry's build, which brings several gigabytes of CUDA packages"
         retry pip install --quiet "$TORCH_TESTED"
       } ;;
    *) say "the registry has no $TORCH_TESTED for this Python: taking what it has"
       retry pip install --quiet "torch>=2.6" ;;
  esac
}

# Where the environment shows the machine's own packages (an NVIDIA container), only what is missing is added: its megatron-core,
# Transformer Engine and apex are built for its CUDA and must stay.
install_project() {
  local missing
  if grep -qi '^include-system-site-packages *= *true' "$VENV/pyvenv.cfg" && has_module "$VENV/bin/python" megatron.core; then
    mapfile -t missing < <("$VENV/bin/python" "$ROOT/tools/missing_requirements.py" --extra dev)
    say "installing the project beside the machine's packages; missing: ${missing[*]:-none}"
    ((${#missing[@]} == 0)) || retry pip install --quiet "${missing[@]}" || return
    retry pip install --quiet --no-deps --editable "$ROOT"
  else
    say "installing the project with its test tools"
    retry pip install --quiet --editable "${ROOT}[dev]"
  fi
}

main() {
  local python wanted
  python=$(find_python)
  lock "$python"
  wanted=$(fingerprint "$python")
  if [[ -f $STAMP && $(<"$STAMP") == "$wanted" ]] && new_enough "$VENV/bin/python"; then
    return
  fi
  make_venv "$python"
  rm -f "$STAMP"
  install_torch || die "could not install torch"
  install_project || die "could not install the project"
  printf '%s\n' "$wanted" >"$STAMP"
  say "done: $VENV"
}

main "$@"
