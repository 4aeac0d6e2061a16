"""What a training step keeps and computes: bfloat16 for what is frozen, activations kept or computed twice."""

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

import fast.training.memory
from fast.model import FAST
from fast.runtime.options import parse_training
from fast.training.memory import _left_in_groups, available_bytes, fits, kept_bytes, mapped_bytes, pending_bytes
from fast.training.plan import plan
from fast.training.run import build
from ldm.checkpoint import read_metadata
from ldm.modules.encoders.modules import Tokenizer
from ldm.rng import generator
from support.tiny import TYPES, randomize
from support.training import FIRST_STAGE, artifact, assert_same_run, door, recipe

GB = 1 << 30


# what is kept


def test_fits_leaves_room_for_the_backward_pass_and_for_others() -> None:
    assert fits(0, 0, GB // 2)
    assert not fits(0, 0, GB // 2 - 1)
    assert fits(10 * GB, GB, 15 * GB)
    assert not fits(10 * GB, 2 * GB, 14 * GB)
    assert not fits(10 * GB, 0, 13 * GB)


def test_kept_bytes_counts_each_tensor_once_and_keeps_none() -> None:
    linear = torch.nn.Linear(1000, 1000)
    x = torch.randn(1, 1000, requires_grad=True)
    made: list[weakref.ref[torch.Tensor]] = []

    def forward() -> None:
        h = linear(x)  # keeps x, for the gradient of its weight
        for _ in range(5):
            h = h.exp()  # keeps what it gives
            made.append(weakref.ref(h))
        (h * h).sum()  # keeps h, which is counted already

    assert kept_bytes(linear, forward) == 6 * 4000
    assert [ref() for ref in made] == [None] * 5
    linear.requires_grad_(False)
    assert kept_bytes(linear, forward) == 5 * 4000, "a frozen layer does not keep its input"
    with torch.no_grad():
        assert kept_bytes(linear, forward) == 5 * 4000, "whatever the caller does with gradients"


def test_pending_bytes_are_gradients_and_moments() -> None:
    weight, frozen = torch.nn.Parameter(torch.zeros(100)), torch.nn.Parameter(torch.zeros(7), requires_grad=False)
    optimizer = torch.optim.AdamW([weight])
    assert pending_bytes([optimizer]) == 3 * 400
    weight.sum().backward()
    assert pending_bytes([optimizer]) == 2 * 400
    optimizer.step()
    assert pending_bytes([optimizer]) == 0
    optimizer.zero_grad()
    assert pending_bytes([optimizer]) == 400
    assert frozen.grad is None


def test_available_bytes() -> None:
    available = available_bytes(torch.device("cpu"))
    assert available is not None
    assert 0 < available < 1 << 50
    assert available_bytes(torch.device("meta")) is None
    assert mapped_bytes(torch.nn.Linear(10, 10)) == 0


def test_what_torch_has_reserved_on_a_gpu_is_free_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 20))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2)
    assert available_bytes(torch.device("cuda", 0)) == 13


def test_weights_that_lie_in_a_mapped_file_need_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast.training.memory, "_own_bytes", lambda: 1000)
    assert mapped_bytes(torch.nn.Linear(100, 100, bias=False)) == 40000 - 1000


def test_the_limits_of_a_container_count(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"

    def group(folder: Path, limit: str, used: int, files: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon {used - files}\ninactive_file {files}\n")

    assert _left_in_groups(root, own) == []
    own.write_text("0::/job/step\n")
    assert _left_in_groups(root, own) == []
    group(root / "job" / "step", "max", 900, 0)
    group(root / "job", "1000", 700, 200)
    assert _left_in_groups(root, own) == [500]
    group(root, "5000", 4000, 0)
    assert _left_in_groups(root, own) == [500, 1000]
    own.write_text("0::/\n")
    assert _left_in_groups(root, own) == [1000]
    group(tmp_path, "10", 0, 0)
    assert _left_in_groups(root, own) == [1000], "nothing above the root is looked at"


def test_auto_keeps_activations_where_they_fit_and_no_choice_changes_a_run(
    tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    seen: list[set[bool]] = []
    backward = FAST.backward

    def watched(self: FAST, *args: Any, **kwargs: Any) -> None:
        seen.append({m.use_checkpoint for m in self.model.modules() if hasattr(m, "use_checkpoint")})
        backward(self, *args, **kwargs)

    monkeypatch.setattr(FAST, "backward", watched)
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=3)
    flags = ["-b", path, "--actual_resume", tiny_base, "-t", "-l", tmp_path, "--precision", "bf16"]
    for name, available, choice, twice in (
        ("plenty", 4 * GB, None, False),
        ("little", GB // 2, "auto", True),
        ("always", 4 * GB, "always", True),
        ("never", 0, "never", False),
    ):
        monkeypatch.setattr(fast.training.memory, "available_bytes", lambda device, free=available: free)
        monkeypatch.setattr(fast.training.memory, "mapped_bytes", lambda module: 0)
        seen.clear()
        capsys.readouterr()
        assert door(*flags, "-n", name, *([] if choice is None else [f"lightning.checkpointing={choice}"])) == 0
        assert seen == [{twice}] * 3
        said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("activations of a step")]
        assert len(said) == (choice in (None, "auto"))
        assert all(line.endswith("computed twice to save memory" if twice else "kept") for line in said)
        assert_same_run(tmp_path / "plenty", tmp_path / name, 3)
    monkeypatch.setattr(fast.training.memory, "available_bytes", lambda device: None)
    seen.clear()
    assert door(*flags, "-n", "unknown", "model.params.unet_config.params.use_checkpoint=true") == 0
    assert seen == [{True}] * 3, "as the config has it"


def test_a_base_decides_too_and_a_first_stage_has_nothing_to_decide(
    tiny_model_config: Any, drawn_root: Path, tmp_path: Path, capsys: Any
) -> None:
    path = recipe(tmp_path, tiny_model_config, drawn_root, steps=1)
    assert door("-b", path, "-t", "-l", tmp_path, "-n", "base") == 0
    assert "activations of a step" in capsys.readouterr().out
    path = recipe(tmp_path, FIRST_STAGE, drawn_root, steps=1, cache=False, crop=32)
    assert door("-b", path, "-t", "-l", tmp_path, "-n", "first") == 0
    assert "activations of a step" not in capsys.readouterr().out


def test_an_unknown_choice_is_refused(tiny_fast_config: Any, tmp_path: Path, capsys: Any) -> None:
    path = recipe(tmp_path, tiny_fast_config, tmp_path)
    assert door("-b", path, "lightning.checkpointing=sometimes") == 2
    assert "lightning.checkpointing=sometimes is unknown; use auto, always, never" in capsys.readouterr().err


# bfloat16


def built(tmp_path: Path, config: Any, base: Path, data: Path, *flags: str) -> FAST:
    path = recipe(tmp_path, config, data)
    run = plan(parse_training(["-b", str(path), "--actual_resume", str(base), "-l", str(tmp_path), *flags]))
    model, _ = build(run)
    assert ("frozen_precision" in run.config["model"]["params"]) == ("frozen" in " ".join(flags))
    return model.train()


def dtypes(module: torch.nn.Module) -> set[torch.dtype]:
    return {p.dtype for p in module.parameters()}


BF16, FP32 = {torch.bfloat16}, {torch.float32}


@pytest.mark.parametrize(
    ("flags", "frozen", "unet"),
    [
        (["--precision", "32"], FP32, FP32),
        (["--precision", "bf16"], BF16, BF16),
        (["lightning.trainer.precision=bf16-mixed"], BF16, BF16),
        (["--precision", "16-mixed"], FP32, FP32),
        (["--precision", "bf16", "model.params.thaw_unet=true"], BF16, FP32),
        (["--precision", "bf16", "model.params.frozen_precision=fp32"], FP32, FP32),
        (["--precision", "32", "model.params.frozen_precision=bf16"], BF16, BF16),
    ],
)
def test_frozen_weights_have_the_precision_of_the_run(
    flags: list[str], frozen: set[Any], unet: set[Any],
    tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path,
) -> None:  # fmt: skip
    model = built(tmp_path, tiny_fast_config, tiny_base, drawn_root, *flags)
    assert dtypes(model.first_stage_model) == dtypes(model.cond_stage_model) == frozen
    assert dtypes(model.model) == unet
    assert {p.dtype for p in [*model.farm.parameters(), *model.prompts.parameters()]} == FP32
    with torch.autocast("cpu", torch.bfloat16, enabled="32" not in flags):
        loss = model.loss(batch())[0]
    loss.backward()
    trained = {id(p) for p in model.trainable()}
    assert all((p.grad is not None) == (id(p) in trained) for p in model.parameters() if p.requires_grad)
    assert all(p.grad is None for p in model.parameters() if id(p) not in trained)
    assert {p.grad.dtype for p in model.trainable() if p.grad is not None} == FP32


def test_a_bf16_run_s_artifact_is_float32_and_names_no_kept_precision(
    tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path
) -> None:
    path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=1)
    flags = ["-b", path, "--actual_resume", tiny_base, "--precision", "bf16", "-t", "-l", tmp_path, "-n", "run"]
    assert door(*flags) == 0
    assert {v.dtype for v in artifact(tmp_path / "run", 1).values()} == FP32
    (file,) = (tmp_path / "run" / "checkpoints").glob("fast-*.safetensors")
    assert "frozen_precision" not in json.loads(read_metadata(file)["config"])["model"]["params"]


def test_a_base_in_training_keeps_its_frozen_weights_exact(
    tiny_model_config: Any, drawn_root: Path, tmp_path: Path
) -> None:
    path = recipe(tmp_path, tiny_model_config, drawn_root)
    model, _ = build(plan(parse_training(["-b", str(path), "--precision", "bf16", "-l", str(tmp_path)])))
    assert dtypes(model) == FP32


# gradients


def batch() -> dict[str, Any]:
    mask = torch.zeros(4, 1, 64, 64)
    mask[:, :, 10:30, 20:41] = 1
    latent = torch.randn(4, 4, 16, 16, generator=generator(9))
    return {"latent": latent, "mask": mask, "type": torch.tensor([0, 5, 0, 2]), "seed": torch.arange(4)}


def gradients(model: FAST, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}


def plain_loss(model: FAST, given: dict[str, Any]) -> torch.Tensor:
    """Eq. 18, a sample at a time, each with a prompt of its own; autocast over everything, as whoever calls has it."""
    losses = []
    for i in range(len(given["type"])):
        one = {k: v[i : i + 1] for k, v in given.items()}
        x0 = model.scale_factor * one["latent"]
        t, eps = model.draw(one, x0)
        m = torch.nn.functional.max_pool2d(one["mask"], 4)
        cond = model.prompts(model.cond_stage_model, one["type"])
        anomaly = model.farm(model.schedule.q_sample(x0, t, eps), m, t - 1, cond).float()
        seen = (1 - m) * model.schedule.q_sample(x0, t, eps) + m * model.schedule.q_sample(anomaly, t, eps)
        predicted = model.model(seen, t - 1, c_crossattn=[cond]).float()
        losses.append((predicted - eps).square().mean() + 5 * (anomaly - m * x0).square().mean())
    return torch.stack(losses).mean()


def distance(ours: dict[str, torch.Tensor], plain: dict[str, torch.Tensor], part: str = "") -> float:
    """How far the gradients of a part are from others', as a share of their length."""
    assert ours.keys() == plain.keys()
    names = [name for name in plain if name.startswith(part)]
    a, b = (torch.cat([given[name].flatten() for name in names]) for given in (ours, plain))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("twice", [False, True])
def test_gradients_are_those_of_the_plain_computation(tiny_fast: FAST, twice: bool) -> None:
    tiny_fast.train()
    tiny_fast.set_checkpointing(twice)
    given = batch()
    ours = gradients(tiny_fast, tiny_fast.loss(given)[0])
    tiny_fast.set_checkpointing(False)
    plain = gradients(tiny_fast, plain_loss(tiny_fast, given))
    assert distance(ours, plain, "farm.") < 1e-5
    assert distance(ours, plain, "prompts.") < 1e-5


def test_gradients_through_frozen_bfloat16_are_those_of_mixed_precision(
    tiny_fast: FAST, tiny_fast_config: Any, tiny_base: Path
) -> None:
    """As near to float32 as those of float32 weights that autocast converts at each step."""
    params = {**tiny_fast_config["params"], "frozen_precision": "bf16"}
    kept = FAST(types=TYPES, ckpt_path=str(tiny_base), **params)
    randomize(kept.farm, 2)
    randomize(kept.prompts, 2)
    given = batch()
    exact = gradients(tiny_fast, plain_loss(tiny_fast, given))
    with torch.autocast("cpu", torch.bfloat16):
        mixed, ours = gradients(tiny_fast, plain_loss(tiny_fast, given)), gradients(kept, kept.loss(given)[0])
    kept.on_fit_start()
    assert any(p.is_contiguous(memory_format=torch.channels_last) and not p.is_contiguous() for p in kept.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        reordered = gradients(kept, kept.loss(given)[0])
    for part in ("farm.", "prompts."):
        rounding = distance(mixed, exact, part)
        assert distance(ours, exact, part) < 2 * rounding < 0.3
        assert distance(reordered, exact, part) < 2 * rounding


def test_checkpointing_is_bitwise_equal_in_bfloat16(
    tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path
) -> None:
    model = built(tmp_path, tiny_fast_config, tiny_base, drawn_root, "--precision", "bf16")
    randomize(model.farm, 2)
    found = []
    for twice in (False, True):
        model.set_checkpointing(twice)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(gradients(model, model.loss(batch())[0]))
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])


# what a step does not do


def test_a_step_reads_no_words_encodes_no_picture_and_updates_in_one_kernel(
    tiny_fast_config: Any, tiny_base: Path, drawn_root: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    counts = {"words": 0, "pictures": 0}
    pieces, encode = Tokenizer.pieces, FAST.encode_first_stage
    fused: list[bool] = []
    configure = FAST.configure_optimizers

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            counts[name] += 1
            return function(*args)

        return call

    def configured(self: FAST) -> Any:
        optimizer = configure(self)
        fused.append(optimizer.defaults["fused"])
        return optimizer

    monkeypatch.setattr(Tokenizer, "pieces", counted("words", pieces))
    monkeypatch.setattr(FAST, "encode_first_stage", counted("pictures", encode))
    monkeypatch.setattr(FAST, "configure_optimizers", configured)
    seen = []
    for steps in (4, 12):  # two samples each: after four steps each of the eight types was met
        counts.update(words=0, pictures=0)
        path = recipe(tmp_path, tiny_fast_config, drawn_root, steps=steps)
        flags = ["-b", path, "--actual_resume", tiny_base, "-t", "-l", tmp_path, "--precision", "bf16"]
        assert door(*flags, "-n", f"run{steps}") == 0
        seen.append(dict(counts))
    assert seen[0] == seen[1]
    assert seen[0]["words"] == 2 * 8 + 1  # the words that vectors start from, those of prompts, and no words at all
    assert fused == [True, True]
