"""Which defect types the options of synthesis and the folders' names ask for, as "category/word"."""

from fast.artifact import Artifact, text_encoder
from fast.generators.base import Generator as Method
from fast.latent.prompts import check_words, is_vocabulary
from fast.synthesis.defect_types import category_of, open_types
from fast.synthesis.options import SynthesisOptions
from fast.synthesis.sources import MaskSource, NormalSource, kinds_below


def asked_types(
    options: SynthesisOptions, artifact: Artifact, normals: list[NormalSource], masks: list[MaskSource]
) -> list[str]:
    """The types that the flags and folders ask of weights that serve any words. Raises `UserError` for no words."""
    encoder, kinds = text_encoder(artifact), kinds_below(options.mask_path, masks)
    category = category_of(normals, options.data_root or "", lambda name: is_vocabulary(encoder, name))
    types = open_types(artifact.types, options.anomaly_name, options.init_word, kinds, category)
    for key in types:
        check_words(encoder, key)
    return types


def worded_types(
    options: SynthesisOptions, made: Method, normals: list[NormalSource], masks: list[MaskSource]
) -> list[str]:
    """Types "category/word" for a method that makes any defect it has a word for: those named, those that the masks'
    folders name, or all. Raises `UserError` for a word that it cannot make."""
    kinds = kinds_below(options.mask_path, masks)
    categories = sorted({n.category for n in normals} or {""})
    types: list[str] = []
    for name in (options.anomaly_name or options.init_word or ",".join(kinds or made.words)).split(","):
        name = name.strip().replace("+", "/", 1)
        if name in categories and name:
            types += [f"{name}/{word}" for word in kinds or made.words]
        else:
            types += [name] if "/" in name else [f"{category}/{name}" for category in categories]
    for key in types:
        made.check_word(key)
    return list(dict.fromkeys(types))


def named_types(options: SynthesisOptions, normals: list[NormalSource], masks: list[MaskSource]) -> list[str]:
    """Types "category/anomaly" for a method that knows none: by the masks' folders, else by its own name."""
    kinds = kinds_below(options.mask_path, masks) or [options.method]
    return [f"{category}/{kind}" for category in sorted({n.category for n in normals} or {""}) for kind in kinds]
