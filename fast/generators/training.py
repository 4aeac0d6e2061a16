"""`fit`: the training that `main.py` does with a method's recipe, called from a program."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fast.data.index import DatasetIndex
from fast.data.layouts import open_dataset
from fast.data.split import Split as SplitFile
from fast.runtime.options import TrainingOptions
from fast.runtime.project import in_project
from fast.training.run import train as run
from ldm.errors import UserError
from ldm.util import check_params, check_values

# Options of a training that `fit` has arguments of its own for.
SETTLED = {"base", "train", "logdir", "name", "resume", "overrides", "data", "category", "anomaly", "split"}


def recipe_of(method: str) -> Path:
    """The recipe that trains a method on two CPU cores."""
    return in_project(Path(f"configs/methods/{method}.yaml"))


def train(
    method: str,
    split: DatasetIndex | str | Path,
    recipe: str | Path | None,
    folder: str | Path | None,
    overrides: Sequence[str] = (),
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Train a method on what `split` holds and return the run's folder, `folder` (None: `logs/<method>`).

    `split`: a path, of whose defects the training third is taken, or an index narrowed to what training may see: its
    defects are trained on and the rest of its dataset held out, as `<folder>.split.json` says. `overrides`,
    `training`: see `Learned`. Raises `UserError`, also for a folder in use.
    """
    training = dict(training or {})
    check_params(TrainingOptions, training, "training")
    check_values(TrainingOptions, training, "training")
    if settled := sorted(training.keys() & SETTLED):
        raise UserError(f"training.{settled[0]} is settled by fit; leave it out")
    folder = Path(folder or Path("logs") / method)
    data = _section(split, folder.with_name(f"{folder.name}.split.json"))
    options = TrainingOptions(
        base=[str(recipe or recipe_of(method))],
        train=True,
        logdir=str(folder.parent),
        name=folder.name,
        overrides=[*(f"data.params.{k}={json.dumps(v)}" for k, v in data.items()), *overrides],
        **training,
    )
    return run(options)


def _section(split: DatasetIndex | str | Path, file: Path) -> dict[str, str]:
    """`data.params` that name what a split holds; defects are named in a split `file`, beside the run."""
    if isinstance(split, str | Path):
        return {"path": str(split)}
    whole = open_dataset(split.root)
    own = {split.relative(s.image) for s in split.defects}
    if not own and not split.normals:
        raise UserError(f"{split.root}: the split holds nothing to learn from; narrow the dataset less")
    data = {"path": str(split.root)}
    if len(split.categories) == 1 and len(whole.categories) > 1:
        data["category"] = split.categories[0]
    if own:
        names = {whole.relative(s.image) for s in whole.defects}
        SplitFile(sorted(own), sorted(names - own), 0, len(own) / max(1, len(names)), rule="as given").save(file)
        data["split"] = str(file)
    return data
