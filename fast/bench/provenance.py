"""Whether finished pairs and weights were made for the split that they are to be measured on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fast.bench.nested import Sides
from fast.bench.placeholders import COUNT, SEED, SHIPPED
from fast.generators import METHODS, method_class
from fast.generators.base import Learned
from fast.runtime.folders import parse_json
from fast.synthesis.records import read_lines
from ldm.checkpoint import read_metadata
from ldm.errors import UserError
from ldm.hashing import is_hash

NORMALS = "normals"  # `data.params.use` of a training that is shown no defect
DRAWN = "drawn"  # what weights record in a split's place that were trained on drawn defects
EVERY = "normal images of all parts"  # what a training of normals alone may have seen


def check_finished(place: Path, sides: Sides) -> None:
    """Raises `UserError` for a folder that is no synthesis output, is damaged, or was made for another split."""
    if what := made_besides(place, sides.split.hash, bool(sides.index.tested_normals)):
        raise _seen(place, what, sides)


def made_besides(place: Path, split: str, parted: bool) -> str:
    """What finished pairs may owe to defects that are not on the training side of a split.

    That is what their weights learned, what their drafts came from, and what their scores were taken by, for pairs are
    kept or not by these. What single pairs were made from, their records say.

    Args:
        place: the folder of the pairs.
        split: hash of the split.
        parted: whether the split leaves normal images out. What pairs may owe to those then counts, too.

    Returns:
        The answer in words, an empty string for nothing.

    Raises:
        UserError: when the folder is no synthesis output, or is damaged.
    """
    next(read_lines(place), None)  # says what is no output
    settings, scores = (_noted(place / name) for name in ("settings.json", "scores.json"))
    for recorded in (*_splits(settings), scores.get("split")):  # by its scores pairs are kept or not
        if is_hash(recorded) and recorded != split:
            return _besides(recorded, split)
    return _besides_in(settings, split, parted)


def _learns_defects(method: str) -> bool:
    found = method_class(method) if method in METHODS else None
    return found is None or not issubclass(found, Learned) or found.learns_defects


def _noted(file: Path) -> dict[str, Any]:
    try:
        return dict(parse_json(file.read_text())) if file.is_file() else {}
    except (ValueError, TypeError):
        raise UserError(f"{file} is damaged; restore it or synthesize again") from None


def _splits(settings: Mapping[str, Any]) -> list[Any]:
    """What a run's settings say of splits: of its method and of its drafts."""
    drafts = settings.get("draft_settings") or {}
    parts = (settings, settings.get("options"), drafts, *drafts.values())
    return [part.get("split") for part in parts if isinstance(part, Mapping)]


def check_weights(method: str, options: Mapping[str, Any], sides: Sides) -> None:
    """Raises `UserError` where the `weights` among the options are none of the method's, or did not learn from the
    split's training side: those that record no split may have seen all. Some methods see no defect at all."""
    from fast.artifact import find_weights

    if not options.get("weights"):
        raise UserError(f"method {method} needs weights; add weights=RUN, where {SEED} stands for the split's number")
    if options["weights"] == SHIPPED:
        return
    found = method_class(method)
    assert issubclass(found, Learned)
    file = find_weights(Path(options["weights"]), found.artifact, options.get("step"))
    if what := seen_besides(file, found, sides.split.hash, bool(sides.index.tested_normals)):
        raise _seen(file, what, sides)


def seen_besides(file: Path, method: type[Learned], split: str, parted: bool) -> str:
    """What weights may have seen that is not on the training side of the split of this hash, in words: nothing, an
    empty string, if they record it, or saw drawn defects or normal images alone. `parted`: of the normal images, too,
    the split leaves some out."""
    meta = read_metadata(file)
    if not method.learns_defects or data_of(meta).get("use") == NORMALS:
        return EVERY if parted and meta.get("split") != split else ""
    return _besides(meta.get("split"), split)


def _besides_in(settings: Mapping[str, Any], split: str, parted: bool) -> str:
    """`seen_besides` of the weights that made a folder, by its settings; empty where no weights did."""
    training = settings.get("training")
    if not isinstance(training, Mapping):
        return ""
    if training.get("use") == NORMALS:
        return EVERY if parted and training.get("split") != split else ""
    return _besides(training.get("split"), split) if _learns_defects(str(settings.get("method"))) else ""


def _besides(recorded: Any, split: str) -> str:
    """`seen_besides` of weights that saw defects and record this split."""
    if recorded in (split, DRAWN):
        return ""
    if is_hash(recorded):
        return f"the split {recorded[:12]}"
    return "all real defects" if recorded == "all" else "a split that they do not name"


def segmenter_besides(file: Path, split: str) -> str:
    """`seen_besides` of a segmenter that this program wrote; nothing of other files, such as an encoder's weights."""
    meta = read_metadata(file) if file.suffix == ".safetensors" and file.is_file() else {}
    return _besides(meta.get("split"), split) if "segmenter" in meta else ""


def data_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What a training was shown: `data.params` of its recipe."""
    try:
        data = parse_json(metadata.get("config") or "{}").get("data") or {}
        return dict(data.get("params") or {})
    except (ValueError, TypeError, AttributeError):
        return {}


def _seen(place: str | Path, what: str, sides: Sides) -> UserError:
    return UserError(
        f"{place} was made for {what}, not for the split {sides.split.hash[:12]}, and may have seen what is tested on; "
        f"train and synthesize on this split (--write_splits FOLDER; {SEED} is its number, {COUNT} that of the real "
        "defects of each type)"
    )
