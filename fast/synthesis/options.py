"""The options of synthesis, each declared once: from them follow the command's flags, the arguments of
`fast.generators.create` and what the manifest records. No heavy import here: `--help` reads this file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

from fast.runtime.flags import check_limits, option
from fast.runtime.runner import RunnerOptions
from ldm.errors import UserError

MOST_SIDE = 65535  # of PNG's and JPEG's pictures
FIRST_AGAIN = 2_000_000  # number of the first pair that comes in the place of a rejected one, behind all others
FIRST_COUNTERFEIT = 1_000_000  # number of the first counterfeit in a set, behind those of all pairs
MASKS = ("given", "augmented", "own", "perlin", "scratch", "blob", "crack", "spots", "mixed", "learned")
DRAFTS = ("none", "transplant", "procedural", "mixed")
MAX_DISTANCE = 1.0  # of a drawn draft among mixed ones from the real defects: moved real ones are 1 away, in the median
DRAFT_STRENGTH = 0.3
# How far a counterfeit's normal image is noised, as a share of T, where defects start from noise. From a fifth on the
# shipped base leaves a patch that looks like a stain.
COUNTERFEIT_STRENGTH = 0.1
NONE_NAMED = (
    "these weights serve any defect, and none is named; name some with --anomaly_name scratch,crack (or one with "
    "--init_word scratch), or put masks in folders named by words"
)


@dataclass(frozen=True)
class SamplingOptions:
    """How a trained method on a latent base makes pairs.

    The help of each field, in its `option(...)`, says what it is, its unit and its default. None means what the weights
    recommend, see `fast.synthesis.recipe.recipe_for`. Two fields have no flag.

    Args:
        draft_options: options of the method that makes the drafts, by name.
        own: the method's own switches by name, such as stage's `aif`.
    """

    # fmt: off
    size: int | None = option(
        None, "side in pixels of the square that pictures are resized to (default: the training size; with --region "
        "auto, and of methods that learn nothing, they keep their own)", least=1, most=MOST_SIDE)
    sampler: str | None = option(
        None, "default: the method's (fast aias, stage ddpm, anomalydiffusion ddim)",
        choices=["aias", "ddpm", "ddim", "plms"])
    steps: int | None = option(None, "network evaluations (default: the recipe's; ddpm: all)", least=1)
    use_farm: bool = option(True, "leave FARM out (the paper's ablation)", "--no_farm")
    precision: str = option(
        "auto", "of the networks' weights; auto: bf16 where the machine computes in it, else fp32; int8: the U-Net's, "
        "on CPUs with the instructions (default auto)", choices=["auto", "fp32", "bf16", "int8"])
    region: str | None = option(
        None, "sample the full picture, or auto: only windows around the mask (default: auto for weights that were "
        "trained on windows, data.params.native, and the shipped ones, else full)", choices=["auto", "full"])
    margin: int | None = option(None, "pixels of context around a defect (default 32)", least=0)
    min_window: int | None = option(
        None, "least side of a window in pixels (default: the training size; smaller is faster)",
        least=1, most=MOST_SIDE)
    max_window: int | None = option(
        None, "larger windows are evaluated in overlapping tiles of this side (default: twice the training size)",
        least=1, most=MOST_SIDE)
    reuse: int = option(
        1, "run the inner U-Net blocks at every N-th evaluation only (default 1: always)", metavar="N", least=1)
    stop_at: int = option(
        0, "no evaluation at times up to T; 2 saves the last two of aias (default 0)", metavar="T", least=0)
    compiled: bool = option(False, "run the U-Net through torch.compile", "--compile")
    composite: bool = option(
        True, "leave all of the decoded window in the picture, as AnomalyDiffusion and STAGE do", "--no_composite")
    scale: float | None = option(
        None, "classifier-free guidance: how much the words count against no words, from 0; 1 is none, all else takes "
        "twice the time (default: as the weights recommend, 1 where they say nothing)", metavar="W")
    draft: str = option(
        "none", "start from a first version of each defect instead of from noise: transplant, a real one set into the "
        "picture (of --defects, --split); procedural, a drawn one, in --mask_path's masks if given; mixed, one or the "
        "other by chance, drawn ones only if they look like the real ones. For fast with aias (default none)",
        choices=DRAFTS)
    strength: float = option(
        DRAFT_STRENGTH, "how much of the --draft is made new, above 0 to 1: it is noised to that share of all "
        f"times (default {DRAFT_STRENGTH:g}; 1: nothing of it is left but its mask)", metavar="S")
    draft_options: Mapping[str, Any] = option({}, None)  # of the method that makes the drafts, by name
    detail: bool = option(
        True, "do not give back the grain and noise that the first stage loses", "--no_detail")
    blend: int = option(
        2, "the change fades in from the mask's border within so many pixels, that of a soft defect more slowly; for "
        "0 not at all (default 2)", metavar="PX", least=0, most=64)
    own: Mapping[str, Any] = option({}, None)  # the method's own switches by name, such as stage's `aif`
    # fmt: on


@dataclass(frozen=True)
class Recipe(SamplingOptions):
    """Sampling options with everything decided, as the engine takes them and the manifest records them.

    No field is left to a recommendation: `size` None means that pictures keep their own size.
    """

    sampler: str = "aias"
    steps: int = 10
    precision: str = "fp32"
    region: str = "full"
    margin: int = 32
    min_window: int = 256
    max_window: int = 512
    scale: float = 1.0

    @property
    def from_draft(self) -> bool:
        """Whether pairs start from a draft's picture; at strength 1 they take its mask alone."""
        return self.draft != "none" and self.strength < 1


@dataclass(frozen=True)
class LatentOptions(SamplingOptions):
    """Which weights a method on a latent base takes, from where, and how it samples.

    These are the arguments of `create("fast", ...)`. The help of each field says what it is. One field has no flag.

    Args:
        types: "category/word" for weights that serve any words, such as `mini`. None: the types that the weights
            learned.
    """

    # fmt: off
    weights: str | Path | None = option(
        None, "folder of <method>-<step>.safetensors, as main.py writes them, or one such file; mini: those that "
        "come with the project (./mini is a folder); needed by methods that learn; or a list by commas, the weights of "
        "several parts, each into a folder of its name", "--pt_path", metavar="FOLDER[,FOLDER]")
    step: int | None = option(None, "step of the weights (default: the last)", "--weight_idx")
    base: str | None = option(
        None, "the base checkpoint, if it is no longer where training found it", "--actual_resume", metavar="CKPT")
    tokenizer: str | None = option(
        None, "the base's tokenizer: a folder, or a hub name, which is fetched (default: the recorded one, as far as "
        "it is on this machine)", metavar="FOLDER|NAME")
    weights_cache: str | Path | None = option(
        None, "keep the base here in bfloat16, for a quick start next time (bf16 and int8)", metavar="FOLDER")
    device: str = option("auto", "", choices=["auto", "cpu", "cuda"])
    types: Sequence[str] | None = option(None, None)
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class SynthesisOptions(LatentOptions, RunnerOptions):
    """A set of pairs to make: the method, what it starts from, where the defects go and how many there are.

    The help of each field says what it is. One field has no flag.

    Args:
        overrides: `key=value` for options of the method, as after `method.` on the command line.
    """

    # fmt: off
    method: str = option("fast", "what makes the defects (default fast)")
    data_root: str | None = option(
        None, "normal images, or a dataset (needed by all but dfmgan); with a list of --pt_path one for all, or "
        "one for each by commas, as --mask_path", metavar="FOLDER")
    mask_path: str | None = option(
        None, "masks, white = defect; folders inside it name defect types", metavar="FOLDER")
    anomaly_name: str | None = option(
        None, "defect types to make, separated by commas: a type, category/type, or a category for all of its types; "
        "for weights that serve any words: part/word; for procedural: scratch, crack, dent and so on (default: all "
        "there are)")
    init_word: str | None = option(
        None, "category to take if --anomaly_name names none; for weights that serve any words: the defect's word "
        "(scratch, say)")
    material: str | None = option(
        None, "procedural: what the part is of, a material (rolled_metal, leather, ...) or a family (metal, "
        "wood, hide, cloth, mineral, polymer, paint, glass, board, paper); default: estimated from each picture",
        metavar="NAME")
    defects: str | None = option(
        None, "transplant, also as a draft: dataset whose real defects are cut out (default: --data_root); with "
        "--keep: those that the pairs of any method are compared with; with --split: whose it is",
        metavar="FOLDER")
    split: str | None = option(
        None, "of --defects, which: the training side of a file of prepare_data.py, a third as that would draw it "
        "(transplant's default), or all; for every method that takes normal images also: none of a part on the test "
        "side, where groups name the parts of normal images, and no mask of --mask_path that is of a defect there",
        metavar="third|all|FILE")
    masks: str | None = option(
        None, "given: those of --mask_path as they are; augmented: moved, turned, scaled, bent; own: the method's; "
        "drawn shapes; learned: of --mask_weights (default: given where there is a --mask_path, else the method's own)",
        choices=MASKS)
    mask_weights: str | None = option(
        None, "weights of configs/methods/masks.yaml, for --masks learned", metavar="FOLDER")
    on_object: str | None = option(
        None, "keep masks on the object: auto, otsu, otsu_dark, triangle; a region file, or a folder with one for each "
        "picture; or off (default: auto, but off for given masks); procedural and transplant keep their own defects on "
        "it", metavar="RULE|PATH")
    honest_masks: bool = option(
        False, "methods on a latent base: a pair's mask is where the picture really changed, the asked one lies in "
        "mask_asked/; where next to nothing changed the pair is made again")
    preview: str | None = option(None, "PNG of the first masks over their pictures", metavar="FILE")
    sample_name: str = option(
        MISSING, "output: image/, mask/, triptych/, manifest.jsonl; with --shards a folder or a URL such as "
        "s3://bucket/name", metavar="FOLDER")
    shards: int | None = option(
        None, "write WebDataset tar files of N pairs each, with their records beside them, in the place of folders; a "
        "process that is stopped or dies loses the shard that it was at (docs/scale.md), so small ones lose less",
        metavar="N", least=1)
    count: int = option(500, "pairs in all (default 500)", least=1)
    counterfeits: float = option(
        0.0, "methods on a latent base: beside the pairs, this share of their number with normal content in the same "
        "masks, labelled normal, against segmenters that learn the synthesis instead of the defects (default 0)",
        metavar="SHARE", least=0)
    keep: float | None = option(
        None, "score all pairs (scripts/score.py) and keep the best share of each type, 0.7 say; the others lie in "
        "rejected/", metavar="SHARE")
    regenerate: bool = option(
        False, "make so many pairs more that --count are left of what --keep and --honest_masks reject")
    extend: bool = option(
        False, "go on with a set after normal images, masks or types were added: what is made stays")
    seed: int = option(0, "pair i depends on this, i and what its files hold (default 0)", least=0)
    batch_size: int = option(8, "pairs in flight; does not change the pairs", least=1)
    overrides: list[str] = option([], None)
    # fmt: on


def draft_methods(draft: str) -> tuple[str, ...]:
    """The methods that make the drafts of this name, one of `DRAFTS`."""
    return {"none": (), "mixed": ("transplant", "procedural")}.get(draft, (draft,))


def transplants(options: SynthesisOptions) -> bool:
    """Whether real defects are set into the pictures, as pairs or as drafts."""
    return "transplant" in (options.method, *draft_methods(options.draft))


def check_latent(options: LatentOptions, method: str) -> None:
    """What can be refused of a method's options before its weights are looked at. Raises `UserError`."""
    check_limits(options)
    if options.scale is not None and not 0 <= options.scale < math.inf:
        raise UserError(f"--scale={options.scale} is no guidance scale; give a number from 0, 1 for no guidance")
    if options.draft not in DRAFTS:
        raise UserError(f"--draft {options.draft} is unknown; use one of {', '.join(DRAFTS)}")
    if not 0 < options.strength <= 1:
        raise UserError(f"--strength {options.strength:g} lies outside 0..1; give a share above 0, 1 for pure noise")
    if options.draft == "none" and options.strength != DRAFT_STRENGTH:
        raise strength_alone(options.strength, method)
    if options.draft != "none" and method != "fast":
        raise _draft_of_another(options.draft, method)
    if options.draft != "none" and options.sampler not in (None, "aias"):
        raise UserError(f"--draft {options.draft} is for --sampler aias, not {options.sampler}; leave one of them out")
    if not options.use_farm and method in ("stage", "anomalydiffusion"):
        raise UserError(f"--no_farm is for fast: {method} has no FARM; leave it out")
    if options.stop_at and (method != "fast" or options.sampler not in (None, "aias")):
        raise UserError(f"--stop_at {options.stop_at} is for --sampler aias of fast; leave one of the two out")
    if options.compiled and (options.precision == "int8" or options.region == "auto"):
        raise UserError("--compile is for one size of window and weights as they are: not with --region auto or int8")
    if options.weights_cache and options.precision == "fp32":
        raise UserError("--weights_cache keeps weights in bfloat16; add --precision bf16 or int8")


def strength_alone(strength: float, method: str) -> UserError:
    """What to say of `--strength` without `--draft`."""
    remedy = "add --draft, or leave it out" if method == "fast" else f"{method} starts from no draft; leave it out"
    return UserError(f"--strength {strength:g} is how much of fast's --draft is made new; {remedy}")


def _draft_of_another(draft: str, method: str) -> UserError:
    """What to say of `--draft` where the method is not fast."""
    whole = f"--method {draft} makes whole pairs, and --draft {draft} is what --method fast starts from"
    if method != draft:
        whole = f"--draft {draft} is what --method fast starts from, not {method}"
    return UserError(f"{whole}; leave --draft out, or say --method fast with its --pt_path")
