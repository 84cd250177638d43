#!/usr/bin/env bash
# Trains on a TPU pod slice: one process per worker, which systemd restarts.
#
#   export TPU=sofnet ZONE=us-central2-b TYPE=v4-16 SHARE=10.0.0.2:/sofnet
#   launch/tpu_pod.sh create                        # create the slice and wait for it
#   launch/tpu_pod.sh install                       # install this commit on every worker
#   launch/tpu_pod.sh train CONFIG WORKDIR [FLAG…]  # in the background
#   launch/tpu_pod.sh status | logs [WORKER] | stop | delete
#   launch/tpu_pod.sh keep CONFIG WORKDIR [FLAG…]   # create, install and train, and repeat after
#                                                   # each preemption until the run has ended
#
# SHARE is an NFS export (Filestore) that workers mount at /mnt/share; WORKDIR and the data must be
# there, since preemption deletes the slice's disks. SPOT=1 requests a spot slice, QUEUED=1 a queued
# resource of the same name; RUNTIME and PROJECT override the runtime version and the project.
# DRY_RUN=1 only prints the commands. Needs gcloud, logged in, and its key in ssh-add.
set -euo pipefail

usage() {
  sed -n '3,10s/^# \{0,3\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}
fail() {
  echo "error: $1" >&2
  exit 1
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."
verb=${1:-}
[[ -n $verb ]] || usage
shift
for name in TPU ZONE; do
  [[ -n ${!name:-} ]] || fail "$name is not set; see the head of launch/tpu_pod.sh"
done
readonly UNIT=sofnet SHARED=/mnt/share
readonly HOW_IT_IS="systemctl show --value --property=SubState $UNIT"
readonly REFUSE_WHILE_RUNNING="case \$($HOW_IT_IS) in
dead | failed | exited) ;;
*) echo 'a run is active; stop it first' >&2 && exit 1 ;;
esac"
place=("--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"})

run() { # runs a command, or prints it in a dry run
  [[ ${DRY_RUN:-} ]] || {
    "$@"
    return
  }
  local word
  for word; do
    [[ $word =~ ^[-A-Za-z0-9_.,:/=@]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    printf '%s ' "$word"
  done
  echo
}

on() { # WORKER SCRIPT: runs a shell script on a worker, or on all
  run gcloud compute tpus tpu-vm ssh "$TPU" "${place[@]}" "--worker=$1" "--command=$2"
}

default_runtime() {
  case $TYPE in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) echo tpu-ubuntu2204-base ;;
  esac
}

state() { # of the slice or its queued resource: READY, ACTIVE, PREEMPTED, …; "" if there is none
  if [[ ${QUEUED:-} ]]; then
    run gcloud compute tpus queued-resources describe "$TPU" "${place[@]}" \
      '--format=value(state.state)' 2>/dev/null || true
  else
    run gcloud compute tpus tpu-vm describe "$TPU" "${place[@]}" \
      '--format=value(state)' 2>/dev/null || true
  fi
}

create() {
  [[ -n ${TYPE:-} ]] || fail "TYPE is not set; give e.g. v4-16"
  local runtime=${RUNTIME:-$(default_runtime)} now
  if [[ -z ${QUEUED:-} ]]; then
    run gcloud compute tpus tpu-vm create "$TPU" "${place[@]}" "--accelerator-type=$TYPE" \
      "--version=$runtime" ${SPOT:+--spot}
    return
  fi
  run gcloud compute tpus queued-resources create "$TPU" "${place[@]}" "--node-id=$TPU" \
    "--accelerator-type=$TYPE" "--runtime-version=$runtime" ${SPOT:+--spot}
  if [[ ${DRY_RUN:-} ]]; then
    state
    return
  fi
  until now=$(state) && [[ $now == ACTIVE ]]; do
    [[ $now != FAILED && $now != SUSPEND* ]] || fail "the queued resource $TPU is $now"
    echo "$(date +%T) the queued resource $TPU is ${now:-unknown}" >&2
    sleep 60
  done
}

install() {
  [[ -n ${SHARE:-} ]] || fail "SHARE is not set; give the host:/path of an NFS export"
  local archive commit
  archive=$(mktemp --suffix=.tar.gz)
  commit=$(git describe --always --exclude='*')
  git diff --quiet HEAD || echo "uncommitted changes are not installed; workers get $commit" >&2
  git archive --format=tar.gz --output="$archive" HEAD
  run gcloud compute tpus tpu-vm scp "$archive" "$TPU:sofnet.tar.gz" "${place[@]}" --worker=all
  rm "$archive"
  # The image's Python is too old; uv installs one. One package has no wheel and is built with the
  # pinned setuptools.
  on all "set -e
$REFUSE_WHILE_RUNNING
rm -rf sofnet
mkdir sofnet
tar -xzf sofnet.tar.gz -C sofnet
cd sofnet
echo SOFNET_COMMIT=$commit >commit.env
python3 -m pip install --quiet --user 'uv<1'
uv=\$HOME/.local/bin/uv
\$uv venv --quiet --python 3.12
\$uv pip install --quiet --require-hashes --build-constraints launch/requirements-build.lock \
-r launch/requirements-tpu.lock
sudo apt-get install -qq -y nfs-common >/dev/null
sudo mkdir -p $SHARED
mountpoint -q $SHARED || sudo mount -t nfs $(printf %q "$SHARE") $SHARED"
}

train() {
  (($# >= 2)) || usage
  [[ $2 == "$SHARED"/* ]] || fail "WORKDIR is $2; it must be below $SHARED, which all workers see"
  # Processes that end because another one died restart after a while and reconnect; after exit code
  # 1, a mistake, they do not restart.
  on all "$REFUSE_WHILE_RUNNING
sudo systemctl stop $UNIT 2>/dev/null
sudo systemctl reset-failed $UNIT 2>/dev/null
sudo systemd-run --quiet --unit=$UNIT --uid=\$(id -u) --remain-after-exit \
--working-directory=\$HOME/sofnet --property=EnvironmentFile=\$HOME/sofnet/commit.env \
--setenv=JAX_COMPILATION_CACHE_DIR=$SHARED/.cache/xla --setenv=PYTHONUNBUFFERED=1 \
--property=Restart=on-failure --property=RestartSec=10 --property=RestartPreventExitStatus=1 \
--property=StartLimitIntervalSec=0 --property=KillMode=mixed --property=TimeoutStopSec=600 \
--property=LimitMEMLOCK=infinity \
\$HOME/sofnet/.venv/bin/python -m sofnet_jax.main $(printf '%q ' --config "$1" --workdir "${@:2}")"
}

delete() {
  if [[ ${QUEUED:-} ]]; then
    run gcloud compute tpus queued-resources delete "$TPU" "${place[@]}" --force --quiet
  else
    run gcloud compute tpus tpu-vm delete "$TPU" "${place[@]}" --quiet
  fi
}

keep() {
  (($# >= 2)) || usage
  local outcome
  if [[ ${DRY_RUN:-} ]]; then
    create
    install
    train "$@"
    return
  fi
  while true; do
    case $(state) in
      READY | ACTIVE) ;;
      "") create ;;
      PREEMPTED | TERMINATED | SUSPEND* | FAILED) # it will not come back
        delete
        create
        ;;
      *) sleep 60 && continue ;;
    esac
    outcome=$(on 0 "$HOW_IT_IS") || outcome=""
    case $outcome in
      exited) echo "the run has ended" && return ;;
      failed) fail "the run has failed; see launch/tpu_pod.sh logs" ;;
      dead) install && train "$@" ;;
    esac
    sleep 60
  done
}

case $verb in
  create | install | train | delete | keep) "$verb" "$@" ;;
  status) state && on all "$HOW_IT_IS" ;; # running, exited (all done), failed, or dead (none)
  logs) on "${1:-0}" "journalctl --unit=$UNIT --output=cat --lines=50 --follow" ;;
  stop) on all "sudo systemctl stop $UNIT" ;; # saves first
  *) usage ;;
esac
