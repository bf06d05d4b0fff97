"""What has to hold before a tool starts: each imports this first.

A clone runs from its own source, installed or not, and a missing or mixed
stack is one clear line.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'mmattn' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

from mmattn.stack import check_stack  # noqa: E402

try:
    check_stack()
except ImportError as missing:
    print(f'{Path(sys.argv[0]).name}: error: {missing}', file=sys.stderr)
    sys.exit(2)
