#!/usr/bin/env bash
#SBATCH --job-name=sofnet
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@300
# Trains as one Slurm job on any number of nodes, which requeues itself until it is finished.
#
#   sbatch [OPTION…] launch/slurm.sh CONFIG WORKDIR [FLAG…]
#   sbatch --nodes=2 --ntasks-per-node=1 --gpus-per-node=4 --cpus-per-task=32 --time=24:00:00 \
#     launch/slurm.sh configs/activitynet.py runs/168 --config.data.prepared=data/activitynet …
#
# Call it from the repository root. As above, one process per node uses all GPUs of its node; with
# --ntasks-per-node=4 --gpus-per-task=1 each process has one. Process I of job J writes to
# WORKDIR/slurm/NAME-J-I.log, Slurm and this script to NAME-J.out. WORKDIR must be on a shared disk.
# PYTHON selects another Python.
#
# Five minutes before the time limit and on preemption, the training saves and ends; when a process or
# a node is lost, it ends. The job is then requeued and resumes from the newest checkpoint, except
# after a user's mistake, after scancel, or when three starts in a row have saved nothing new.
set -euo pipefail

if (($# < 2)) || [[ -z ${SLURM_JOB_ID:-} ]]; then
  echo "usage: sbatch [OPTION…] launch/slurm.sh CONFIG WORKDIR [FLAG…]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}" # Slurm runs a copy of this file
if [[ -z ${PYTHON:-} && -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi
if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not inherit it from sbatch
fi
config=$1 workdir=$2
logs=$workdir/slurm
name=${SLURM_JOB_NAME:-sofnet}-$SLURM_JOB_ID
bad_end='^srun: error: .*tasks? [0-9,-]+: ' # srun's report about a process
mkdir -p "$logs"

say() {
  echo "$(date '+%F %T') job $SLURM_JOB_ID: $*"
}
read_step() { # step of the newest checkpoint; 0 without one
  local step
  step=$(find "$workdir/checkpoints" -maxdepth 1 -name '[1-9]*' -printf '%f\n' 2>/dev/null |
    grep -xE '[0-9]+' | sort -n | tail -n 1) || true
  echo "${step:-0}"
}
read_state() { # RUNNING unless Slurm is ending the job
  squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T || true
}

first=$(read_step)
say "start $((${SLURM_RESTART_COUNT:-0} + 1)) from step $first with ${SLURM_NTASKS:-1} process(es)" \
  "on ${SLURM_JOB_NODELIST:-this node}"
# To end the job, Slurm sends SIGTERM to all processes: to this script, which waits for the others,
# and to the commands that it runs afterwards, which may fail because of it (`|| true`).
trap : TERM
srun --kill-on-bad-exit=1 --open-mode=append --output="$logs/$name-%t.log" \
  "${PYTHON:-python3}" -m sofnet_jax.main --config "$config" --workdir "$workdir" "${@:3}" \
  2>"$logs/$name.srun" &
srun=$!
# srun waits for a lost node until Slurm notices the loss, which takes minutes. A minute after a
# process failed, no process is left on the nodes that answer.
waited=0
while kill -0 "$srun" 2>/dev/null; do
  (trap '' TERM && exec sleep 1) || true
  if grep -qE "$bad_end" "$logs/$name.srun"; then
    waited=$((waited + 1))
    case $waited in
      60)
        say "a node does not answer; no longer waiting for it"
        kill -TERM "$srun" || true
        ;;
      120) kill -KILL "$srun" || true ;;
    esac
  fi
done
code=0
wait "$srun" || code=$?
cat "$logs/$name.srun" >&2 || true
last=$(read_step)

if ((code == 0)); then
  say "finished; the result is in $workdir/result.json"
  exit 0
fi
# The first process that failed is the cause; srun ended the others.
cause=$(sed -nE "s/$bad_end//p" "$logs/$name.srun" | head -n 1) || true
if [[ $cause =~ ^Exited\ with\ exit\ code\ (1|2|130)$ ]]; then
  say "failed at step $last with code ${BASH_REMATCH[1]}, not requeued; see $logs/$name-*.log"
  exit "${BASH_REMATCH[1]}"
fi
if [[ $(read_state) != RUNNING ]]; then
  say "ended by Slurm at step $last"
  exit "$code"
fi
tries=0
if ((last == first)); then
  tries=$(($(cat "$logs/$name.tries" 2>/dev/null || echo 0) + 1))
fi
echo "$tries" >"$logs/$name.tries"
if ((tries == 3)); then
  rm "$logs/$name.tries"
  say "giving up: three starts have saved nothing after step $last; see $logs/$name-*.log"
  exit "$code"
fi
say "requeued at step $last (${cause:-srun ended with code $code})"
scontrol requeue "$SLURM_JOB_ID"
exit "$code"
