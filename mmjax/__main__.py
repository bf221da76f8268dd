"""python -m mmjax COMMAND: see mmjax.cli."""

import sys

from mmjax.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
