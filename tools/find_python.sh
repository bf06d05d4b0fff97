#!/usr/bin/env bash
# Print the interpreter that the launchers run: PYTHON if it is set, else the
# python of the PATH if it has the stack, else that of the environment that
# quickstart.sh and run_tests.sh make.
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
