"""Names of defect types and of methods' options on the command line that are refused before anything is loaded or
read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fast.generators import FREE, method_class
from fast.runtime.project import NAMED
from fast.synthesis.options import NONE_NAMED, SynthesisOptions, draft_methods, transplants
from ldm.errors import UserError
from ldm.util import check_params

ALL_OF_MINI = "surface"  # the category of all types that the shipped weights were trained on
_LOOKS = re.compile(r"(?:draft_options\.)?looks\.([^=]+)=")


def check_names(options: SynthesisOptions) -> None:
    """Raise `UserError` for a type that is to be drawn and that nothing says the looks of, for looks that nothing is
    drawn by, for an option that a method without weights has not, and where the shipped weights are given no word.
    What may be a category, and types of other weights, are left to those who read them."""
    asked, shipped = options.anomaly_name or options.init_word, options.method == "fast" and options.weights in NAMED
    if shipped and not asked and not options.mask_path and not transplants(options):
        raise UserError(NONE_NAMED)
    if options.method in FREE:  # those that learn are known with their weights
        _check_own(options.method, options.overrides)
    drawn, drafted = options.method == "procedural", "procedural" in draft_methods(options.draft)
    if drawn or drafted:
        _check_looks(options.overrides, "looks" if drawn else "draft_options.looks")
    given = _looks(options.overrides)
    if given is None or not asked or not (drawn or options.draft == "procedural"):
        return  # of mixed drafts those of some types may be real defects alone
    from fast.generators.looks import cannot_draw, undrawable

    words = _words(options, bare=drawn or bool(shipped))
    if without := undrawable(words, {word: ["given"] for word in given}):  # what they are is read with all options
        raise cannot_draw(without[0], given, "method.looks" if drawn else "method.draft_options.looks")


def _check_own(method: str, overrides: Sequence[str]) -> None:
    """Raise `UserError` for an option that the method has not."""
    names = [re.split(r"[.=]", text, maxsplit=1)[0] for text in overrides]
    check_params(method_class(method), dict.fromkeys(names), f"method {method}", complete=False)


def _check_looks(overrides: Sequence[str], option: str) -> None:
    """Raise `UserError` for looks that nothing is drawn by. What does not parse is left to those who read it all."""
    said = [text for text in overrides if re.match(r"(draft_options\.)?looks[.=]|draft_options=", text)]
    if not said:
        return
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from fast.generators.looks import own_looks

    try:
        found: Any = OmegaConf.select(OmegaConf.from_dotlist(said), option)
    except (OmegaConfBaseException, YAMLError, TypeError, ValueError, AttributeError):
        return
    if found is not None:
        found = OmegaConf.to_container(found) if OmegaConf.is_config(found) else found
        own_looks(found)


def _looks(overrides: Sequence[str]) -> list[str] | None:
    """The words that `method.looks.WORD=` gives looks; None where a whole mapping is given."""
    if any(re.match(r"(looks|draft_options|draft_options\.looks)=", text) for text in overrides):
        return None
    return [found[1] for text in overrides if (found := _LOOKS.match(text))]


def _words(options: SynthesisOptions, bare: bool) -> list[str]:
    """Of the names asked for what can only be a defect's word. `bare`: a name without a category may be one."""
    if options.anomaly_name is None:
        return [str(options.init_word).rpartition("/")[2]]
    names = [name.strip().strip("/").replace("+", "/", 1) for name in options.anomaly_name.split(",")]
    bare = bare and not (options.method == "fast" and (options.init_word or options.mask_path))
    words = [name.rpartition("/")[2] for name in names if "/" in name or (bare and not _a_category(name, options))]
    return [word for word in words if word]


def _a_category(name: str, options: SynthesisOptions) -> bool:
    """Whether a name may be that of a part: the shipped weights' own, or a folder of the dataset."""
    if options.method == "fast":
        return name == ALL_OF_MINI
    root = Path(options.data_root or "")
    return name in root.resolve().parts or (root / name).exists()
