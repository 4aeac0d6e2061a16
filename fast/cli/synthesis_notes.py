"""What the synthesis command tells before it starts: what of the options is not used, and how names are understood."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fast.artifact import Artifact, text_encoder
from fast.cli.dataset_notes import tell_left_out
from fast.data.category import MASK_DIRS
from fast.data.check import NO_PICTURES, depths_note, two_valued
from fast.data.decode import may_be_deep
from fast.data.depth import read_with_mode
from fast.data.images import read_image
from fast.data.words import prompt_text
from fast.generators import FREE
from fast.generators.base import Generator
from fast.generators.drafts import MixedDrafter
from fast.generators.looks import cannot_draw, looks_notes, own_looks, undrawable
from fast.generators.names import SYNONYMS, drawn_as
from fast.generators.transplant import Transplant
from fast.latent.prompts import is_vocabulary
from fast.procedural.defects import DEFECTS, DRAWABLE
from fast.runtime.counts import number_of
from fast.runtime.options import did_you_mean
from fast.synthesis.defect_types import perhaps_category
from fast.synthesis.options import Recipe, SynthesisOptions, draft_methods
from fast.synthesis.recipe import guidance_note
from fast.synthesis.sources import NormalSource, Sources, kinds_below
from ldm.errors import UserError

LOOKED_AT = 3  # normal pictures that are looked at before all are made
HEADS, DEEP = 10_000, 64  # of which the first bytes are looked at for 16 bits, and of those with 16 bits the values
LOOKS_OF_DRAFTS = "method.draft_options.looks"  # the option, as it is given on the command line


def tell_recipe(options: SynthesisOptions, artifact: Artifact, recipe: Recipe) -> None:
    """What of the options these weights do not follow, or were not trained for."""
    if (note := guidance_note(artifact, recipe)) is not None:
        print(f"warning: {note}", flush=True)
    if recipe.sampler == "ddpm" and options.steps not in (None, recipe.steps):
        print(f"--steps {options.steps} is not used: ddpm always takes all {recipe.steps}", flush=True)
    for name in ("margin", "min_window", "max_window"):
        if recipe.region == "full" and getattr(options, name) is not None:
            print(f"--{name} {getattr(options, name)} is not used: it is for --region auto", flush=True)


def tell_words(options: SynthesisOptions, artifact: Artifact, recipe: Recipe, types: list[str]) -> None:
    """Of weights that serve any words: that nothing says what the images are of, and which they were not trained on.
    `types`: those to be made."""
    encoder = text_encoder(artifact)
    perhaps = perhaps_category(options.data_root or "", lambda name: is_vocabulary(encoder, name))
    if perhaps and all(key.startswith("/") for key in types):
        # Where the defect's word is in --anomaly_name, the part's goes before it.
        whole = ",".join(perhaps + key for key in types) if options.anomaly_name else perhaps
        print(f"note: nothing says what the images are of; if it is {perhaps}, say --anomaly_name {whole}")
    trained = [prompt_text("", t.split("/", 1)[1]) for t in artifact.types]
    words = list(dict.fromkeys(key.split("/", 1)[1] for key in types))
    strange = [word for word in words if prompt_text("", word) not in trained]
    drawn = [word for word in strange if recipe.from_draft and _by_looks(recipe, word)]
    told = [f"{word!r}{did_you_mean(prompt_text('', word), trained)}" for word in strange if word not in drawn]
    if recipe.draft == "mixed":
        told += [f"{word!r} (where a draft is a real one)" for word in drawn]
    if told:
        print(f"note: these weights were not trained on {', '.join(told)}; they go by the spelling alone", flush=True)


def _by_looks(recipe: Recipe, word: str) -> bool:
    """Whether drawn drafts of a type are made new by the words for what is drawn, all of which the shipped weights
    know."""
    if "procedural" not in draft_methods(recipe.draft):
        return False
    names = own_looks(recipe.draft_options.get("looks") or {}).get(word, drawn_as(word))
    return bool(names) and all(look in DEFECTS for look in names)


def tell_unused(options: SynthesisOptions, made: Generator) -> None:
    """Which options this method passes over."""
    if options.device == "cuda" and options.method in FREE and options.masks != "learned":
        print(f"--device cuda is not used: {options.method} computes on the CPU", flush=True)
    if made.words and options.anomaly_name and options.init_word:
        print(f"--init_word {options.init_word} is not used: --anomaly_name names the types", flush=True)


def tell_looks(sources: Sources, looks: Mapping[str, Any], change: str, say: bool) -> None:
    for note in looks_notes([sources.types[i] for i in sources.allowed], looks, change) if say else ():
        print(note, flush=True)


def tell_masks(options: SynthesisOptions, sources: Sources) -> None:
    """Of types that are named: which are filled into the masks of folders of other names, or get no mask at all."""
    if not options.mask_path or not (options.anomaly_name or options.init_word):
        return
    words = dict.fromkeys(sources.types[i].split("/", 1)[1] for i in sources.allowed)
    top, kinds = Path(options.mask_path), {mask.kind for mask in sources.masks}
    others = [kind for kind in kinds_below(options.mask_path, sources.masks) if kind not in words]
    without = [word for word in words if word not in kinds]
    if others:
        told = f"the masks in {', '.join(others)} are used for {', '.join(words)}"
        print(f"note: {told}; to use others, put them in a folder of the type's name, or name theirs with --mask_path")
    elif top.name not in words and _names_a_type(top, sources):
        told = f"the masks in {top} are used for {', '.join(words)}, not for {top.name}"
        print(f"note: {told}; to use others, name another folder with --mask_path", flush=True)
    elif without and kinds <= words.keys():
        print(f"note: no mask lies in a folder {' or '.join(without)}, so that nothing of it is made; put some there")


def _names_a_type(folder: Path, sources: Sources) -> bool:
    """Whether a folder of masks is called as a type is: one that is known, or whatever folders of masks hold."""
    known = {*DRAWABLE, *SYNONYMS, *(key.split("/", 1)[1] for key in sources.types)}
    return folder.name in known or folder.parent.name.lower() in MASK_DIRS


def tell_sources_left_out(makers: Iterable[Generator]) -> None:
    """Of the datasets that real defects are cut from."""
    for made in makers:
        if isinstance(made, Transplant):
            tell_left_out(made.dataset, made.left_out, made.doubts)


def tell_sources(sources: Sources) -> None:
    kinds = ", ".join(sources.types[i].lstrip("/") for i in sources.allowed)
    files = f", {number_of(len(sources.masks), 'mask')}" if sources.masks else ""
    print(f"{number_of(len(sources.normals), 'normal')}{files}, types: {kinds}", flush=True)
    if _like_masks(sources.normals[:LOOKED_AT]):
        told = "the normal pictures have two values only, as masks have; if that is what they are"
        print(f"warning: {told}, {NO_PICTURES}, with --data_root", flush=True)
    _tell_depths(sources.normals)


def _tell_depths(normals: Sequence[NormalSource]) -> None:
    """Whether 16-bit images seem to differ in depth, as far as some from all over tell."""
    depths: dict[int, Path] = {}
    for one in _spread([one for one in _spread(normals, HEADS) if may_be_deep(one.path)], DEEP):
        try:
            _, mode = read_with_mode(one.path)
        except UserError:  # told where the pair is made
            continue
        if mode.container == 16:
            depths.setdefault(mode.bits, one.path)
    if len(depths) > 1:
        told = " and ".join(f"{bits} bits ({path})" for bits, path in sorted(depths.items()))
        print(f"note: {depths_note(f'by their values normal images are of {told}', max(depths))}", flush=True)


def _spread(normals: Sequence[NormalSource], most: int) -> Sequence[NormalSource]:
    """At most so many of them, at equal distances."""
    return normals[:: max(1, -(-len(normals) // most))]


def _like_masks(normals: Sequence[NormalSource]) -> bool:
    try:
        return bool(normals) and all(two_valued(read_image(one.path)) for one in normals)
    except UserError:  # told where the pair is made
        return False


def check_drawable(types: list[str], looks: Mapping[str, Any]) -> None:
    """Raises `UserError` for a type that no draft can be drawn of."""
    if without := undrawable(types, own_looks(looks)):
        raise cannot_draw(without[0], looks, LOOKS_OF_DRAFTS)


def tell_drafts(mixed: MixedDrafter, sources: Sources, looks: Mapping[str, Any]) -> None:
    """The types of which one of the methods that are mixed makes no draft, but those that are given no look."""
    for drafter in mixed.drafters:
        refused = [sources.types[number] for number in sources.allowed if number in drafter.refused]
        words = dict.fromkeys(key.rpartition("/")[2] for key in refused)
        without = [word for word in words if drafter.method.name == "transplant" or word not in looks]
        if not without:
            continue
        named = " or ".join(without)
        if drafter.method.name == "transplant":
            print(f"note: there is no real defect of type {named}: its drafts are drawn ones alone", flush=True)
            continue
        option = shlex.quote(f"{LOOKS_OF_DRAFTS}.{without[0]}=[scratch]")
        print(
            f"note: nothing that can be drawn is called {named}: its drafts are real defects alone; if it looks like "
            f"something that can be drawn, say so: {option}",
            flush=True,
        )
