#!/usr/bin/env bash
# From a fresh clone to a trained model and its pictures, in one command:
#     bash tools/quickstart.sh [--task det|cls|seg|all] [more options]
# Makes the environment first where it is missing or stale: about 15 minutes,
# most of them compiling mmcv, in MMATTN_ENV (default ~/.cache/mmattn/env).
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"

if [[ " $* " == *' -h '* || " $* " == *' --help '* ]]; then
  sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  if ! python=$(bash "$tools/setup_env.sh" --if-ready); then
    echo 'With the environment there, --help lists all options.'
    exit
  fi
  echo
else
  python=$(bash "$tools/setup_env.sh")
fi
exec "$python" "$tools/quickstart.py" "$@"
