#!/usr/bin/env bash
# Trains the methods of the paper's tables on one machine, one run after another.
#
#   launch/sweep.sh CONFIG WORKDIR [FLAG…]
#   launch/sweep.sh configs/synthetic.py runs/sweep --methods=table4 --seeds=0,1,2
#
# A run writes to WORKDIR/METHOD/seed_N. --jobs=N trains N at a time, which share the CPU cores;
# --list shows the state of each run. CUDA_VISIBLE_DEVICES=0,1 selects GPUs, PYTHON another Python.
# Paths are relative to the repository root. Run the same command to resume.
set -euo pipefail

if (($# < 2)); then
  echo "usage: launch/sweep.sh CONFIG WORKDIR [FLAG…]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${PYTHON:-} && -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi
exec "${PYTHON:-python3}" -m sofnet_jax.sweep --config "$1" --workdir "$2" "${@:3}"
