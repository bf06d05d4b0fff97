#!/usr/bin/env bash
# Train on a Slurm cluster, one process per GPU:
#     GPUS=16 bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR \
#         [options of tools/train.py]
# Environment: GPUS (default: 8), GPUS_PER_NODE, CPUS_PER_TASK (5), SRUN_ARGS.
# PYTHON sets the interpreter (default: see find_python.sh).
REQUIRED='PARTITION JOB_NAME CONFIG WORK_DIR'
source "$(dirname "$0")/launcher.sh"
run_slurm "$1" "$2" train.py "$3" --work-dir="$4" --launcher=slurm "${@:5}"
