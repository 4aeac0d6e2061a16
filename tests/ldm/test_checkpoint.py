"""Weights from files that strangers made: what loads, what is refused, and that no code in them runs."""

import errno
import hashlib
import os
import pickle
import resource
import subprocess
import sys
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from ldm.checkpoint import (
    file_hash,
    load_strict,
    read_checkpoint,
    read_metadata,
    read_state_dict,
    save_safetensors,
)
from ldm.errors import UserError
from support.paths import ROOT


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


class Payload:
    """Pickles to a call of os.system."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.fixture
def callback_class(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class under the name that old Lightning files carry as a key, which this Lightning need not have."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    made = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_of_both_ages(tmp_path: Path, zipped: bool) -> None:
    state = network().state_dict()
    for name, data in (("bare.pt", state), ("whole.ckpt", {"state_dict": state, "global_step": 7, "lr": [1e-3]})):
        torch.save(data, tmp_path / name, _use_new_zipfile_serialization=zipped)
        before = file_hash(tmp_path / name)
        assert_close(read_state_dict(tmp_path / name), dict(state))
        model = network()
        load_strict(model, read_state_dict(tmp_path / name), name)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(1.0)  # weights lie on a private mapping: training does not write into the file
        assert file_hash(tmp_path / name) == before
    assert read_checkpoint(tmp_path / "whole.ckpt")["global_step"] == 7


def test_safetensors(tmp_path: Path) -> None:
    state = dict(network().state_dict())
    path = tmp_path / "folder/net.safetensors"
    save_safetensors(state, path, {"step": "3"})
    assert_close(read_state_dict(path), state)
    assert read_metadata(path) == {"step": "3"}
    assert [p.name for p in path.parent.iterdir()] == ["net.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o644
    assert file_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_network_used_twice_is_written_twice(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    save_safetensors({"a": whole, "b": whole, "row": whole[1], "turned": whole.t()}, tmp_path / "n.safetensors", {})
    read = read_state_dict(tmp_path / "n.safetensors")
    assert_close(read, {"a": whole, "b": whole, "row": whole[1], "turned": whole.t()}, check_stride=False)


def test_a_failed_save_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "n.safetensors"
    save_safetensors({"a": torch.ones(2)}, path, {})

    def fail(*args: Any) -> None:
        Path(args[1]).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("ldm.checkpoint.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_safetensors({"a": torch.zeros(2)}, path, {})
    assert_close(read_state_dict(path), {"a": torch.ones(2)})
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_with_the_file_s_name(tmp_path: Path) -> None:
    path, before = tmp_path / "n.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as told:
            save_safetensors({"a": torch.ones(5000)}, path, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (told.value.errno, told.value.filename) == (errno.EFBIG, str(path))
    assert list(tmp_path.iterdir()) == []


def test_published_lightning_files_load(tmp_path: Path, callback_class: type) -> None:
    path = tmp_path / "model.ckpt"
    best = {"best_model_score": np.float32(0.25), "dtype": np.dtype("int64"), "monitor": "val/loss"}
    torch.save({"state_dict": network().state_dict(), "callbacks": {callback_class: best}, "epoch": 3}, path)
    read = read_checkpoint(path)
    assert read["epoch"] == 3
    (kept,) = read["callbacks"].values()
    assert kept["best_model_score"] == np.float32(0.25)
    assert_close(read_state_dict(path), dict(network().state_dict()))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    path, proof = tmp_path / "evil.ckpt", tmp_path / "it_ran"
    state = {"state_dict": {"a": torch.ones(1)}, "extra": Payload(f"touch {proof}")}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"evil\.ckpt holds pickled code \((posix|nt)\.system\) and was not loaded"):
        read_state_dict(path)
    assert not proof.exists()
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(Payload(f"touch {proof}"), protocol=2))
    with pytest.raises(UserError, match=r"bare\.ckpt"):
        read_checkpoint(tmp_path / "bare.ckpt")
    assert not proof.exists()


def test_a_whole_pickled_module_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "module.pt")
    with pytest.raises(UserError, match=r"holds pickled code \(torch\.nn\.modules\.container\.Sequential\)"):
        read_checkpoint(tmp_path / "module.pt")


@pytest.mark.parametrize("name", ["zip.ckpt", "legacy.ckpt", "net.safetensors"])
def test_damaged_files_say_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    state = dict(network().state_dict())
    if name.endswith("safetensors"):
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "zip.ckpt")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in (0, 1, 7, 100, len(whole) // 2, len(whole) - 1):
        path.unlink()
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=f"{name}.*copy it again"):
            read_state_dict(path)
    for _ in range(60):  # a few wrong bytes may go unseen, but nothing else than a UserError comes of them
        spoilt = np.frombuffer(whole, np.uint8).copy()
        spoilt[rng.integers(0, min(len(whole), 1500), 4)] = rng.integers(0, 256, 4)
        path.unlink()
        path.write_bytes(spoilt.tobytes())
        with suppress(UserError):
            read_state_dict(path)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.ckpt does not exist"):
        read_state_dict(tmp_path / "absent.ckpt")
    with pytest.raises(UserError, match=r"absent\.safetensors does not exist"):
        read_state_dict(tmp_path / "absent.safetensors")
    with pytest.raises(UserError, match="does not exist"):
        read_state_dict(tmp_path)  # a folder
    (tmp_path / "page.ckpt").write_text("<html>404: this is not the file you asked for</html>")
    with pytest.raises(UserError, match=r"page\.ckpt is damaged or not a torch file"):
        read_state_dict(tmp_path / "page.ckpt")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds a list, not a dictionary"):
        read_state_dict(tmp_path / "list.pt")
    for number, data in enumerate(({"state_dict": 3}, {"epoch": 1}, {})):
        torch.save(data, tmp_path / f"{number}.pt")
        with pytest.raises(UserError, match="holds no weights"):
            read_state_dict(tmp_path / f"{number}.pt")


def test_the_message_counts_and_names_the_keys() -> None:
    state = dict(network().state_dict())
    with pytest.raises(UserError) as caught:
        load_strict(
            network(),
            {k: v for k, v in state.items() if not k.startswith("1.")}
            | {"2.weight": torch.zeros(3, 5), "extra.bias": torch.zeros(1)},
            "checkpoint base.ckpt",
        )
    message = str(caught.value)
    assert "checkpoint base.ckpt does not fit Sequential" in message
    assert "5 missing (1.weight, 1.bias, 1.running_mean, ...)" in message
    assert "1 unexpected (extra.bias)" in message
    assert "1 of another shape (2.weight (3, 5) for (2, 5))" in message
    assert "of 9 keys 3 match" in message
    assert "Check that the config describes the network" in message


def test_a_misfit_changes_nothing() -> None:
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError):
        load_strict(model, {k: v + 1 for k, v in before.items() if k != "2.bias"}, "x")
    assert_close(dict(model.state_dict()), before)


def test_ignored_prefixes_may_be_surplus_only() -> None:
    state = dict(network().state_dict())
    load_strict(network(), {**state, "model_ema.decay": torch.ones(1)}, "x", ignore=(p for p in ["model_ema."]))
    with pytest.raises(UserError, match="1 unexpected"):
        load_strict(network(), {**state, "model_ema.decay": torch.ones(1)}, "x")


def test_precision_and_gradients_are_the_modules_own() -> None:
    state = dict(network().state_dict())
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    model = network()
    model[0].requires_grad_(False)
    load_strict(model, half, "half.ckpt")
    for name, value in model.state_dict().items():
        assert value.dtype == state[name].dtype
        assert_close(value, half[name].to(value.dtype))
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True, True, True]
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())


def test_a_module_without_memory_takes_the_tensors_themselves() -> None:
    state: dict[str, Tensor] = dict(network().state_dict())
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    load_strict(model, state, "x")
    assert model[0].weight.data_ptr() == state["0.weight"].data_ptr()
    assert_close(model.eval()(torch.ones(1, 6)), network().eval()(torch.ones(1, 6)))


MEASURE = """
import sys, torch
from pathlib import Path
from ldm.checkpoint import load_strict, read_state_dict

def own_memory() -> int:  # without the pages of mapped files
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

def load(path: str, count: int, width: int) -> float:
    with torch.device("meta"):
        model = torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False) for _ in range(count)))
    load_strict(model, read_state_dict(path), "x")
    global kept
    kept = model
    return sum(float(p.detach()[::512].sum()) for p in model.parameters())

load(sys.argv[1], 1, 2)  # once before counting: libraries load what they need late
before = own_memory()
total = load(sys.argv[2], 12, 2048)
print(own_memory() - before, total)
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="this system does not count private memory")
@pytest.mark.parametrize("name", ["big.ckpt", "big.safetensors"])
def test_loading_makes_no_second_copy(tmp_path: Path, name: str) -> None:
    big = {f"{i}.weight": torch.full((2048, 2048), float(i)) for i in range(12)}  # 201 MB
    for state, path in ((big, tmp_path / name), ({"0.weight": torch.ones(2, 2)}, tmp_path / f"small_{name}")):
        if name.endswith("ckpt"):
            torch.save({"state_dict": state}, path)
        else:
            save_file(state, path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / f"small_{name}"), str(tmp_path / name)],
        cwd=ROOT, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    grown, total = done.stdout.split()
    assert float(total) == sum(range(12)) * 4 * 2048
    assert int(grown) < 0.25 * 12 * 4 * 2048 * 2048
