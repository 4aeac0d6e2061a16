"""`fit`: the training that `main.py` would do with a method's recipe, called from a program."""

import json
from collections.abc import Sequence
from pathlib import Path

from fast.data.index import DatasetIndex
from fast.data.layouts import open_dataset
from fast.data.split import Split as SplitFile
from fast.runtime.options import parse_training
from fast.runtime.project import in_project
from fast.training.run import train as run
from ldm.errors import UserError


def recipe_of(method: str) -> Path:
    """The recipe that trains a method on two CPU cores."""
    return in_project(Path(f"configs/methods/{method}.yaml"))


def train(
    method: str,
    split: DatasetIndex | str | Path,
    recipe: str | Path | None,
    folder: str | Path | None,
    overrides: Sequence[str],
) -> Path:
    """Train a method on what `split` holds and return the run's folder, `folder` (None: `logs/<method>`).

    `split`: a path, of whose defects the training third is taken, or an index narrowed to what training may see: its
    defects are trained on and the rest of its dataset held out, as `<folder>.split.json` says.
    Raises `UserError`, also for a folder in use.
    """
    folder = Path(folder or Path("logs") / method)
    data = _section(split, folder.with_name(f"{folder.name}.split.json"))
    flags = [f"data.params.{k}={json.dumps(v)}" for k, v in data.items()]
    given = ["--base", str(recipe or recipe_of(method)), "-t", "-l", str(folder.parent), "-n", folder.name]
    return run(parse_training([*given, *flags, *overrides]))


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
