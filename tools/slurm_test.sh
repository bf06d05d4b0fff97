#!/usr/bin/env bash
# Test on a Slurm cluster, one process per GPU:
#     GPUS=16 bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT \
#         [options of tools/test.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS come from the environment.
# The interpreter is the one that find_python.sh finds; PYTHON names another.
set -euo pipefail

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '/^#!/d; s/^# //p; /^set/q' "$0"
    exit
fi

if [ "$#" -lt 4 ]; then
    echo "slurm_test.sh: error: PARTITION, JOB_NAME, CONFIG and CHECKPOINT are" \
        "expected, got $# argument(s)" >&2
    exit 2
fi
if ! command -v srun >/dev/null; then
    echo "slurm_test.sh: error: srun is not on the PATH; without Slurm use" \
        "tools/dist_test.sh" >&2
    exit 2
fi
TOOLS=$(cd "$(dirname "$0")" && pwd)
INTERPRETER=$(bash "$TOOLS/find_python.sh")
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
read -ra EXTRA <<<"${SRUN_ARGS:-}"

PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}" \
exec srun -p "$1" \
    --job-name="$2" \
    --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${EXTRA[@]+"${EXTRA[@]}"} \
    "$INTERPRETER" -u "$TOOLS/test.py" "$3" "$4" \
    --launcher=slurm "${@:5}"
