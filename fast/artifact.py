"""Artifacts, `<name>-<step>.safetensors`: what a training made and, as metadata, all that made it; for the methods on a
latent base (`fast`, `stage`, ...) the trained parts alone, which go upon that base again."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import isclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from fast.latent.decoder import FitOptions
from fast.latent.prompted import PromptedDiffusion
from fast.runtime.folders import parse_json
from fast.runtime.project import in_project, named
from fast.runtime.validated import validated
from ldm.checkpoint import hash_aside, load_strict, read_metadata, read_state_dict, save_safetensors
from ldm.errors import UserError
from ldm.modules.encoders.modules import TextEncoder, offline
from ldm.util import get_obj_from_str, instantiate_from_config

if TYPE_CHECKING:
    from fast.model import FAST


# Hash of each base file that this process has read, as long as it stays as it is: adapters of many parts share one.
_VERIFIED: dict[tuple[Path, int, int, int], str] = {}


@dataclass(frozen=True)
class Artifact:
    """A trained method on a latent base, on disk, its weights not yet read.

    Args:
        path: its `.safetensors` file.
        step: the training step that it was saved at.
        config: the training's configuration, with its `model:` and `data:` sections.
        types: the learned types, each "category/anomaly".
        base: path of the base checkpoint, as the training recorded it.
        base_sha256: SHA-256 of that file.
        open_types: True if it serves any defect word, not `types` alone.
        drop_prompt: share of its training samples that had the empty prompt.
        tokenizer: folder or hub name of a tokenizer that the user gives. None: the recorded one, which is never
            fetched.
    """

    path: Path
    step: int
    config: dict[str, Any]
    types: list[str]
    base: str
    base_sha256: str
    open_types: bool = False
    drop_prompt: float = 0.0
    tokenizer: str | None = None

    @property
    def section(self) -> dict[str, Any]:
        """The `model:` section of its config, with the tokenizer to use.

        That is the given one, or else the recorded one, looked for beside the artifact where it is no folder here.
        """
        section = self.config["model"]
        params = section["params"]
        text = params.get("cond_stage_config")
        own = dict(text["params"]) if isinstance(text, dict) and isinstance(text.get("params"), dict) else {}
        if not isinstance(own.get("tokenizer"), str) and self.tokenizer is None:
            return dict(section)
        own["tokenizer"] = self.tokenizer or self._beside(own["tokenizer"])
        return {**section, "params": {**params, "cond_stage_config": {**text, "params": own}}}

    def _beside(self, tokenizer: str) -> str:
        if "\0" in tokenizer or in_project(Path(tokenizer).expanduser()).is_dir():
            return tokenizer
        beside = self.path.parent / Path(tokenizer).name
        return str(beside) if Path(tokenizer).name not in ("", "..") and beside.is_dir() else tokenizer

    @property
    def model(self) -> type[PromptedDiffusion]:
        """The class of its model. Raises `UserError` for one that is none of this project's."""
        _check_classes(self.config["model"], self.path)
        found: type[PromptedDiffusion] = get_obj_from_str(self.config["model"]["target"])
        return found


def find_weights(folder: str | os.PathLike[str], name: str, step: int | None = None, flag: str = "--pt_path") -> Path:
    """Find the weights `<name>-<step>.safetensors` of a training.

    Args:
        folder: a run's folder, with the files in it or in its `checkpoints`, or one such file. `mini` is the shipped
            base.
        name: the method's.
        step: which one. None: the last.
        flag: what messages call `folder` by.

    Raises:
        UserError: there is no such place, file or step.
    """
    given = in_project(Path(named(folder)))
    places = [given] if given.is_file() else [*given.glob("*"), *given.glob("checkpoints/*")]
    pattern = rf"{re.escape(name)}-(\d+)\.safetensors"
    found = {int(m[1]): p for p in places if (m := re.fullmatch(pattern, p.name))}
    if given.is_file() and not found:
        found = {_step_of(given): given}
    if not given.exists():
        raise UserError(f"{flag} {folder} is not there; give the run of a training, or mini, the shipped base")
    if not found:
        raise UserError(f"{flag} {folder}: no {name}-<step>.safetensors there; train with main.py first")
    if step is not None and step not in found:
        raise UserError(f"--weight_idx {step}: {folder} has the steps {', '.join(map(str, sorted(found)))}")
    return found[max(found) if step is None else step]


def _step_of(path: Path) -> int:
    step = read_metadata(path).get("step", "")
    if not step.isdigit():
        raise UserError(f"{path} is not an artifact of main.py: it records no step")
    return int(step)


def find_artifact(
    folder: str | os.PathLike[str], step: int | None = None, name: str = "fast", flag: str = "--pt_path"
) -> Artifact:
    """Find the artifact of a method on a latent base, as `find_weights` does. Raises `UserError`."""
    return read_artifact(find_weights(folder, name, step, flag))


def read_artifact(path: Path) -> Artifact:
    """The artifact in a file, from its metadata. Raises `UserError` for a damaged or foreign file."""
    meta = read_metadata(path)
    try:
        config, types = parse_json(meta["config"]), parse_json(meta["types"])
        open_types = meta.get("open_types") == "true"
        dropped = float(meta.get("drop_prompt", "0"))
        base = meta["base"], meta["base_sha256"]
        artifact = Artifact(path, int(meta["step"]), config, types, *base, open_types, dropped)
        whole = isinstance(config["model"]["params"], dict) and types and all("/" in t for t in types)
    except (KeyError, ValueError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{path} is not an artifact of main.py: its step, config, types or base is missing or broken")
    return artifact


def load_model(
    artifact: Artifact,
    base: str | None = None,
    *,
    dtype: torch.dtype | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> PromptedDiffusion:
    """Build the model of an artifact on its base and load what was trained.

    That is the prompt vectors, FARM or other networks and, where the artifact has them, adapters, the U-Net and the
    first stage's decoder. Every tensor is converted on its way in, so that no more memory is used than the kept weights
    take. The base's file is hashed meanwhile, once per process.

    Args:
        artifact: what to load.
        base: path of the base, in the place of the recorded one. None: the recorded path, looked for beside the
            artifact, from here and in this project.
        dtype: precision of the U-Net, the first stage and the text encoder: float32 (the same as None) or bfloat16.
            Other trained parts and the schedule are always float32.
        cache: folder to keep the base's weights in as bfloat16. Once they are there the base itself is neither read nor
            hashed and may be absent. None: nothing is kept.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        UserError: the artifact names foreign classes, the base is absent or another one, or a file in `cache` is
            unusable.
        ValueError: another `dtype`, or a `cache` without bfloat16, which the command refuses earlier.
    """
    if dtype not in (None, torch.float32, torch.bfloat16) or (cache is not None and dtype != torch.bfloat16):
        raise ValueError(f"dtype={dtype}, cache={cache}: use float32 without a cache, or bfloat16")
    _check_classes(artifact.config["model"], artifact.path)
    kept = None if cache is None else Path(cache) / f"{artifact.base_sha256[:16]}-bf16.safetensors"
    if kept is not None and kept.exists():
        model = _on_cached_base(artifact, kept)
        model.mapped_from = kept
    else:
        model = _on_verified_base(artifact, base, dtype)
        model.mapped_from = _base_path(artifact, base)
        if kept is not None:
            own = model.adapter_state()
            _write_cache(kept, {k: v for k, v in model.state_dict().items() if k not in own}, artifact.base_sha256)
    model.base_path, model._base_hash = base or artifact.base, artifact.base_sha256
    params = artifact.config["model"]["params"]
    model.thaw_unet = bool(params.get("thaw_unet"))
    fit = params.get("fit_decoder")
    model.fit_decoder = None if fit is None else validated(FitOptions, fit, f"{artifact.path}: fit_decoder")
    # A thawed U-Net is too large to be copied; the rest is small and need not keep a mapped file alive.
    state = {k: v if k.startswith("model.") else v.clone() for k, v in read_state_dict(artifact.path).items()}
    load_strict(_Part(model), state, str(artifact.path), mapped=artifact.path)
    return model.eval().requires_grad_(False)


def load_fast(artifact: Artifact, base: str | None = None, *, dtype: torch.dtype | None = None) -> "FAST":
    """Load the model of a FAST artifact, see `load_model`. Raises `UserError` for another method's artifact."""
    from fast.model import FAST

    model = load_model(artifact, base, dtype=dtype)
    if not isinstance(model, FAST):
        raise UserError(f"{artifact.path} holds a {type(model).__name__}, not a FAST; give a FAST's artifact")
    return model


def text_encoder(artifact: Artifact) -> TextEncoder:
    """The text encoder of an artifact's base without its weights, for what its tokenizer says of words."""
    _check_classes(artifact.config["model"], artifact.path)
    with torch.device("meta"), offline(artifact.tokenizer is None):
        return instantiate_from_config(artifact.section["params"]["cond_stage_config"])


def _build(artifact: Artifact, path: Path, dtype: torch.dtype | None) -> PromptedDiffusion:
    """The model on the base in `path`, all of it in one precision, for nothing trains here."""
    section = artifact.section
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    changes = {
        "ckpt_path": str(path), "types": artifact.types, "frozen_precision": precision,
        "thaw_unet": False, "fit_decoder": None, "init_word": None,
    }  # fmt: skip
    own = {k: v for k, v in section["params"].items() if k != "farm_from"}
    with offline(artifact.tokenizer is None):
        model: PromptedDiffusion = instantiate_from_config({"target": section["target"], "params": {**own, **changes}})
    return model


def _base_path(artifact: Artifact, given: str | None) -> Path:
    """Where the base is: as `given`, or as recorded, beside the artifact, from here, or from the project's folder."""
    recorded = Path(named(given or artifact.base))
    if given and in_project(recorded).is_dir():
        recorded /= "base.safetensors"
    beside = [] if given or not artifact.base else [artifact.path.parent / recorded.name]
    places = [*beside, recorded, in_project(recorded)]
    return next((p for p in places if p.is_file()), recorded)


def find_base(given: str) -> tuple[str, str | None]:
    """Find the base that a path means, and the artifact beside it.

    Args:
        given: a base's file, or a folder such as the shipped one (`mini`) that holds `base.safetensors` and perhaps
            `fast-<step>.safetensors`.

    Returns:
        (the base's file, the artifact's file or None).

    Raises:
        UserError: there is no such file.
    """
    path = in_project(Path(named(given)))
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"checkpoint {given} does not exist; check --actual_resume")
        return str(path), None
    base = path / "base.safetensors"
    if not base.is_file():
        raise UserError(f"--actual_resume {given}: no base.safetensors in that folder; give the file of the base")
    return str(base), find_farm(str(path)) if any(path.glob("fast-*.safetensors")) else None


def find_farm(given: str) -> str:
    """The artifact's file that a path means, a file or a folder. Raises `UserError`."""
    return str(find_artifact(given).path)


def _on_verified_base(artifact: Artifact, base: str | None, dtype: torch.dtype | None) -> PromptedDiffusion:
    """The model on the base that its training saw. Hash and weights go through the file side by side: one reading."""
    path = _base_path(artifact, base)
    if not path.is_file():
        raise UserError(
            f"the base checkpoint {base or artifact.base or '(not recorded)'} that {artifact.path.name} was trained on "
            "is not there; give its place with --actual_resume"
        )
    state = path.resolve(), (about := path.stat()).st_ino, about.st_size, about.st_mtime_ns
    found = None if _VERIFIED.get(state) == artifact.base_sha256 else hash_aside(path)

    def verify() -> None:
        if found is None:
            return
        _VERIFIED[state] = found.result()
        if found.result() != artifact.base_sha256:
            raise UserError(
                f"{path} is not the base that {artifact.path.name} was trained on "
                f"(sha256 {artifact.base_sha256[:12]}...); give that one with --actual_resume"
            )

    try:
        model = _build(artifact, path, dtype)
    except UserError:
        verify()  # a base that does not fit is most likely another one, which says more
        raise
    verify()
    return model


def _cache_metadata(base_sha256: str) -> dict[str, str]:
    return {"fast_base_cache": "1", "base_sha256": base_sha256, "dtype": "bf16"}


def _on_cached_base(artifact: Artifact, path: Path) -> PromptedDiffusion:
    """The model on converted weights that an earlier run left in the cache."""
    try:
        metadata = read_metadata(path)
    except UserError as error:
        raise UserError(f"cache file {path} is damaged; remove it, and it is made again ({error})") from None
    if metadata != _cache_metadata(artifact.base_sha256):
        raise UserError(
            f"cache file {path} was not made from the base that {artifact.path.name} was trained on "
            f"(sha256 {artifact.base_sha256[:12]}...); remove it, and it is made again"
        )
    try:
        return _build(artifact, path, torch.bfloat16)
    except UserError as error:
        if str(path) not in str(error):  # a tokenizer that is not there, say
            raise
        raise UserError(f"cache file {path} cannot be used; remove it, and it is made again ({error})") from None


def _write_cache(path: Path, tensors: Mapping[str, torch.Tensor], base_sha256: str) -> None:
    """Keep converted weights for the next run. Several processes may do so at once: the last one's file stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent, prefix=".", suffix=".part") as aside:
            whole = Path(aside) / path.name
            save_safetensors(tensors, whole, _cache_metadata(base_sha256))
            os.replace(whole, path)
    except OSError as error:
        raise UserError(
            f"the converted base cannot be kept as {path} ({error}); free space, choose another folder or do without"
        ) from None


def _check_classes(section: dict[str, Any], path: Path) -> None:
    """An artifact is data: its classes are this project's, its model a method on a base. Raises `UserError`."""
    for target in _targets(section):
        if not _is_class(target):
            raise UserError(f"{path} asks for target: {target}, which is no class of this project; it was not loaded")
    target = section.get("target")
    if not isinstance(target, str) or not issubclass(get_obj_from_str(target), PromptedDiffusion):
        raise UserError(f"{path} holds a {target}, no method on a latent base; give an artifact that main.py wrote")


def _is_class(target: Any) -> bool:
    """Whether a `target:` names a class of this project or a layer of torch."""
    if not str(target).startswith(("fast.", "ldm.", "taming.", "torch.nn.")):
        return False
    try:
        return isclass(get_obj_from_str(target))
    except UserError:
        return False


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, dict) and "target" in node:
        yield node["target"]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _targets(child)


class _Part(torch.nn.Module):
    """The trained parts of a model under their names in it."""

    def __init__(self, model: PromptedDiffusion):
        super().__init__()
        for name, part in model.trainable_modules().items():
            owner: torch.nn.Module = self
            *path, last = name.split(".")
            for step in path:
                owner.add_module(step, torch.nn.Module())
                owner = owner.get_submodule(step)
            owner.add_module(last, part)
