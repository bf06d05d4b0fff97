#!/usr/bin/env bash
# Test on several GPUs, or in several processes on a machine without one:
#     bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
# The interpreter is the one that find_python.sh finds; PYTHON names another.
set -euo pipefail

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '/^#!/d; s/^# //p; /^set/q' "$0"
    exit
fi

if [ "$#" -lt 3 ]; then
    echo "dist_test.sh: error: CONFIG, CHECKPOINT and GPUS are expected, got" \
        "$# argument(s):" \
        "bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of test.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
INTERPRETER=$(bash "$TOOLS/find_python.sh")
CONFIG=$1
CHECKPOINT=$2
GPUS=$3
PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
exec "$INTERPRETER" "$TOOLS/launch_processes.py" "$GPUS" \
    "$TOOLS/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
