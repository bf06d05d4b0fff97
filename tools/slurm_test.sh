#!/usr/bin/env bash
# Test on a Slurm cluster, one process per GPU:
#     GPUS=16 bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT \
#         [options of tools/test.py]
# Environment: GPUS (default: 8), GPUS_PER_NODE, CPUS_PER_TASK (5), SRUN_ARGS.
# PYTHON sets the interpreter (default: see find_python.sh).
REQUIRED='PARTITION JOB_NAME CONFIG CHECKPOINT'
source "$(dirname "$0")/launcher.sh"
run_slurm "$1" "$2" test.py "$3" "$4" --launcher=slurm "${@:5}"
