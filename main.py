"""Train FAST, a latent-diffusion base or a first stage: `python main.py --base RECIPE -t ...`."""

import os
import sys

from fast.runtime.signals import listen

listen(__name__)

from fast.runtime.command import open_door  # noqa: E402
from fast.runtime.options import parse_training  # noqa: E402


def main(argv: list[str]) -> None:
    options = parse_training(argv)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is imported
    from fast.training.run import train  # heavy: only once the flags are understood

    train(options)


if __name__ == "__main__":
    sys.exit(open_door(main))
