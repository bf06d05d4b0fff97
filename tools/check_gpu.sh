#!/usr/bin/env bash
# Check the Triton kernels on this machine's GPU, then measure them and the
# backbones: bash tools/check_gpu.sh [FOLDER] (default: work_dirs/gpu).
#
# PYTHON names the interpreter; MODELS the models of the tables, the first
# one being what the others are compared with. What fails does not stop what
# follows; the exit status is that of the first failure.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
folder=${1:-work_dirs/gpu}
read -r -a models <<< "${MODELS:-timm:swin_tiny_patch4_window7_224 swin-tiny \
boat-swin-tiny cswin-tiny boat-cswin-tiny smt-tiny}"
status=0

step() {
    local name=$1
    shift
    echo "== $name: $*"
    "$@" 2>&1 | tee "$folder/$name.log"
    local result=${PIPESTATUS[0]}
    if ((result != 0)); then
        echo "== $name failed ($result)"
        ((status != 0)) || status=$result
    fi
}

if ! "$python" -c 'import torch, triton; assert torch.cuda.is_available()'; then
    echo 'check_gpu.sh expects PyTorch with a CUDA device and Triton' >&2
    exit 2
fi
mkdir -p "$folder"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

kernels=tests/test_ops/test_triton_kernels
step agreement "$python" -m pytest -q -m '' -p no:cacheprovider \
    "$kernels"/test_{cluster_attention,clustering,mixed_convolution}.py \
    "$kernels"/test_{mixed_expansion,window_attention,real_sizes}.py
step kernels "$python" tools/benchmark_kernels.py --device cuda \
    --out "$folder/kernels.md"
measure=("$python" tools/benchmark.py)
options=(--device cuda --dtype bfloat16)
step compiled "${measure[@]}" "${models[@]}" "${options[@]}" --batch 128 \
    --compile --out "$folder/compiled"
step eager "${measure[@]}" boat-swin-tiny "boat-swin-tiny(impl='reference')" \
    "boat-swin-tiny(impl='triton')" "smt-tiny" "smt-tiny(impl='triton')" \
    "${options[@]}" --batch 128 --out "$folder/eager"
step triton "${measure[@]}" "${models[0]}" "boat-swin-tiny(impl='triton')" \
    "smt-tiny(impl='triton')" "${options[@]}" --batch 128 --compile \
    --out "$folder/triton"
step detector "${measure[@]}" swin-tiny boat-swin-tiny \
    "boat-swin-tiny(impl='triton')" "${options[@]}" --batch 2 \
    --sizes 800x1344 --outputs all --out "$folder/detector"

page=$folder/benchmark_gpu.md
echo '# Measured on a GPU' > "$page"
for part in compiled triton eager detector; do
    [[ -f $folder/$part/results.md ]] || continue
    printf '\n## %s\n\n' "$part" >> "$page"
    cat "$folder/$part/results.md" >> "$page"
done
if [[ -f $folder/kernels.md ]]; then
    printf '\n## Single operations\n\n' >> "$page"
    cat "$folder/kernels.md" >> "$page"
fi
echo "== the tables are in $page"
exit "$status"
