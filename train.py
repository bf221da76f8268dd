"""Train a model: python train.py --config configs/openmoji.py --workdir runs/openmoji"""

import sys

from mmjax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
