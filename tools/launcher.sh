# Shared by dist_*.sh and slurm_*.sh, which name their arguments in REQUIRED.
set -euo pipefail
NAME=$(basename "$0")
TOOLS=$(cd "$(dirname "$0")" && pwd)

fail() {
    echo "$NAME: error: $*; --help shows the usage" >&2
    exit 2
}

if [[ ${1:-} == -h || ${1:-} == --help ]]; then
    sed -n '/^#!/d; /^[^#]/q; s/^# //p' "$0"
    exit
fi
[[ $# -ge $(wc -w <<<"$REQUIRED") ]] || fail "expected $REQUIRED, got $# argument(s)"
export PYTHONPATH="$TOOLS/..${PYTHONPATH:+:$PYTHONPATH}"

# run_processes GPUS TOOL ARGUMENTS...
run_processes() {
    local python
    python=$(bash "$TOOLS/find_python.sh")
    exec "$python" "$TOOLS/launch_processes.py" "$1" "$TOOLS/$2" "${@:3}"
}

# run_slurm PARTITION JOB_NAME TOOL ARGUMENTS...
run_slurm() {
    local gpus=${GPUS:-8} python per_node extra
    command -v srun >/dev/null ||
        fail 'srun is not on the PATH; without Slurm use tools/dist_*.sh'
    per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    python=$(bash "$TOOLS/find_python.sh")
    read -ra extra <<<"${SRUN_ARGS:-}"
    exec srun -p "$1" \
        --job-name="$2" \
        --gres="gpu:$per_node" \
        --ntasks="$gpus" \
        --ntasks-per-node="$per_node" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${extra[@]+"${extra[@]}"} \
        "$python" -u "$TOOLS/$3" "${@:4}"
}
