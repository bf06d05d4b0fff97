#!/usr/bin/env bash
# Train on several GPUs, or in several processes on a machine without one:
#     bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
# PYTHON names the interpreter (default: python).
set -euo pipefail

if [ "$#" -lt 2 ]; then
    echo "dist_train.sh: error: CONFIG and GPUS are expected, got $# argument(s):" \
        "bash tools/dist_train.sh CONFIG GPUS [options of train.py]" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
CONFIG=$1
GPUS=$2
PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
exec "${PYTHON:-python}" "$TOOLS/launch_processes.py" "$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
