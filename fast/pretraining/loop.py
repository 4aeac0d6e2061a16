"""A training loop whose length is a time: steps until its minutes are spent, over as many sittings as it takes."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fast.runtime.signals import handled_by
from ldm.checkpoint import read_metadata, read_state_dict, save_safetensors
from ldm.errors import UserError

WARM_UP = 200  # steps in which the rate rises
LEAST_RATE = 0.02  # of the rate, at the end


class Interrupted(Exception):
    """A signal asked for the end; everything is saved."""


class Deadline:
    """Ctrl-C and SIGTERM as a flag that loops ask for between two steps."""

    def __init__(self) -> None:
        self.stopping = False

    @contextmanager
    def watched(self) -> Iterator["Deadline"]:
        def stop(_: int) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True

        with handled_by(stop):
            yield self


class TimedTraining:
    """Trains parts of a network for a time, over as many sittings as it takes.

    The rate rises over the first `WARM_UP` steps and falls with the time spent, as half a cosine, to `LEAST_RATE` of
    `lr`. The attribute `windows` is the number of samples seen in all sittings, for `loss` to count.

    Args:
        path: file to go on from, if it is there, and to save to. None: nothing is kept.
        parts: modules by name, whose parameters are trained.
        seconds: training time in all.
        lr: the highest learning rate.
        device: where `parts` are.
        bf16: True computes in mixed precision, bfloat16.
        averaged: name of the part of which an exponential moving average is kept. None: of none.
        ema_decay: decay of that average, at most. It starts lower.
        weight_decay: of AdamW.

    Raises:
        UserError: the file at `path` is no training or of another network.
    """

    def __init__(
        self,
        path: Path | None,
        parts: Mapping[str, nn.Module],
        seconds: float,
        lr: float,
        device: torch.device,
        bf16: bool,
        averaged: str | None = None,
        ema_decay: float = 0.999,
        weight_decay: float = 1e-2,
    ):
        self.path, self.parts, self.seconds, self.lr = path, nn.ModuleDict(dict(parts)), seconds, lr
        self.device, self.bf16 = device, bf16
        self.name = "training" if path is None else path.name.split(".")[0]
        self.step, self.spent, self.windows = 0, 0.0, 0
        self.parameters = [p for p in self.parts.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99), fused=device.type == "cuda"
        )
        self.ema_decay = ema_decay
        named = () if averaged is None else self.parts[averaged].named_parameters()
        self.averaged = {f"{averaged}.{name}": p for name, p in named if p.requires_grad}
        self.averages = [p.detach().clone() for p in self.averaged.values()]
        if path is not None and path.is_file():
            self._load(path)

    @property
    def done(self) -> bool:
        return self.spent >= self.seconds

    def run(
        self,
        loss: Callable[[int], Tensor],
        between: Callable[[int], None],
        deadline: Deadline,
        save_every: float | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        """Minimize the loss until the time is spent, and save.

        Args:
            loss: `loss(step)` returns what is minimized.
            between: `between(step)` is called after each step.
            deadline: asked after each step whether to stop.
            save_every: seconds between two savings. None: a third of the training's time, but two to ten minutes.
            report: told of the progress, in a line of text, every 15 seconds.

        Raises:
            Interrupted: the deadline asked for the end; everything is saved.
            UserError: the loss is no number.
        """
        save_every = save_every or max(120.0, min(self.seconds / 3, 600.0))
        start, before = time.monotonic(), self.spent
        saved = reported = start
        first, total, counted = self.step, *torch.zeros(2, device=self.device)
        while not self.done:
            self._set_rate()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                value = loss(self.step)
            self.optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            sound = self._update()
            self._average()
            self.step += 1
            total, counted = total + torch.where(sound, value.detach(), 0), counted + sound
            between(self.step)
            now = time.monotonic()
            self.spent = before + now - start
            if now - reported > 15 or self.done:
                if not counted:
                    raise UserError(f"the loss is no number at step {self.step}; lower the rate")
                mean, skipped = float(total / counted), self.step - first - int(counted)
                share = f"{min(1.0, self.spent / self.seconds):.0%} of {self.seconds / 60:.1f} minutes"
                rate = f"{1000 * (now - reported) / (self.step - first):.0f} ms a step"
                left = f", {skipped} steps without an update, for their gradients were no numbers" if skipped else ""
                report(f"{self.name}: step {self.step}, loss {mean:.4f}, {rate}, {share}{left}")
                reported, first, total, counted = now, self.step, torch.zeros_like(total), torch.zeros_like(total)
            if now - saved > save_every or deadline.stopping:
                self.save()
                saved = now
            if deadline.stopping:
                raise Interrupted(f"interrupted at step {self.step} of {self.name}; run the same command to go on")
        self.save()

    def _update(self) -> Tensor:
        """Clip the gradients and take the step, but not where they are no numbers; whether it was taken, on the
        device: asking would make a GPU wait."""
        sound = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0).isfinite()
        if self.optimizer.defaults["fused"]:
            self.optimizer.found_inf = (~sound).float()  # type: ignore[attr-defined]
            self.optimizer.step()
        elif sound:
            self.optimizer.step()
        return sound

    @torch.no_grad()
    def _average(self) -> None:
        """The decay rises as (1 + n) / (10 + n), so that the first weights are soon forgotten."""
        if self.averages:
            decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.averages, [p.detach() for p in self.averaged.values()], 1 - decay)

    def _set_rate(self) -> None:
        share = min(1.0, self.spent / self.seconds)
        falling = LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * share))))
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * falling * min(1.0, (self.step + 1) / WARM_UP)

    def weights(self) -> dict[str, Tensor]:
        """The trained weights by `<part>.<name>`, those of the averaged part as averages."""
        return {**self.parts.state_dict(), **dict(zip(self.averaged, self.averages, strict=True))}

    def save(self) -> None:
        """Everything to go on with, written whole or not at all."""
        if self.path is None:
            return
        tensors: dict[str, Tensor] = {f"parts.{k}": v for k, v in self.parts.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in zip(self.averaged, self.averages, strict=True)}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{k}": torch.as_tensor(v) for k, v in moments.items()}
        save_safetensors(tensors, self.path, self._counters())

    def _counters(self) -> dict[str, str]:
        return {"step": str(self.step), "spent": repr(self.spent), "windows": str(self.windows)}

    def _load(self, path: Path) -> None:
        state, metadata = read_state_dict(path), read_metadata(path)
        try:
            self.step, self.spent = int(metadata["step"]), float(metadata["spent"])
            self.windows = int(metadata["windows"])
        except (KeyError, ValueError):
            raise UserError(f"{path} is no training to go on with; remove it or name another --out") from None

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}

        try:
            self.parts.load_state_dict(under("parts."))
            averages = under("average.")
            for name, average in zip(self.averaged, self.averages, strict=True):
                average.copy_(averages[name])
        except (RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} is of another network ({reason}); remove it or name another --out") from None
        moments: dict[int, dict[str, Any]] = {}
        for name, value in under("adam.").items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        # A file knows no order of weights in memory, and a fused step wants that of the weights.
        for parameter, own in self.optimizer.state.items():
            for key, value in own.items():
                if value.shape == parameter.shape:
                    own[key] = torch.empty_like(parameter).copy_(value)
