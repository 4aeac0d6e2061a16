"""Opening a base: what stays in which precision, the cache of converted weights, and how much memory it takes."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from fast.artifact import Artifact, _write_cache, find_artifact, load_model, read_artifact
from fast.model import FAST
from ldm.checkpoint import read_metadata, read_state_dict, save_safetensors
from ldm.errors import UserError
from ldm.hashing import file_hash
from ldm.models.diffusion.ddpm import LatentDiffusion
from support.paths import ROOT
from support.tiny import TYPES, randomize

BF16 = torch.bfloat16
CONVERTED = ("model.", "first_stage_model.", "cond_stage_model.")


def batch(seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(2, 1, 64, 64)
    mask[:, :, 20:40, 24:50] = 1
    image = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    return {"image": image, "mask": mask, "type": torch.tensor([1, 5]), "seed": torch.tensor([3, 4])}


def cache_file(folder: Path, artifact: Artifact) -> Path:
    return folder / f"{artifact.base_sha256[:16]}-bf16.safetensors"


@pytest.fixture
def artifact(own_artifact: Path) -> Artifact:
    return find_artifact(own_artifact)


@pytest.fixture
def own_base(artifact: Artifact, tmp_path: Path) -> str:
    """A copy of the base that a test may remove."""
    return str(shutil.copy(artifact.base, tmp_path / "base.safetensors"))


def same_bytes(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        assert value.flatten().view(torch.uint8).equal(other[name].flatten().view(torch.uint8)), name


# precision


def test_the_base_is_bf16_and_the_rest_float32(artifact: Artifact) -> None:
    state, base = load_model(artifact, dtype=BF16).state_dict(), read_state_dict(artifact.base)
    for name, value in state.items():
        lowered = name.startswith(CONVERTED)
        assert value.dtype == (BF16 if lowered else torch.float32), name
        assert not value.is_meta
        if name in base:
            assert_close(value, base[name].to(value.dtype), rtol=0, atol=0)
    own = read_state_dict(artifact.path)
    same_bytes({k: v for k, v in state.items() if k in own}, own)
    assert {"betas", "farm.out.weight", "prompts.vectors"} <= state.keys()


def test_without_a_precision_all_is_float32_whatever_training_used(artifact: Artifact) -> None:
    artifact.config["model"]["params"]["frozen_precision"] = "bf16"
    plain = load_model(artifact).state_dict()
    assert {v.dtype for v in plain.values()} == {torch.float32}
    same_bytes(plain, load_model(artifact, dtype=torch.float32).state_dict())


@pytest.mark.parametrize("options", [{"dtype": torch.float16}, {"cache": "c"}, {"dtype": torch.float32, "cache": "c"}])
def test_what_makes_no_sense_is_the_caller_s_mistake(artifact: Artifact, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="use float32 without a cache, or bfloat16"):
        load_model(artifact, **options)


def dtypes(model: LatentDiffusion) -> dict[str, torch.dtype]:
    parts = {"unet": model.model, "first": model.first_stage_model, "text": model.cond_stage_model}
    found = {name: {v.dtype for v in part.state_dict().values()} for name, part in parts.items()}
    assert all(len(kinds) == 1 for kinds in found.values())
    return {name: kinds.pop() for name, kinds in found.items()}


@pytest.mark.parametrize("loaded", [True, False])
def test_what_trains_keeps_its_precision(tiny_fast_config: dict[str, Any], tiny_base: Path, loaded: bool) -> None:
    params = {**tiny_fast_config["params"], "frozen_precision": "bf16", "ckpt_path": str(tiny_base) if loaded else None}
    frozen = FAST(types=TYPES, **params)
    assert dtypes(frozen) == {"unet": BF16, "first": BF16, "text": BF16}
    thawed = FAST(types=TYPES, thaw_unet=True, **params)
    assert dtypes(thawed) == {"unet": torch.float32, "first": BF16, "text": BF16}
    for model in (frozen, thawed):
        assert {p.dtype for p in model.trainable()} == {torch.float32}
        assert model.betas.dtype == torch.float32


def test_a_base_s_own_training_lowers_only_what_is_frozen(tiny_model_config: dict[str, Any]) -> None:
    params = {**tiny_model_config["params"], "frozen_precision": "bf16", "scale_by_std": True}
    model = LatentDiffusion(**params)
    assert dtypes(model) == {"unet": torch.float32, "first": BF16, "text": BF16}
    assert model.state_dict()["scale_factor"].dtype == torch.float32
    model = LatentDiffusion(**{**params, "cond_stage_trainable": True})
    assert dtypes(model) == {"unet": torch.float32, "first": BF16, "text": torch.float32}
    assert dtypes(LatentDiffusion(**tiny_model_config["params"])) == dict.fromkeys(
        ("unet", "first", "text"), torch.float32
    )
    with pytest.raises(UserError, match="frozen_precision=half is unknown; use fp32 or bf16"):
        LatentDiffusion(**{**params, "frozen_precision": "half"})


@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_answers_as_float32_does(artifact: Artifact, autocast: bool) -> None:
    """One evaluation of every network; bf16 has 8 bits, so a network's answer may stray by a few percent."""

    def answers(model: FAST) -> dict[str, Tensor]:
        given = batch()
        with torch.no_grad():
            cond = model.conditioning(given)
            x0 = model.latents(given)
            noise = model.apply_model(torch.linspace(-2, 2, x0.numel()).view(x0.shape), torch.tensor([400, 700]), cond)
            return {"cond": cond, "x0": x0, "noise": noise, "image": model.decode_first_stage(x0)}

    exact = answers(load_model(artifact))
    with torch.autocast("cpu", BF16, enabled=autocast):
        rough = answers(load_model(artifact, dtype=BF16))
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32, name
        assert (rough[name] - value).norm() < 0.05 * value.norm(), name


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("thaw", [False, True])
def test_training_on_a_bf16_base(tiny_fast_config: dict[str, Any], tiny_base: Path, autocast: bool, thaw: bool) -> None:
    params = {**tiny_fast_config["params"], "ckpt_path": str(tiny_base), "thaw_unet": thaw}
    losses = []
    for precision in ("fp32", "bf16"):
        model = FAST(types=TYPES, frozen_precision=precision, **params).train()
        for part in (model.farm, model.prompts):
            randomize(part, 1)
        with torch.autocast("cpu", BF16, enabled=autocast):
            loss = model.loss(batch())[0]
        loss.backward()
        losses.append(loss.detach())
        for parameter in model.trainable():
            assert parameter.dtype == torch.float32
        assert model.prompts.vectors.grad is not None
        assert model.prompts.vectors.grad.abs().sum() > 0
        assert all(p.grad is None for p in model.cond_stage_model.parameters())
    assert_close(losses[1], losses[0], rtol=0.02, atol=0)


# the cache


def test_the_cache_gives_what_the_base_gave_and_needs_no_base(
    artifact: Artifact, own_base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new" / "cache"
    plain = load_model(artifact, own_base, dtype=BF16).state_dict()
    first = load_model(artifact, own_base, dtype=BF16, cache=folder)
    same_bytes(dict(first.state_dict()), dict(plain))
    assert list(folder.iterdir()) == [cache_file(folder, artifact)]
    assert cache_file(folder, artifact).stat().st_mode & 0o777 == 0o644

    Path(own_base).unlink()
    monkeypatch.setattr("ldm.checkpoint.file_hash", lambda path: pytest.fail(f"{path} was hashed"))
    second = load_model(artifact, own_base, dtype=BF16, cache=str(folder))
    same_bytes(dict(second.state_dict()), dict(plain))
    for model in (first, second):
        assert (model.base_hash, model.base_path) == (artifact.base_sha256, own_base)
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        assert_close(second.loss(batch())[0], first.loss(batch())[0], rtol=0, atol=0)


def test_the_cache_holds_the_base_and_nothing_of_the_artifact(artifact: Artifact, tmp_path: Path) -> None:
    load_model(artifact, dtype=BF16, cache=tmp_path)
    path, base = cache_file(tmp_path, artifact), read_state_dict(artifact.base)
    kept = read_state_dict(path)
    assert kept.keys() == base.keys()
    same_bytes(kept, {k: v.to(BF16) if k.startswith(CONVERTED) else v for k, v in base.items()})
    assert read_metadata(path) == {"fast_base_cache": "1", "base_sha256": file_hash(artifact.base), "dtype": "bf16"}


def test_a_thawed_network_s_artifact_shares_the_cache(
    artifact: Artifact, tiny_fast_config: dict[str, Any], tmp_path: Path
) -> None:
    load_model(artifact, dtype=BF16, cache=tmp_path / "frozen")
    params = {**tiny_fast_config["params"], "thaw_unet": True, "types": TYPES, "ckpt_path": artifact.base}
    model = FAST(**params)
    randomize(model.model, 7)
    config = {"model": {"target": "fast.model.FAST", "params": params}}
    metadata = {"step": "1", "config": json.dumps(config), **model.artifact_metadata()}
    save_safetensors(model.adapter_state(), tmp_path / "fast-1.safetensors", metadata)
    thawed = read_artifact(tmp_path / "fast-1.safetensors")
    for _ in range(2):  # from the base, then from the cache
        loaded = load_model(thawed, dtype=BF16, cache=tmp_path / "thawed")
        same_bytes(dict(loaded.model.state_dict()), {k: v.to(BF16) for k, v in model.model.state_dict().items()})
        assert loaded.thaw_unet
    exact = load_model(thawed)
    same_bytes(dict(exact.adapter_state()), dict(model.adapter_state()))
    frozen, shared = (read_state_dict(cache_file(tmp_path / name, artifact)) for name in ("frozen", "thawed"))
    same_bytes(frozen, shared)


def spoil(path: Path, how: str) -> None:
    state, metadata = {k: v.clone() for k, v in read_state_dict(path).items()}, read_metadata(path)
    if how == "cut":
        whole = path.read_bytes()
        path.unlink()
        path.write_bytes(whole[: len(whole) // 2])
        return
    if how == "text":
        path.unlink()
        path.write_text("no weights")
        return
    if how == "folder":
        path.unlink()
        path.mkdir()
        return
    if how == "key":
        del state["model.diffusion_model.out.2.bias"]
    elif how == "shape":
        state["model.diffusion_model.out.2.bias"] = torch.zeros(5, dtype=BF16)
    elif how == "schedule":
        state["betas"] *= 2
    else:
        metadata = {} if how == "stranger" else {**metadata, how: "0"}
    save_safetensors(state, path, metadata)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "is damaged; remove it"),
        ("text", "is damaged; remove it"),
        ("folder", "is damaged; remove it"),
        ("stranger", "was not made from the base .* remove it"),
        ("base_sha256", "was not made from the base .* remove it"),
        ("fast_base_cache", "was not made from the base .* remove it"),
        ("key", "cannot be used; remove it.* 1 missing"),
        ("shape", "cannot be used; remove it.* 1 of another shape"),
        ("schedule", "cannot be used; remove it.* another noise schedule"),
    ],
)
def test_a_spoilt_cache_is_named(artifact: Artifact, tmp_path: Path, how: str, message: str) -> None:
    load_model(artifact, dtype=BF16, cache=tmp_path / "cache")
    path = cache_file(tmp_path / "cache", artifact)
    spoil(path, how)
    with pytest.raises(UserError, match=f"cache file .*{path.name} {message}") as caught:
        load_model(artifact, dtype=BF16, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_what_is_not_the_cache_s_fault_is_not_put_on_it(artifact: Artifact, tmp_path: Path) -> None:
    load_model(artifact, dtype=BF16, cache=tmp_path)
    artifact.config["model"]["params"]["cond_stage_config"]["params"]["tokenizer"] = "./nowhere"
    with pytest.raises(UserError, match=r"tokenizer=\./nowhere") as caught:
        load_model(artifact, dtype=BF16, cache=tmp_path)
    assert "cache" not in str(caught.value)


def test_another_base_makes_no_cache(artifact: Artifact, own_base: str, tmp_path: Path) -> None:
    state = {k: v + 1 for k, v in read_state_dict(own_base).items()}
    for changed in (state, {"a": torch.ones(1)}):  # one whose keys fit, one whose do not
        save_safetensors(changed, own_base, {})
        with pytest.raises(UserError, match=r"base\.safetensors is not the base"):
            load_model(artifact, own_base, dtype=BF16, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_leaves_no_half_cache(artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(tensors: Any, path: Path, metadata: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("ldm.checkpoint.save_file", fail)
    with pytest.raises(UserError, match=r"cannot be kept as .*No space left.*; free space"):
        load_model(artifact, dtype=BF16, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be kept as .*; free space, choose another folder"):
        load_model(artifact, dtype=BF16, cache=tmp_path / "file")


def test_a_file_that_may_not_grow(artifact: Artifact, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(UserError, match="cannot be kept as"):
            load_model(artifact, dtype=BF16, cache=tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "cache").iterdir()) == []


def test_processes_that_write_at_once_do_not_meet(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(200_000).to(BF16)}
    path = tmp_path / "c.safetensors"
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(_write_cache, path, tensors, "0" * 64) for _ in range(20)]:
            done.result()
            same_bytes(read_state_dict(path), tensors)  # whole at every moment
    assert list(tmp_path.iterdir()) == [path]


# one reading, little memory


def test_the_base_is_hashed_once(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def count(path: Any) -> str:
        hashed.append(str(path))
        return file_hash(path)

    monkeypatch.setattr("ldm.checkpoint.file_hash", count)
    monkeypatch.setattr("fast.latent.prompted.file_hash", count)
    monkeypatch.setattr("fast.artifact._VERIFIED", {})  # other tests have read it
    for _ in range(2):
        assert load_model(artifact).base_hash == artifact.base_sha256
    assert hashed == [artifact.base], "parts share a base that is as it was"


MEASURE = """
import sys, torch
from pathlib import Path
from contextlib import suppress
from fast.artifact import find_artifact, load_model

def memory(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))

warm, *rest = sys.argv[1:]
load_model(find_artifact(warm), dtype=torch.bfloat16)  # once before counting: libraries load what they need late
for path, dtype in zip(rest[::2], rest[1::2]):
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts afresh
    before = memory("VmRSS")
    model = load_model(find_artifact(path), dtype=getattr(torch, dtype))
    total = sum(float(p[..., ::512].double().sum()) for p in model.parameters())  # what is mapped comes with its use
    print(memory("VmHWM") - before, sum(p.nbytes for p in model.parameters()), total)
    del model
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="this system does not count a process's memory")
def test_memory_stays_near_what_is_kept(artifact: Artifact, tiny_fast_config: dict[str, Any], tmp_path: Path) -> None:
    """210 MB in 350 tensors: converted one by one, so never a whole float32 base beside the one in bfloat16."""
    params = tiny_fast_config["params"]
    params["cond_stage_config"]["params"] |= {"n_embed": 768, "n_layer": 8}
    params["unet_config"]["params"]["context_dim"] = 768
    model = FAST(types=TYPES, **params)
    own = model.adapter_state()
    state = {k: v for k, v in model.state_dict().items() if k not in own}
    torch.save({"state_dict": state, "global_step": 1}, tmp_path / "base.ckpt")
    save_safetensors(state, tmp_path / "base.safetensors", {})
    arguments = [str(artifact.path)]
    cases = [("base.ckpt", "bfloat16"), ("base.safetensors", "bfloat16"), ("base.ckpt", "float32")]
    for number, (base, dtype) in enumerate(cases):
        path = tmp_path / str(number) / "fast-1.safetensors"
        model.base_path, model._base_hash = str(tmp_path / base), None
        metadata = {"step": "1", "config": json.dumps({"model": {"target": "fast.model.FAST", "params": params}})}
        save_safetensors(own, path, {**metadata, **model.artifact_metadata()})
        arguments += [str(path), dtype]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    for (_, dtype), line in zip(cases, done.stdout.splitlines(), strict=True):
        grown, kept, total = line.split()
        precision = getattr(torch, dtype)
        used = [v.to(precision if k in state else v.dtype) for k, v in model.named_parameters()]
        assert float(total) == pytest.approx(sum(float(v[..., ::512].double().sum()) for v in used))
        assert int(kept) > 50e6 * precision.itemsize
        assert int(grown) < 1.2 * int(kept) + 32e6
