#!/usr/bin/env bash
# Train on several GPUs, or in several processes on a machine without one:
#     bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
# The interpreter is the one that find_python.sh finds; PYTHON names another.
set -euo pipefail

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '/^#!/d; s/^# //p; /^set/q' "$0"
    exit
fi

if [ "$#" -lt 2 ]; then
    echo "dist_train.sh: error: CONFIG and GPUS are expected, got $# argument(s):" \
        "bash tools/dist_train.sh CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
INTERPRETER=$(bash "$TOOLS/find_python.sh")
CONFIG=$1
GPUS=$2
PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
exec "$INTERPRETER" "$TOOLS/launch_processes.py" "$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
