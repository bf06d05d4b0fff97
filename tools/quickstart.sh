#!/usr/bin/env bash
# From a fresh clone to a trained model and its pictures, in one command:
#     bash tools/quickstart.sh [--task det|cls|seg|all] [more options]
# The first run creates an environment and compiles mmcv, which takes about 13
# minutes on two cores. If that is interrupted, rerun the command to resume; an
# interrupted training starts anew. MMATTN_STACK, MMATTN_ENV: see setup_env.sh.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"

if [[ " $* " == *' -h '* || " $* " == *' --help '* ]]; then
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  if ! python=$(bash "$tools/setup_env.sh" --if-ready); then
    echo 'Once the environment exists, --help lists all options.'
    exit
  fi
  echo
else
  python=$(bash "$tools/setup_env.sh")
fi
exec "$python" "$tools/quickstart.py" "$@"
