#!/usr/bin/env bash
# Trains on one machine: one process, which uses all visible GPUs.
#
#   launch/workstation.sh CONFIG WORKDIR [FLAG…]
#   launch/workstation.sh configs/activitynet.py:224 runs/224 --config.data.prepared=data/activitynet …
#
# CUDA_VISIBLE_DEVICES=0,1 selects GPUs, PYTHON another Python. train.batch_size is the total over all
# GPUs. Paths are relative to the repository root. Run the same command to resume.
set -euo pipefail

if (($# < 2)); then
  echo "usage: launch/workstation.sh CONFIG WORKDIR [FLAG…]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ -z ${PYTHON:-} && -x .venv/bin/python ]]; then
  PYTHON=.venv/bin/python
fi
exec "${PYTHON:-python3}" -m sofnet_jax.main --config "$1" --workdir "$2" "${@:3}"
