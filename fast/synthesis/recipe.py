"""How trained weights make pairs: what is asked of them, what they recommend, and what this machine can do."""

from collections.abc import Mapping
from typing import Any

import torch

from fast.artifact import Artifact
from fast.latent.sampling import check_scale
from fast.synthesis.options import Recipe
from ldm.errors import UserError
from ldm.modules.packed import has_int8
from ldm.util import check_params, check_values

PRECISIONS = ("fp32", "bf16", "int8")


def recipe_for(artifact: Artifact, **given: Any) -> Recipe:
    """How an artifact makes pairs: what is given (None counts as not given), else as it was trained and recommends.

    Raises `UserError` for an option or a number of steps that it does not have.
    """
    params, method = artifact.config["model"]["params"], artifact.model
    own = {k: given[k] for k in method.switches if given.get(k) is not None}
    given = {k: v for k, v in given.items() if v is not None and k not in own}
    check_params(Recipe, {k: v for k, v in given.items() if k != "own"}, f"method {method.name}")
    if "own" in given:
        raise UserError(f"method.own is no option; give {method.name}'s switches by name: {', '.join(method.switches)}")
    check_values(Recipe, given, "method")
    sampler = given.get("sampler", method.samplers[0])
    if sampler not in method.samplers:
        raise UserError(f"--sampler {sampler} is none of {method.name}'s; use {', '.join(method.samplers)}")
    scale = given.get("scale", params.get("scale", 1.0))
    check_values(Recipe, {"scale": scale}, f"{artifact.path}: model.params")
    check_scale(scale, "--scale" if "scale" in given else f"{artifact.path}: model.params.scale")
    timesteps = params.get("timesteps", 1000)
    steps = given.get("steps", method.evaluations(params))
    if not 1 <= steps <= timesteps:
        raise UserError(f"--steps {steps} lies outside 1..{timesteps}, the steps this base knows")
    steps = timesteps if sampler == "ddpm" else steps
    data = artifact.config.get("data")
    data = data.get("params") if isinstance(data, dict) else None
    data = data if isinstance(data, dict) else {}
    trained, windows = _trained_side(artifact, data), data.get("native") or artifact.open_types
    region = given.get("region", "auto" if windows else "full")
    size = given.get("size", trained if region == "full" else None)
    window = {"min_window": trained, "max_window": 2 * trained}
    sampling = {"sampler": sampler, "steps": steps, "scale": float(scale)}
    return Recipe(**{**window, **given, **sampling, "region": region, "size": size, "own": own})


def _trained_side(artifact: Artifact, data: Mapping[str, Any]) -> int:
    """Side in pixels of the pictures that an artifact was trained on."""
    side = data.get("size", 256)
    if not isinstance(side, int) or isinstance(side, bool) or not 8 <= side <= 65535:
        raise UserError(f"{artifact.path} is not an artifact of main.py: data.params.size={side} in its config")
    return side


class GuidanceWarning(UserWarning):
    """Guidance is asked of weights that never saw the empty prompt in training."""


def guidance_note(artifact: Artifact, recipe: Recipe) -> str | None:
    """What to tell who asks for guidance by weights that never saw the empty prompt in training."""
    if recipe.scale == 1 or artifact.drop_prompt > 0:
        return None
    return (
        f"{artifact.path.name} was trained without dropped prompts (model.params.drop_prompt), so what "
        f"--scale {recipe.scale:g} does to it is chance"
    )


def check_recipe(recipe: Recipe, device: torch.device) -> None:
    """Raise `UserError` for a recipe that this machine cannot follow."""
    if recipe.region not in ("auto", "full"):
        raise UserError(f"--region {recipe.region} is unknown; use auto or full")
    check_scale(recipe.scale, "--scale")
    if recipe.precision not in PRECISIONS:
        raise UserError(f"--precision {recipe.precision} is unknown; use {', '.join(PRECISIONS)}")
    if recipe.precision == "int8" and (device.type != "cpu" or not has_int8()):
        raise UserError("--precision int8 needs a CPU with 8-bit dot products (AVX-512 VNNI); use bf16")
    if recipe.compiled and (recipe.precision == "int8" or recipe.region == "auto"):
        raise UserError("--compile is for one size of window and weights as they are: not with --region auto or int8")
