#!/usr/bin/env bash
# Check the Triton kernels on this machine's GPU, then measure them and the
# backbones: bash tools/check_gpu.sh [FOLDER [STEP...]]
# (default: work_dirs/gpu, all steps).
#
# Steps: agreement  the tests of the kernels (pytest)
#        kernels    single operations beside a copy (torch alone)
#        eager, detector, compiled  backbones (also mmengine, mmcv, matplotlib)
#
# PYTHON names the interpreter; MODELS the models of the step compiled, the
# first one being what each other is compared with, in a run of its own. What
# fails does not stop what follows; the exit status is that of the first
# failure. The page of tables is written anew after each run: a call that is
# cut short loses one run, and the next call names the steps that are left.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
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
    for part in "$folder"/{compiled-*,eager,detector}/results.md; do
        [[ -f $part ]] || continue
        printf '\n## %s\n\n' "$(basename "$(dirname "$part")")" >> "$page"
        cat "$part" >> "$page"
    done
    if [[ -f $folder/kernels.md ]]; then
        printf '\n## Single operations\n\n' >> "$page"
        cat "$folder/kernels.md" >> "$page"
    fi
}

run() {
    local name=$1
    shift
    echo "== $name: $*"
    rm -rf "${folder:?}/$name"
    PYTHONUNBUFFERED=1 "$@" 2>&1 | tee "$folder/$name.log"
    local result=${PIPESTATUS[0]}
    if ((result != 0)); then
        echo "== $name failed ($result)"
        ((status != 0)) || status=$result
    fi
    write_page
}

measure() {
    local name=$1
    shift
    run "$name" "$python" tools/benchmark.py "$@" --device cuda \
        --dtype bfloat16 --out "$folder/$name"
}

agreement() {
    local tests=tests/test_ops/test_triton_kernels
    if ! has pytest; then
        echo '== agreement is left out: it needs pytest; the column "error" of' \
            'the step kernels tells it for some maps'
        return
    fi
    run agreement "$python" -m pytest -q -m '' -p no:cacheprovider \
        "$tests"/test_{cluster_attention,clustering,mixed_convolution}.py \
        "$tests"/test_{mixed_expansion,window_attention,real_sizes}.py \
        "$tests"/test_cross_shaped_attention.py
}

kernels() {
    run kernels "$python" tools/benchmark_kernels.py --device cuda \
        --out "$folder/kernels.md"
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
        echo "== timm is missing: swin-tiny stands for ${models[0]}"
        models[0]=swin-tiny
    fi
    for model in "${models[@]:1}"; do
        measure "compiled-$(tr -cs 'a-z0-9\n' - <<< "$model" | sed 's/-*$//')" \
            "${models[0]}" "$model" --batch 128 --compile
    done
}

for step in "${steps[@]}"; do
    if [[ " ${all[*]} " != *" $step "* ]]; then
        echo "check_gpu.sh expects steps of ${all[*]}, got $step" >&2
        exit 2
    fi
done
python=${PYTHON:-$(bash tools/find_python.sh)}
if ! "$python" -c 'import torch, triton; assert torch.cuda.is_available()'; then
    echo 'check_gpu.sh expects PyTorch with a CUDA device and Triton' >&2
    exit 2
fi
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
for step in "${steps[@]}"; do
    if [[ $step =~ ^(eager|detector|compiled)$ ]] && ! has mmengine mmcv; then
        echo "== $step is left out: backbones need mmengine and mmcv"
        continue
    fi
    "$step"
done
write_page
echo "== the tables are in $folder/benchmark_gpu.md"
exit "$status"
