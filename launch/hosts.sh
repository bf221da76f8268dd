#!/usr/bin/env bash
# Starts one process of a job on each host of a bare list, by ssh, and stops all when one fails. Stopped by SIGINT or
# SIGTERM, it hangs up: a run that trains saves and leaves.
#
#   launch/hosts.sh host0,host1,host2,host3 train --config configs/siglip.py:B/16 --workdir /shared/siglip
#
# Process 0 runs on the first host, which the others must reach at PORT (7000). Every host has mmjax in the same
# folder, and the command that enters its environment in SETUP:
#
#   SETUP='source ~/venv/bin/activate' PORT=7001 launch/hosts.sh ...
set -euo pipefail

if [ $# -lt 2 ]; then
  sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
IFS=, read -ra hosts <<< "$1"
shift
port=${PORT:-7000}
here=$(pwd)

processes=()
stop() { kill "${processes[@]}" 2> /dev/null || true; }
trap stop EXIT INT TERM
for index in "${!hosts[@]}"; do
  command=$(printf '%q ' python -m mmjax "$@" --coordinator "${hosts[0]}:$port" --num-processes "${#hosts[@]}" --process-id "$index")
  ssh -tt "${hosts[$index]}" "cd $(printf '%q' "$here") && ${SETUP:-true} && exec $command" < /dev/null \
    > >(sed -u "s/^/[${hosts[$index]}] /") 2>&1 &
  processes+=($!)
done
for _ in "${hosts[@]}"; do
  wait -n || exit $?
done
