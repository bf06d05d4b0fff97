#!/usr/bin/env bash
# Create or update the environment that all clones share; print its python:
#     bash tools/setup_env.sh [--if-ready]
# --if-ready changes nothing, and fails if the environment is not up to date.
#   MMATTN_STACK  onedl (default) or openmmlab
#   MMATTN_ENV    folder of the environment (default: ~/.cache/mmattn/env);
#                 for openmmlab, -openmmlab is appended
#   PYTHON        interpreter to create it with (default: the first suitable)
# If interrupted, rerun it to resume.
set -euo pipefail
requirements=$(cd "$(dirname "${BASH_SOURCE[0]}")/../requirements" && pwd)
stack=${MMATTN_STACK:-onedl}
pins=$requirements/$stack
env=${MMATTN_ENV:-$HOME/.cache/mmattn/env}
[[ $env == /* ]] || env=$PWD/$env
job=

say() { echo "[mmattn env] $*" >&2; }

fail() {
  echo "setup_env.sh: error: $*" >&2
  exit 1
}

# What is installed: the Python version and all requirements.
describe() {
  "$python" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null &&
    grep -hvE '^(#|$)' "$pins"/*.txt "$requirements/tests.txt"
}

is_ready() {
  [[ -f $state/installed ]] && diff -q "$state/installed" <(describe) >/dev/null
}

# Run a command into a log: run NAME COMMAND...
run() {
  local name=$1 log=$state/logs/$1.log start=$SECONDS next=30 detail
  shift
  mkdir -p "$state/logs" "$state/tmp"  # /tmp may be a small RAM disk
  set -m  # a process group of its own, so that all of it can be stopped
  TMPDIR=$state/tmp "$@" >"$log" 2>&1 </dev/null &
  job=$!
  set +m
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - start >= next)); then
      next=$((next + 30))
      detail=$(grep -aoE '^ *\[[0-9]+/[0-9]+\]|^ *Downloading [^ ]+' "$log" | tail -n 1) || true
      say "$name: $((SECONDS - start)) s so far $detail"
    fi
  done
  wait "$job" || {
    tail -n 25 "$log" | cut -c 1-300 >&2
    if grep -q 'No space left' "$log"; then
      fail "step $name: the disk is full; set MMATTN_ENV, and PIP_CACHE_DIR, to larger ones"
    fi
    fail "step $name failed, see $log; fix the cause and rerun, or delete $env first"
  }
  job=
}

stop() {
  [[ -z $job ]] || kill -- "-$job" 2>/dev/null || true
  exit "$1"
}

# Compile mmcv once for each torch: pip's cache does not tell them apart.
install_mmcv() {
  local pin name build wheels source jobs cores
  # Without nvcc the build fails if torch sees a GPU.
  command -v nvcc "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" >/dev/null || export CUDA_VISIBLE_DEVICES=
  pin=$(grep -v '^#' "$pins/mmcv.txt")
  name=${pin//-/_} name=${name/==/-}
  build=$("$python" -c 'import sys, torch; print("torch-{}-cp{}{}-{}".format(
torch.__version__, *sys.version_info[:2], "cuda" if torch.cuda.is_available() else "cpu"))')
  wheels=$state/wheels/$build
  if ! compgen -G "$wheels/$name-*.whl" >/dev/null; then
    source=$state/mmcv/$build/$name  # pip builds in place: objects survive
    if [[ ! -f $source/setup.py ]]; then
      rm -rf "$source" "$state/tmp/sdist"
      run mmcv-download "$python" -m pip download --no-deps --no-binary :all: \
        --no-build-isolation --dest "$state/tmp/sdist" "$pin"
      mkdir -p "$source.new"
      tar -xzf "$state/tmp/sdist/"*.tar.gz -C "$source.new" --strip-components 1
      mv "$source.new" "$source"
    fi
    # Each compiler takes up to 2 GB of memory.
    jobs=$("$python" -c 'import psutil; print(psutil.virtual_memory().total // 2_000_000_000)')
    cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
    jobs=$((jobs < 1 ? 1 : jobs < cores ? jobs : cores))
    say "mmcv: compiling with $jobs processes, about 13 minutes on two cores"
    MAX_JOBS=$jobs MMCV_WITH_OPS=1 run mmcv "$python" -m pip wheel --verbose \
      --no-deps --no-build-isolation --wheel-dir "$state/tmp/wheel" "$source"
    mkdir -p "$wheels"
    mv "$state/tmp/wheel/"*.whl "$wheels"
    rm -rf "$state/mmcv"
  fi
  if ! grep -qs "${build//+/%2B}/$name" "$env"/lib/python*/site-packages/"$name".dist-info/direct_url.json; then
    run mmcv-install "$python" -m pip install --no-deps --force-reinstall "$wheels/$name"-*.whl
  fi
}

# Report all that is missing before minutes of downloads.
check_machine() {
  local missing
  missing=$("$base" - "${CXX:-g++}" <<'CODE'
import importlib.util, os, shutil, sys, sysconfig
version = 'python{}.{}'.format(*sys.version_info)
header = os.path.join(sysconfig.get_path('include'), 'Python.h')
importlib.util.find_spec('ensurepip') or print(f'{version}-venv')
os.path.isfile(header) or print(f'{version}-dev')
shutil.which(sys.argv[1]) or print('g++')
CODE
)
  [[ -z $missing ]] || fail "missing: ${missing//$'\n'/, }; on Debian, apt-get install them"
  if [[ ! -e $python && $(df -Pk "$env" | awk 'NR == 2 {print $4}') -lt 10000000 ]]; then
    fail "less than 10 GB of disk are free for $env; set MMATTN_ENV to another folder"
  fi
}

find_base() {
  local names=(python3 python3.12 python3.11 python3.10 python3.13 python3.14)
  for base in "${PYTHON:-${names[@]}}"; do
    "$base" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $last))" 2>/dev/null && return
  done
  fail "Python 3.10 to 3.$last is needed, but none was found; install one, or set PYTHON=/path/to/python3"
}

make() {
  local start=$SECONDS
  find_base
  check_machine
  say "creating or updating $env"
  rm -rf "$state/installed" "$state/tmp"
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    find "$env" -mindepth 1 -maxdepth 1 ! -name .mmattn -exec rm -rf {} +
    run venv "$base" -m venv "$env"
  fi
  run base "$python" -m pip install -r "$pins/base.txt" -r "$requirements/tests.txt"
  install_mmcv
  run codebases "$python" -m pip install --no-deps -r "$pins/codebases.txt"
  run check "$python" -c 'import torch, torchvision, mmcv.ops, mmdet.apis, mmseg.apis
import mmpretrain, pycocotools.mask, sklearn, matplotlib, pytest'
  describe >"$state/installed"
  rm -rf "$state/tmp"
  say "ready after $((SECONDS - start)) s"
}

case $stack in
  onedl) last=14 ;;
  openmmlab) last=11 env=$env-openmmlab ;;
  *) fail "MMATTN_STACK=$stack; use onedl or openmmlab" ;;
esac
python=$env/bin/python state=$env/.mmattn
if [[ ${1:-} == --if-ready ]]; then
  is_ready || exit 1
elif [[ $# -gt 0 ]]; then
  sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  [[ $1 == -h || $1 == --help ]] && exit 0 || exit 2
elif ! is_ready; then
  [[ ! -d $env || -d $state || -z $(ls -A "$env") ]] ||
    fail "$env contains other files; set MMATTN_ENV to a new folder"
  mkdir -p "$state" || fail "cannot write to $env; set MMATTN_ENV to another folder"
  trap 'stop 143' TERM HUP
  trap 'say "interrupted; rerun the command to resume"; stop 130' INT
  exec 9>>"$state/lock"  # commands inherit it: a next set-up waits for them
  flock -n 9 || { say "another process is updating $env; waiting for it"; flock 9; }
  is_ready || make
fi
echo "$python"
