"""``python -m mmattn``: what is installed, what is missing, what mends it."""

import sys

from mmattn.diagnosis import main

if __name__ == '__main__':
    sys.exit(main())
