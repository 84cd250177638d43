#!/usr/bin/env bash
# Trains on one machine with any number of GPUs: one process, which uses all that it sees.
#
#   launch/workstation.sh CONFIG WORKDIR [FLAG…]
#   launch/workstation.sh configs/activitynet.py:224 runs/224 --config.data.prepared=data/activitynet …
#
# CUDA_VISIBLE_DEVICES=0,1 chooses GPUs, PYTHON another Python. train.batch_size counts the videos
# of all GPUs together. Paths are relative to the root of the repository. The same command again goes
# on where the last one stopped.
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
