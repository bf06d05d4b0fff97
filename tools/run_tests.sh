#!/usr/bin/env bash
# Check lint and format and run the tests:
#     bash tools/run_tests.sh [--slow] [arguments of pytest]
#     bash tools/run_tests.sh tests/test_ops -k windows
# Tests marked slow or dev run only with --slow. Uses up to four processes; to
# debug a test, add -n 0 --pdb. Creates or updates the environment first; for
# MMATTN_STACK and MMATTN_ENV see setup_env.sh.
set -euo pipefail
if [[ ${1:-} == -h || ${1:-} == --help ]]; then
  sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$(bash tools/setup_env.sh)
PATH="$(dirname "$python"):$PATH"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
# The tensors are small: one core for each process.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
cores=$(env -u OMP_NUM_THREADS nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
workers=$((cores < 4 ? cores : 4))

# A file stays in one process: its tests share what they train.
arguments=(-m 'not slow and not dev' -n "$workers" --dist loadfile)
for argument; do
  if [[ $argument == --slow ]]; then
    arguments=("${arguments[@]:2}")
  else
    arguments+=("$argument")
  fi
done

lint() {
  if git rev-parse --git-dir >/dev/null 2>&1; then
    pre-commit run --all-files
  else
    ruff check . && ruff format --check .
  fi
}

outcome=()
failed=0
check() {
  echo "== $1"
  if "${@:2}"; then
    outcome+=("$1: passed")
  else
    outcome+=("$1: FAILED")
    failed=1
  fi
}
check 'lint and format' lint
check 'tests' pytest "${arguments[@]}"

printf '== %s\n' "${outcome[@]}"
exit "$failed"
