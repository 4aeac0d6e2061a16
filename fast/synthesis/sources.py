"""Normal images and masks for synthesis, and which of them meet in which pair."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fast.data.category import NORMAL_DIRS, files_of
from fast.data.check import looks_inverted
from fast.data.images import list_images, read_mask
from fast.data.labelme import is_annotation
from fast.data.layouts import holds_dataset, holds_masks, open_dataset
from fast.data.pairing import split_beside
from fast.data.reading import NAME, reading_of
from fast.data.words import prompt_text
from fast.synthesis.options import FIRST_COUNTERFEIT
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.rng import seed_of

ReadMask = Callable[[Path], np.ndarray]

# Folders of normal pictures that do not tell what is on them.
SAY_NOTHING = {
    "normal", "normals", "good", "ok", "train", "training", "test", "image", "images", "picture", "pictures", "data",
}  # fmt: skip
# Where the layouts of published datasets keep the normal images of a part.
INSIDE_A_PART = (("train", "good"), ("train", "ok"), ("test", "good"), ("test", "ok"), ("data", "images", "normal"))


@dataclass(frozen=True)
class NormalSource:
    """An image without a defect; `category` is empty where no dataset layout names it."""

    path: Path
    category: str = ""


@dataclass(frozen=True)
class MaskSource:
    """A mask file; `kind` is the folder it lies in, which often names the defect type."""

    path: Path
    kind: str


@dataclass(frozen=True)
class Pair:
    """One image-mask pair to make. `seed` fixes its noise; it depends on the run's seed and the index alone.

    `normal`, `mask`: files; None where the method, or a source of masks, draws its own. `counterfeit`: normal content
    goes into the mask, see `fast.synthesis.counterfeit`.
    """

    index: int
    normal: Path | None
    mask: Path | None
    type_index: int
    seed: int
    counterfeit: bool = False

    @property
    def files(self) -> tuple[Path, Path]:
        """(normal, mask) of a pair that has both."""
        assert self.normal is not None
        assert self.mask is not None
        return self.normal, self.mask


@dataclass(frozen=True)
class Sources:
    """What pairs are made from. `types`: all that the method knows, "category/anomaly"; `allowed`: numbers of those
    to make. There may be no normals or no masks for a method that needs none."""

    normals: list[NormalSource]
    masks: list[MaskSource]
    types: list[str]
    allowed: list[int]

    def narrowed(self) -> "Sources":
        """Only normals of the allowed types' categories, if there are any, and no masks in other types' folders, if
        any remain. Files whose folders name nothing that the weights know may serve every type.
        """
        categories, kinds = (set(names) for names in zip(*(t.split("/", 1) for t in self.types), strict=True))
        wanted = [self.types[i].split("/", 1) for i in self.allowed]
        own, own_kinds = (set(names) for names in zip(*wanted, strict=True))
        normals = [n for n in self.normals if n.category in own]
        normals = normals or [n for n in self.normals if n.category not in categories] or self.normals
        masks = [m for m in self.masks if m.kind in own_kinds or m.kind not in kinds]
        return Sources(normals, masks or self.masks, self.types, self.allowed)

    @cached_property
    def normal_contents(self) -> list[str]:
        """SHA-256 of each normal image's file."""
        return contents(n.path for n in self.normals)

    @cached_property
    def mask_contents(self) -> list[str]:
        """SHA-256 of each mask's file."""
        return contents(m.path for m in self.masks)

    @cached_property
    def _marks(self) -> tuple[np.ndarray, np.ndarray]:
        return marks(self.normal_contents), marks(self.mask_contents)

    def pair(self, index: int, seed: int) -> Pair:
        """Pair number `index`, from `FIRST_COUNTERFEIT` on the counterfeit of a pair, with its files. Its normal image
        is drawn by content (`drawn`): adding one changes the pairs that take it and no other. Masks come round in a new
        order every time through. Names and places decide nothing."""
        if index >= FIRST_COUNTERFEIT:
            return replace(self.pair(index - FIRST_COUNTERFEIT, seed), index=index, counterfeit=True)
        normals, masks = self._marks
        normal = self.normals[drawn(normals, seed, 1, index)] if self.normals else None
        mask = self.masks[self._turn(masks, index, seed)] if self.masks else None
        own = seed_of(seed, 3, index)
        category, kind = normal.category if normal else "", mask.kind if mask else ""
        files = normal.path if normal else None, mask.path if mask else None
        return Pair(index, *files, self._type(category, kind, own), own)

    def _turn(self, masks: np.ndarray, index: int, seed: int) -> int:
        """The mask for a pair: all come round in an order of their own every time through, sorted once each time."""
        lap, place = divmod(index, len(masks))
        if (seed, lap) not in self._orders:
            if len(self._orders) > 1:
                self._orders.clear()
            self._orders[seed, lap] = order(masks, lap, seed, 2)
        return int(self._orders[seed, lap][place])

    @cached_property
    def _orders(self) -> dict[tuple[int, int], np.ndarray]:
        return {}

    def _type(self, category: str, kind: str, seed: int) -> int:
        """A seeded choice among the allowed types that the normal's category and the mask's folder name."""
        tests: tuple[Callable[[str, str], bool], ...] = (
            lambda c, a: c == category and a == kind,
            lambda c, a: a == kind,
            lambda c, a: c == category,
        )
        for test in tests:
            fitting = [i for i in self.allowed if test(*self.types[i].split("/", 1))]
            if fitting:
                return fitting[seed % len(fitting)]
        return self.allowed[seed % len(self.allowed)]


def find_normals(path: str) -> list[NormalSource]:
    """Images directly in a folder (in all below it, if it is called `normal` or the like), or the training normals of a
    dataset. Masks beside them are none. Raises `UserError`."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"--data_root {path} is not a folder; give a folder of normal images")
    if holds_dataset(folder):
        images = [NormalSource(s.image, s.category) for s in open_dataset(folder).normals]
    else:
        files = files_of(folder, folder.name.lower() in NORMAL_DIRS)
        images = [NormalSource(p) for p in split_beside(files)[0]]
        if not images and any(folder.iterdir()):
            images = [NormalSource(s.image, s.category) for s in open_dataset(folder).normals]
    if not images:
        raise UserError(f"--data_root {path} holds no normal image; give a folder of normal images")
    return images


def find_masks(path: str, read: ReadMask = read_mask) -> tuple[list[MaskSource], list[str]]:
    """(masks with a defect in them, the names of empty ones), from a folder and one level of folders below.

    Every mask is decoded, by `read`; LabelMe files are masks, too. Raises `UserError` for an unreadable one, a
    photograph, one that looks inverted, for a whole dataset, and where none has a defect.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(f"--mask_path {path} is not a folder; give a folder of mask images")
    if holds_masks(folder):
        raise UserError(f"--mask_path {path} is a dataset; give its folder of masks, or write masks of it with "
                        f"scripts/make_masks.py --source given --masks {path}")  # fmt: skip
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    sources = [MaskSource(file, place.name) for place in [folder, *below] for file in _masks_in(place)]
    if not sources:
        raise UserError(f"--mask_path {path} holds no image; give a folder of mask images")
    with ThreadPoolExecutor() as pool:
        defective = list(pool.map(lambda source: _has_defect(source.path, read), sources))
    filled = [s for s, yes in zip(sources, defective, strict=True) if yes]
    if not filled:
        raise UserError(f"--mask_path {path}: all {len(sources)} masks are empty; defect pixels must be white")
    return filled, [str(s.path) for s, yes in zip(sources, defective, strict=True) if not yes]


def _masks_in(folder: Path) -> list[Path]:
    return [*list_images(folder), *(p for p in sorted(folder.glob("*.json")) if is_annotation(p))]


def _has_defect(path: Path, read: ReadMask) -> bool:
    mask = read(path)
    if looks_inverted(mask) and not reading_of(path).mask_values:
        raise UserError(
            f"{path}: the defect would cover {mask.mean():.0%} of the picture; if the mask is inverted, invert it, or "
            f'say what the defect is in {path.parent / NAME}, {{"mask_values": [0]}}; if it is right, say so there too'
        )
    return bool(mask.any())


def match_types(
    types: list[str], anomaly_name: str | None, init_word: str | None, knows: str = "these weights know"
) -> list[int]:
    """Numbers of the learned types ("category/anomaly") that a name on the command line means, or several by commas.

    In this order: a type, "category/type" or "category+type" or the type alone; a category; a name that begins with a
    category (`bottle_test`); the category that `init_word` names, which also settles a type of several categories;
    the only type there is. Raises `UserError` for a name that means nothing, with who `knows` the types.
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
    if len(types) == 1:
        return [0]
    given = f"--init_word {init_word}" if anomaly_name is None else f"--anomaly_name {anomaly_name}"
    raise UserError(f"{given}: {knows} {', '.join(types)}; name one of them or a category")


def open_types(
    known: list[str],
    anomaly_name: str | None,
    init_word: str | None,
    kinds: Sequence[str] = (),
    category: str = "",
) -> list[str]:
    """Types "category/defect" for weights that serve any defect word.

    `anomaly_name`: one or more by commas, each "category/defect"; or a defect, where the weights know the word or
    nothing else names one; or else a category, alone for all that is `known` of it. `init_word`: the defect's word.
    Where neither names one, `kinds` do, the names of the masks' folders. `category`: where none is given; it may be
    empty.
    Raises `UserError` when no defect is named.
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
        raise UserError(
            "these weights serve any defect, and none is named; give a word with --init_word (scratch, say), "
            "or put the masks in folders named by words"
        )
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
    that says more than "train" or "good". To be asked about: where a folder lies is no setting."""
    path = Path(folder).resolve()
    says = [p.name for p in (path, *path.parents[:2]) if p.name and p.name.lower() not in SAY_NOTHING]
    return next((name for name in says if knows(name)), "")


def contents(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of each file, hexadecimal. Raises `UserError` for one that cannot be read."""

    def digest(path: Path) -> str:
        try:
            return file_hash(path)
        except OSError as error:
            raise UserError(f"{path}: cannot read the image ({error.strerror}); check the path") from None

    with ThreadPoolExecutor() as pool:
        return list(pool.map(digest, paths))


def marks(digests: Sequence[str]) -> np.ndarray:
    """The first 64 bits of each digest, (N,) uint64."""
    return np.array([int(d[:16], 16) for d in digests], np.uint64)


def drawn(candidates: np.ndarray, *key: int) -> int:
    """The candidate, by its `marks`, that wins for this key: the one with the highest hash of key and mark.

    Rendezvous hashing (Thaler and Ravishankar 1998): each wins equally often, and without one of them all keys that it
    did not win keep theirs.
    """
    return int(np.argmax(_mixed(candidates, seed_of(*key))))


def order(candidates: np.ndarray, lap: int, *key: int) -> np.ndarray:
    """The order of the candidates, by their `marks`, in time through number `lap`: (N,) numbers."""
    return np.argsort(_mixed(candidates, seed_of(*key, lap)), kind="stable")


def turn(candidates: np.ndarray, index: int, *key: int) -> int:
    """The candidate for number `index`, all of them by `order` every time through."""
    lap, place = divmod(index, len(candidates))
    return int(order(candidates, lap, *key)[place])


def _mixed(values: np.ndarray, key: int) -> np.ndarray:
    """A 64-bit hash of each value (N,) uint64 and the key: the last steps of SplitMix64."""
    x = values ^ np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
