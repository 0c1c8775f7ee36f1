"""`python -m dynnotes` is the command `dynnotes`."""

import sys

from dynnotes.cli import main

if __name__ == "__main__":
    sys.exit(main())
