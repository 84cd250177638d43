#!/usr/bin/env bash
# Runs N processes on this machine as if on N machines, to try multi-machine runs on a CPU.
#
#   launch/processes.sh N CONFIG WORKDIR [FLAG…]
#   launch/processes.sh 2 configs/synthetic.py runs/two
#
# Process I writes to WORKDIR/process-I.log. If one fails, the others get SIGTERM, after 20 seconds
# SIGKILL, and its exit code is returned. SIGINT and SIGTERM are forwarded to all as SIGTERM. Paths
# are relative to the repository root. PORT (12355) is the coordinator's; PYTHON selects another
# Python. Needs bash 5.1.
set -euo pipefail

if (($# < 3)) || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/processes.sh N CONFIG WORKDIR [FLAG…]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${PYTHON:-} && -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi
count=$1 config=$2 workdir=$3
mkdir -p "$workdir"

declare -A running=() # process id -> index in the run
timer='' code=0
signal_all() {
  ((${#running[@]} == 0)) || kill "-$1" "${!running[@]}" 2>/dev/null || true
}
begin_end() { # once: a second signal would interrupt the response to the first
  [[ -z $timer ]] || return 0
  signal_all TERM
  sleep "$1" &
  timer=$!
}
trap 'begin_end 600' INT TERM # seconds: saving a checkpoint may take long

for ((i = 0; i < count; i++)); do
  JAX_COORDINATOR_ADDRESS=127.0.0.1:${PORT:-12355} JAX_NUM_PROCESSES=$count JAX_PROCESS_ID=$i \
    "${PYTHON:-python3}" -m sofnet_jax.main --config "$config" --workdir "$workdir" "${@:4}" \
    >"$workdir/process-$i.log" 2>&1 &
  running[$!]=$i
done

while ((${#running[@]})); do
  status=0
  wait -n -p ended "${!running[@]}" ${timer:+"$timer"} || status=$?
  if [[ -z ${ended:-} ]]; then # a signal came; the trap handled it
    continue
  elif [[ $ended == "$timer" ]]; then
    signal_all KILL
    continue
  fi
  number=${running[$ended]}
  unset "running[$ended]"
  if ((status && !code)); then
    code=$status
    echo "process $number ended with code $code; see $workdir/process-$number.log" >&2
    begin_end 20
  fi
done
[[ -z $timer ]] || kill "$timer" 2>/dev/null || true
exit "$code"
