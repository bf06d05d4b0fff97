"""``python -m mmattn``: report what is installed and what to fix."""

import sys

from mmattn.env_report import main

if __name__ == '__main__':
    sys.exit(main())
