#!/usr/bin/env bash
# Print the python of the environment that all clones share, after making or
# mending that environment where needed (setup_env.py says how). Messages go
# to stderr.
#
#   MMATTN_ENV  its folder, by default ~/.cache/mmattn/env
#   PYTHON      the interpreter that makes it, by default the first fit one
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
fits='import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))'

candidates=(python3 python3.12 python3.11 python3.10 python3.13 python3.14)
if [[ -n ${PYTHON:-} ]]; then
  candidates=("$PYTHON")
fi
for python in "${candidates[@]}"; do
  if "$python" -c "$fits" 2>/dev/null; then
    exec "$python" "$here/setup_env.py" "$@"
  fi
done
found=$("${PYTHON:-python3}" --version 2>&1 || true)
echo "mmattn expects Python 3.10 to 3.14, got: ${found:-none};" \
  'install one, or name it: PYTHON=/path/to/python3.12' >&2
exit 1
