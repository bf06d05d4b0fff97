#!/usr/bin/env bash
# Train on several GPUs, or in several processes on a machine without one:
#     bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# On several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
# PYTHON sets the interpreter (default: see find_python.sh).
REQUIRED='CONFIG GPUS'
source "$(dirname "$0")/launcher.sh"
run_processes "$2" train.py "$1" --launcher pytorch "${@:3}"
