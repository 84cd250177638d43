#!/usr/bin/env bash
#SBATCH --job-name=sofnet
#SBATCH --ntasks=1
#SBATCH --output=%x-%A_%a.out
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
# Trains the methods of the paper's tables as a Slurm array job, one run of the sweep per task.
#
#   N=$(launch/sweep.sh CONFIG WORKDIR [FLAG…] --list | wc -l)
#   sbatch --array=0-$((N - 1)) launch/sweep_array.sh CONFIG WORKDIR [FLAG…]
#
# Call it from the repository root, with the same flags in both lines. Options of sbatch before the
# script request the resources of a run: --gpus=1 --cpus-per-task=8 --time=24:00:00. Five minutes
# before its time limit a run saves and ends; run the same command to resume unfinished runs. WORKDIR
# must be on a shared disk. PYTHON selects another Python.
set -euo pipefail

if (($# < 2)) || [[ -z ${SLURM_ARRAY_TASK_ID:-} ]]; then
  echo "usage: sbatch --array=0-\$((N - 1)) launch/sweep_array.sh CONFIG WORKDIR [FLAG…]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}" # Slurm runs a copy of this file
if [[ -z ${PYTHON:-} && -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi
# exec, since the shell would not forward the signal.
exec "${PYTHON:-python3}" -m sofnet_jax.sweep --config "$1" --workdir "$2" "${@:3}" \
  --task "$SLURM_ARRAY_TASK_ID"
