"""Train FAST, a latent-diffusion base or a first stage: `python main.py --base RECIPE -t ...`."""

import sys

from fast.runtime.signals import listen

listen(__name__)

from fast.cli.train import main  # noqa: E402
from fast.runtime.command import run_cli  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_cli(main))
