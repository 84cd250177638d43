#!/usr/bin/env bash
#SBATCH --job-name=sofnet
#SBATCH --ntasks=1
#SBATCH --output=%x-%A_%a.out
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
# Trains the methods of the paper's tables as a Slurm array job, a run of the sweep in each task.
#
#   N=$(launch/sweep.sh CONFIG WORKDIR [FLAG…] --list | wc -l)
#   sbatch --array=0-$((N - 1)) launch/sweep_array.sh CONFIG WORKDIR [FLAG…]
#
# From the root of the repository, with the same flags in both lines. Options of sbatch before the
# script ask for what a run needs: --gpus=1 --cpus-per-task=8 --time=24:00:00. Five minutes before its
# time is over a run saves and ends; the same command again goes on with what is not finished, and
# leaves the rest. WORKDIR is on a shared disk. PYTHON is another Python.
set -euo pipefail

if (($# < 2)) || [[ -z ${SLURM_ARRAY_TASK_ID:-} ]]; then
  echo "usage: sbatch --array=0-\$((N - 1)) launch/sweep_array.sh CONFIG WORKDIR [FLAG…]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-$(dirname "${BASH_SOURCE[0]}")/..}" # Slurm runs a copy of this file
if [[ -z ${PYTHON:-} && -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi
# In place of the shell, which would keep the signal to itself.
exec "${PYTHON:-python3}" -m sofnet_jax.sweep --config "$1" --workdir "$2" "${@:3}" \
  --task "$SLURM_ARRAY_TASK_ID"
