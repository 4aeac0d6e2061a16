"""Which defect types a name on the command line means, and what the normal images are of."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fast.data.words import prompt_text
from fast.runtime.options import did_you_mean
from fast.synthesis.options import NONE_NAMED
from fast.synthesis.sources import NormalSource
from ldm.errors import UserError

# Folders of normal pictures that do not tell what is on them.
SAY_NOTHING = {
    "normal", "normals", "good", "ok", "train", "training", "test", "image", "images", "picture", "pictures", "data",
}  # fmt: skip
# Where the layouts of published datasets keep the normal images of a part.
INSIDE_A_PART = (("train", "good"), ("train", "ok"), ("test", "good"), ("test", "ok"), ("data", "images", "normal"))


def match_types(
    types: list[str], anomaly_name: str | None, init_word: str | None, knows: str = "these weights know"
) -> list[int]:
    """Numbers of the learned types ("category/anomaly") that a name on the command line means, or several by commas.

    In this order: a type, "category/type" or "category+type" or the type alone; a category; a name that begins with a
    category (`bottle_test`); the category that `init_word` names, which also settles a type of several categories.
    Raises `UserError` for a name that means nothing, with who `knows` the types.
    """
    if anomaly_name is None and init_word is None:
        return list(range(len(types)))
    if anomaly_name is not None and "," in anomaly_name:
        names = [name.strip() for name in anomaly_name.split(",")]
        return sorted({i for name in names for i in match_types(types, name, init_word, knows)})
    rows = [(i, *t.partition("/")[::2]) for i, t in enumerate(types)]
    name = (anomaly_name or "").strip("/")
    longest = max((c for _, c, _ in rows if name.startswith((f"{c}_", f"{c}-"))), key=len, default="")
    tests: tuple[Callable[[str, str], bool], ...] = (
        lambda c, a: name in (f"{c}/{a}", f"{c}+{a}", a),
        lambda c, a: name == c,
        lambda c, a: bool(c) and c == longest,
        lambda c, a: c == init_word,
    )
    for test in tests:
        found = [i for i, c, a in rows if test(c, a)]
        if found:
            return [i for i in found if types[i].split("/", 1)[0] == init_word] or found
    given = f"--init_word {init_word}" if anomaly_name is None else f"--anomaly_name {anomaly_name}"
    names = [name for t in types for name in (t, *t.split("/", 1))]
    meant = did_you_mean(name or str(init_word), names)
    raise UserError(f"{given}{meant}: {knows} {', '.join(types)}; name one of them or a category")


def open_types(
    known: list[str],
    anomaly_name: str | None,
    init_word: str | None,
    kinds: Sequence[str] = (),
    category: str = "",
) -> list[str]:
    """The types "category/defect" to make with weights that serve any defect word.

    Args:
        known: types "category/defect" that the weights were trained on.
        anomaly_name: one or more names, separated by commas. "category/defect" (or "category+defect") is taken as it
            is. A single word is a defect if the weights know it, or if neither `init_word` nor `kinds` names one.
            Otherwise it is the category of the defects that these name. A category of `known` that is named alone
            stands for all its types.
        init_word: the defect's word.
        kinds: names of the masks' folders, the defect words where neither `anomaly_name` nor `init_word` names one.
        category: the category where none is given. It may be empty.

    Raises:
        UserError: no defect is named.
    """
    if anomaly_name is not None and "," in anomaly_name:
        names = [part.strip() for part in anomaly_name.split(",")]
        found = [kind for name in names for kind in open_types(known, name, init_word, kinds, category)]
        return list(dict.fromkeys(found))
    name = (anomaly_name or "").strip("/").replace("+", "/", 1)
    if "/" in name:
        return [name]
    words = {prompt_text("", t.split("/", 1)[1]) for t in known}
    if name and (prompt_text("", name) in words or not (init_word or kinds)):
        return [t for t in known if t.startswith(f"{name}/")] or [f"{category}/{name}"]
    defects = [init_word] if init_word else list(dict.fromkeys(kinds))
    if not defects:
        raise UserError(NONE_NAMED)
    return [f"{name or category}/{defect}" for defect in defects]


def category_of(normals: Sequence[NormalSource], folder: str, knows: Callable[[str], bool]) -> str:
    """What the images are of: by their dataset, else by the name of the folder as the user wrote it, or of the part
    whose `train/good` it is. Folders further up say nothing: what is made must not depend on where a part's data lie.
    Empty where `knows(name)` is false: a word that a network never saw tells it nothing."""
    named = {n.category for n in normals} - {""}
    if named:
        return min(named) if len(named) == 1 and knows(min(named)) else ""
    path = Path(folder)
    tail = next((t for t in INSIDE_A_PART if tuple(p.lower() for p in path.parts[-len(t) :]) == t), ())
    name = path.parents[len(tail) - 1].name if tail else path.name
    return name if name and name.lower() not in SAY_NOTHING and knows(name) else ""


def perhaps_category(folder: str, knows: Callable[[str], bool]) -> str:
    """A word in a folder's path that may tell what the images are of: of the folder and the two above it the nearest
    that says more than "train", "good" or "parts". To be asked about: where a folder lies is no setting."""
    path = Path(folder).resolve()
    nothing = {*SAY_NOTHING, "part", "parts"}
    says = [p.name for p in (path, *path.parents[:2]) if p.name and p.name.lower() not in nothing]
    return next((name for name in says if knows(name)), "")
