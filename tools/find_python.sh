#!/usr/bin/env bash
# Print the interpreter for dist_*.sh and slurm_*.sh: PYTHON if it is set, else
# python on the PATH if it has mmengine, else that of the environment that
# quickstart.sh and run_tests.sh create.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

has_stack='import importlib.util as u, sys; sys.exit(not u.find_spec("mmengine"))'
if [[ -n ${PYTHON:-} ]]; then
  echo "$PYTHON"
elif python -c "$has_stack" 2>/dev/null; then
  echo python
else
  # With neither, the tool reports what to install.
  bash "$tools/setup_env.sh" --if-ready 2>/dev/null || echo python3
fi
