"""Make the modules of tools/dev importable."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / 'tools' / 'dev'))
