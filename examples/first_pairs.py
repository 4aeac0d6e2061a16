"""From a folder of normal images to pairs to a trained segmentation network; `first_pairs.ipynb` is the same.

Run it where `parts/normal` lies: python examples/first_pairs.py
"""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a checkout that is not installed

if __name__ == "__main__":  # as a command: what is amiss, a missing folder say, is told in one line
    from fast.runtime.command import run_cli

    sys.exit(run_cli(lambda _: runpy.run_path(__file__, run_name="example")))

# %% [markdown]
# # From a folder of normal images to a trained segmentation network
#
# No real defect, no mask and no training of a generator is needed. Start this from the folder of the project, or after
# `pip install .` from anywhere. `FOLDER` holds normal images of a part, of any size.

# %%
FOLDER, OUT = "parts/normal", "samples/first"
COUNT, STEPS, SIZE = 120, 150, 256

# %% [markdown]
# Scratches, cracks and dents are drawn into the images. The folder `OUT` holds the pairs; run it again and only what is
# missing is made.

# %%
from fast.cli.synthesize import synthesize
from fast.segmentation import build
from fast.segmentation.evaluation import evaluate
from fast.segmentation.shown import Pairs
from fast.segmentation.train import train
from fast.synthesis.options import SynthesisOptions

synthesize(SynthesisOptions(method="procedural", data_root=FOLDER, anomaly_name="scratch,crack,dent",
                            sample_name=OUT, count=COUNT))  # fmt: skip
pairs = Pairs.read(OUT)
pairs

# %% [markdown]
# One of them, as it is and with its outline.

# %%
pairs[0]

# %% [markdown]
# A network learns from four fifths, and is tested on the rest. These are drawn defects: what it is worth on real ones
# only real ones tell (`scripts/segment.py --test`).

# %%
network = train(build("fpn", seed=0), pairs[: COUNT * 4 // 5], steps=STEPS, size=SIZE, seed=0)
test = pairs[COUNT * 4 // 5 :]
scores = evaluate(network, test, size=SIZE)
print({name: round(scores[name], 3) for name in ("miou", "f1", "auroc")})

# %%
test.answered(network, SIZE)
