#!/usr/bin/env bash
# From a fresh clone to a trained model and its pictures, in one command:
#     bash tools/quickstart.sh [--task det|cls|seg|all] [more options]
# The first run makes the environment: about 15 minutes on two cores, most of
# them compiling mmcv. If that is interrupted, rerun the command to resume. A
# training starts anew. MMATTN_STACK and MMATTN_ENV: see setup_env.sh.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"

if [[ " $* " == *' -h '* || " $* " == *' --help '* ]]; then
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  if ! python=$(bash "$tools/setup_env.sh" --if-ready); then
    echo 'Once the environment is made, --help lists all options.'
    exit
  fi
  echo
else
  python=$(bash "$tools/setup_env.sh")
fi
exec "$python" "$tools/quickstart.py" "$@"
