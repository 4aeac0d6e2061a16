"""Train FAST or another method, a latent-diffusion base or a first stage: the command behind `main.py`."""

import os
import sys

from fast.runtime.command import run_cli
from fast.runtime.options import parse_training


def main(argv: list[str]) -> None:
    options = parse_training(argv)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is imported
    from fast.training.run import train  # heavy: only once the flags are understood

    train(options)


if __name__ == "__main__":
    sys.exit(run_cli(main))
