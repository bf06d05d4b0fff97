#!/usr/bin/env bash
# Test on several GPUs, or in several processes on a machine without one:
#     bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# On several machines, set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
# PYTHON sets the interpreter (default: see find_python.sh).
REQUIRED='CONFIG CHECKPOINT GPUS'
source "$(dirname "$0")/launcher.sh"
run_processes "$3" test.py "$1" "$2" --launcher pytorch "${@:4}"
