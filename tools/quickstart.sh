#!/usr/bin/env bash
# From a fresh clone to a trained detector and its pictures, in one command:
#     bash tools/quickstart.sh [options of tools/quickstart.py]
# Makes the environment first where it is missing or stale (setup_env.sh).
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

python=$(bash "$tools/setup_env.sh")
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$tools/quickstart.py" "$@"
