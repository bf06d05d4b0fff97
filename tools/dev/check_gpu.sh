#!/usr/bin/env bash
# Check the Triton kernels on this machine's GPU, then measure them and the
# backbones: bash tools/dev/check_gpu.sh [FOLDER [STEP...]]
# (default: work_dirs/gpu, all steps).
#
# Steps: agreement  the tests of the kernels (needs pytest)
#        kernels    single operations beside a copy (needs torch and Triton)
#        eager, detector, compiled  backbones (need mmengine and mmcv-lite)
#
# Steps with missing dependencies are skipped. PYTHON sets the interpreter and
# MODELS the models of the step compiled; each is compared with the first, in
# a run of its own. A failure does not stop later steps; the exit status is
# that of the first failure. FOLDER/benchmark_gpu.md is updated after each run,
# so an interrupted check keeps its results: rerun it with the steps left.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
all=(agreement kernels eager detector compiled)
folder=${1:-work_dirs/gpu}
steps=("${@:2}")
((${#steps[@]})) || steps=("${all[@]}")
status=0

has() {
    "$python" -c 'import importlib.util as u, sys
sys.exit(not all(map(u.find_spec, sys.argv[1:])))' "$@"
}

write_page() {
    local page=$folder/benchmark_gpu.md part
    echo '# Measured on a GPU' > "$page"
    for part in "$folder"/{compiled-*,eager,detector,kernels}.out; do
        [[ -f $part ]] || continue
        printf '\n## %s\n\n' "$(basename "$part" .out)" >> "$page"
        cat "$part" >> "$page"
    done
}

run() {
    local name=$1
    shift
    echo "== $name: $*"
    PYTHONUNBUFFERED=1 "$@" 2> "$folder/$name.log" | tee "$folder/$name.out"
    local result=${PIPESTATUS[0]}
    if ((result != 0)); then
        echo "== $name failed ($result)"
        tail -n 20 "$folder/$name.log"
        ((status != 0)) || status=$result
    fi
    write_page
}

measure() {
    run "$1" "$python" tools/benchmark.py "${@:2}" --device cuda \
        --dtype bfloat16
}

agreement() {
    if ! has pytest; then
        echo '== agreement skipped: needs pytest (the kernels step shows errors)'
        return
    fi
    run agreement "$python" -m pytest -q -m '' -p no:cacheprovider \
        tests/test_ops/test_*/test_triton.py \
        tests/test_ops/test_triton/test_real_sizes.py
}

kernels() {
    run kernels "$python" tools/dev/benchmark_kernels.py --device cuda
}

eager() {
    measure eager boat-swin-tiny "boat-swin-tiny(impl='reference')" \
        "boat-swin-tiny(impl='triton')" smt-tiny "smt-tiny(impl='triton')" \
        cswin-tiny "cswin-tiny(impl='triton')" --batch 128
}

detector() {
    measure detector swin-tiny boat-swin-tiny "boat-swin-tiny(impl='triton')" \
        --batch 2 --sizes 800x1344 --outputs all
}

compiled() {
    local models model
    read -r -a models <<< "${MODELS:-timm:swin_tiny_patch4_window7_224 \
swin-tiny boat-swin-tiny boat-swin-tiny(impl='triton') cswin-tiny \
boat-cswin-tiny smt-tiny smt-tiny(impl='triton')}"
    if [[ ${models[0]} == timm:* ]] && ! has timm; then
        echo "== timm is missing: swin-tiny replaces ${models[0]}"
        models[0]=swin-tiny
    fi
    for model in "${models[@]:1}"; do
        measure "compiled-$(tr -cs 'a-z0-9\n' - <<< "$model" | sed 's/-*$//')" \
            "${models[0]}" "$model" --batch 128 --runtime compile
    done
}

for step in "${steps[@]}"; do
    if [[ " ${all[*]} " != *" $step "* ]]; then
        echo "check_gpu.sh: unknown step $step; steps are ${all[*]}" >&2
        exit 2
    fi
done
python=${PYTHON:-$(bash tools/find_python.sh)}
if ! "$python" -c 'import torch, triton; assert torch.cuda.is_available()'; then
    echo 'check_gpu.sh needs torch with a CUDA device, and Triton' >&2
    exit 2
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
for step in "${steps[@]}"; do
    if [[ $step =~ ^(eager|detector|compiled)$ ]] && ! has mmengine mmcv; then
        echo "== $step skipped: needs mmengine and mmcv"
        continue
    fi
    "$step"
done
write_page
echo "== the tables are in $folder/benchmark_gpu.md"
exit "$status"
