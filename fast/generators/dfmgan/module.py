"""DFMGAN's training: the backbone on normals, then a defect branch for each type, one after another."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from fast.data.index import GOOD
from fast.generators.dfmgan.augment import augment
from fast.generators.dfmgan.losses import fooling, judging, mode_seeking, path_lengths, r1, soft_mask, with_mask
from fast.generators.dfmgan.networks import DefectBranch, Discriminator, Rendered, Sizes, SynthesisNetwork
from ldm.errors import UserError
from ldm.rng import generator, seed_of

MIXING = 0.9  # probability of style mixing, of the object's codes and of the defect's
PATH_EVERY, PATH_WEIGHT, PATH_DECAY = 4, 2.0, 0.01
R1_EVERY = 16
ADA_EVERY = 4  # steps between two changes of the augmentation's probability
EMA_RAMP = 0.05  # the averaging's half-life is at most this share of the pictures seen, in the first stage
BETA = 0.99


class Fake(NamedTuple):
    """Pictures of the generator in training, and the styles that made them; `wd` is None in the first stage."""

    made: Rendered
    ws: Tensor
    wd: Tensor | None


class DFMGAN(pl.LightningModule):
    """DFMGAN in training: first a backbone on normals, then a branch for each defect type, one after another.

    Stage 0 trains the backbone. Stage k trains the branch of `types[k - 1]` on the frozen, averaged backbone, and the
    branches share the remaining steps equally. Two discriminators judge: one sees the picture alone, the other the
    picture and its mask. Each branch starts with the first as stage 0 left it and with a new second one.

    Args:
        types: the defect types "category/anomaly" to learn, all of one category.
        resolution: side in px of the square pictures, a power of two from 32.
        channel_base, channel_max: a layer at side r has min(channel_base / r, channel_max) channels.
        z_dim, w_dim: length of the codes before and after the mapping networks.
        match_base, match_max: the same as `channel_base` and `channel_max`, for the discriminator that sees picture and
            mask.
        backbone_steps: training steps of stage 0. Below 1 it is a share of the run's steps.
        lr: learning rate of Adam. What a step moves grows with the root of a layer's channels, so narrow networks need
            more than the published rate.
        r1_gamma: weight of the R1 penalty on the discriminators. None: 0.0002 * resolution^2 / batch, with the batch
            over all ranks.
        match_weight: weight of the second discriminator's loss in the branch's training.
        mode_weight: weight of the diversity loss.
        ema_kimg: half-life of the averaged weights in thousands of pictures. In stage 0 it is at most a twentieth of
            the pictures seen so far.
        ada_target: the mean sign of the scores of real pictures that the adaptive augmentation aims at. 0: no
            augmentation.
        ada_kimg, defect_ada_kimg: thousands of pictures in which the augmentation's probability can go from 0 to 1, in
            stage 0 and in the later stages.

    Raises:
        UserError: when `types` are not of exactly one category, or when a size does not fit.
    """

    learns_types = True
    stage: Tensor
    seed: Tensor
    ada_p: Tensor
    ada_signs: Tensor
    path_mean: Tensor

    def __init__(
        self,
        types: Sequence[str] = (),
        resolution: int = 256,
        channel_base: int = 16384,
        channel_max: int = 512,
        z_dim: int = 512,
        w_dim: int = 512,
        match_base: int = 4096,
        match_max: int = 128,
        backbone_steps: int | float = 93750,
        lr: float = 0.0025,
        r1_gamma: float | None = None,
        match_weight: float = 1.0,
        mode_weight: float = 0.1,
        ema_kimg: float = 10.0,
        ada_target: float = 0.6,
        ada_kimg: float = 500.0,
        defect_ada_kimg: float = 100.0,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.types = list(types)
        categories = sorted({t.split("/")[0] for t in self.types})
        if len(categories) != 1:
            found = ", ".join(categories) or "none"
            raise UserError(f"DFMGAN learns the defect types of one category, the data has {found}; give --category")
        self.backbone_steps, self.lr, self.r1_gamma = backbone_steps, lr, r1_gamma
        self.match_weight, self.mode_weight = match_weight, mode_weight
        self.ema_kimg, self.ada_target, self.ada_kimg = ema_kimg, ada_target, (ada_kimg, defect_ada_kimg)
        self.sizes = Sizes(resolution, channel_base, channel_max, z_dim, w_dim)
        self.match_sizes = Sizes(resolution, match_base, match_max, z_dim, w_dim)
        self.backbone, self.averaged = SynthesisNetwork(self.sizes), SynthesisNetwork(self.sizes)
        self.averaged.load_state_dict(self.backbone.state_dict())
        self.branch = DefectBranch(self.sizes)
        self.branches = nn.ModuleList([DefectBranch(self.sizes) for _ in self.types])  # averaged
        self.judge, self.judge_after_backbone = Discriminator(self.sizes), Discriminator(self.sizes)
        self.match = Discriminator(self.match_sizes, channels=4)
        for still in (self.averaged, self.branches, self.judge_after_backbone):
            still.requires_grad_(False)
        self.register_buffer("stage", torch.tensor(0))
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("ada_p", torch.zeros(()))
        self.register_buffer("ada_signs", torch.zeros(()))
        self.register_buffer("path_mean", torch.zeros(()))
        self._planned: int | None = None

    # stages

    def stage_of(self, step: int) -> int:
        """The stage that a training step belongs to: 0 for the backbone, k for the k-th type."""
        given, total = self.backbone_steps, self.trainer.max_steps
        first = round(given * total) if given < 1 else int(given)
        after, rest = step - first, total - first
        return 0 if after < 0 else 1 + min(after * len(self.types) // max(rest, 1), len(self.types) - 1)

    def groups_at(self, step: int, keys: Sequence[str]) -> Collection[str]:
        """Which of the data's groups, "category/anomaly", a step draws from: the normals, or the type in turn."""
        stage = self.stage_of(step)
        return {self.types[stage - 1]} if stage else {k for k in keys if k.endswith(f"/{GOOD}")}

    def on_fit_start(self) -> None:
        steps = self.trainer.max_steps
        if self._planned not in (None, steps) and int(self.stage) and len(self.types) > 1:
            raise UserError(
                f"this run shares {self._planned} steps among its defect types and is past the backbone; "
                f"go on with --max_steps {self._planned}, or start a new run"
            )
        self._planned = steps

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["planned_steps"] = self._planned

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._planned = checkpoint["planned_steps"]

    @torch.no_grad()
    def _begin(self, stage: int) -> None:
        """Enter stage 1, 2, ...: new branch and D_match, the picture's discriminator as stage 0 left it."""
        if stage == 1:
            self.judge_after_backbone.load_state_dict(self.judge.state_dict())
            self.backbone.load_state_dict(self.averaged.state_dict())
        with torch.random.fork_rng(devices=[]):  # the same on all ranks
            torch.default_generator.manual_seed(seed_of(int(self.seed), stage))
            self.branch.load_state_dict(DefectBranch(self.sizes).state_dict())
            self.match.load_state_dict(Discriminator(self.match_sizes, channels=4).state_dict())
        self.branches[stage - 1].load_state_dict(self.branch.state_dict())
        self.judge.load_state_dict(self.judge_after_backbone.state_dict())
        for optimizer in self._optimizers():
            optimizer.state.clear()
        for number in (self.ada_p, self.ada_signs, self.path_mean):
            number.zero_()
        self.stage.fill_(stage)

    # one step

    def training_step(self, batch: Mapping[str, Any], batch_idx: int = 0) -> None:
        image, step = batch["image"], self.global_step
        if image.shape[-1] != self.sizes.resolution:
            raise UserError(
                f"data.params.size={image.shape[-1]} is not model.params.resolution={self.sizes.resolution}; "
                "give both the same value"
            )
        while int(self.stage) < self.stage_of(step):
            self._begin(int(self.stage) + 1)
        for optimizer, every in zip(self._optimizers(), (PATH_EVERY, R1_EVERY), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * every / (every + 1)
        defect = int(self.stage) > 0
        mask = 2 * batch["mask"] - 1 if defect else None
        judged = self._judge_step(image, mask, step)
        fooled = self._generator_step(len(image), step)
        self._average(len(image) * self.trainer.world_size, step)
        self._adapt(len(image) * self.trainer.world_size, step)
        logs = {"train/loss": fooled, "train/judge": judged, "train/ada_p": self.ada_p}
        self.log_dict(logs, batch_size=1)

    def _judge_step(self, image: Tensor, mask: Tensor | None, step: int) -> Tensor:
        """Both discriminators on a batch; every 16th step R1 too. Returns the loss without it."""
        self._train_only(self.judge, *([] if mask is None else [self.match]))
        optimizer, p = self._optimizers()[1], float(self.ada_p)
        with torch.no_grad():
            made = self._fake(len(image)).made
        real = augment(image, p)
        real_scores = self.judge(real)
        loss = judging(real_scores, self.judge(augment(made.image, p)))
        self.ada_signs += self._mean(real_scores.detach().sign().mean())
        if mask is not None and made.m is not None:
            fake = with_mask(made.image, soft_mask(made.m))
            loss = loss + judging(self.match(with_mask(image, mask)), self.match(fake))
        self._raw_step(optimizer, loss)
        if step % R1_EVERY == 0:
            # On what the discriminator saw: resampling cannot be differentiated twice.
            steepness = r1(self.judge, real)
            if mask is not None:
                steepness = steepness + r1(self.match, with_mask(image, mask))
            gamma = self.r1_gamma
            if gamma is None:
                gamma = 0.0002 * self.sizes.resolution**2 / (len(image) * self.trainer.world_size)
            self._raw_step(optimizer, gamma / 2 * R1_EVERY * steepness)
        return loss.detach()

    def _generator_step(self, count: int, step: int) -> Tensor:
        """The generator's part in training on a batch; every 4th step its path lengths too. Returns the loss without
        them. The last of its steps is Lightning's, so that `global_step` counts batches."""
        self._train_only(self.branch if int(self.stage) else self.backbone)
        optimizer: Any = self.optimizers()[0]  # type: ignore[index]
        if step % PATH_EVERY == 0:
            self._raw_step(optimizer.optimizer, PATH_EVERY * PATH_WEIGHT * self._path_penalty(max(1, count // 2)))
        fake = self._fake(count)
        loss = fooling(self.judge(augment(fake.made.image, float(self.ada_p))))
        if fake.made.m is not None:
            scores = self.match(with_mask(fake.made.image, soft_mask(fake.made.m)))
            loss = loss + self.match_weight * fooling(scores) + self.mode_weight * self._sameness(fake)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss.detach()

    def _sameness(self, fake: Fake) -> Tensor:
        """The diversity loss: both halves of a batch's defect codes on the objects of the first half."""
        half = len(fake.ws) // 2
        if half == 0 or fake.wd is None:
            return fake.ws.new_zeros(())
        first, second = fake.wd[:half], fake.wd[half : 2 * half]
        features = self.backbone.trunk(fake.ws[:half])
        masks = [soft_mask(self.branch.logits(features, wd)[1]) for wd in (first, second)]
        return mode_seeking(first, second, masks[0], masks[1])

    def _path_penalty(self, count: int) -> Tensor:
        fake = self._fake(count, path=True)
        lengths = path_lengths(fake.made.image, fake.ws)
        self.path_mean.lerp_(self._mean(lengths.detach().mean()), PATH_DECAY)
        return (lengths - self.path_mean).square().mean()

    def _fake(self, count: int, path: bool = False) -> Fake:
        """Pictures of new codes; `path`: so that they can be differentiated by the object's styles."""
        ws = self._styles(self.backbone.mapping, self.backbone.styles, count, track=int(self.stage) == 0)
        if path and not ws.requires_grad:
            ws.requires_grad_()
        if not int(self.stage):
            return Fake(self.backbone.render(ws, random=True), ws, None)
        wd = self._styles(self.branch.mapping, self.branch.styles, count, track=True)
        return Fake(self.backbone.render(ws, self.branch, wd, random=True), ws, wd)

    def _styles(self, mapping: nn.Module, styles: int, count: int, track: bool) -> Tensor:
        """Styles (count,styles,w_dim) of new codes, mixed from two codes with probability 0.9."""
        one, other = mapping(torch.randn(2 * count, self.sizes.z_dim, device=self.device)).chunk(2)
        if track:
            mapping.track(self._mean(one.detach().mean(0)))  # type: ignore[operator]
        # The same on all ranks or not: it only decides how far the second code reaches.
        cut = int(torch.randint(1, styles, ())) if float(torch.rand(())) < MIXING else styles
        late = torch.arange(styles, device=self.device) >= cut
        return torch.where(late[None, :, None], other[:, None], one[:, None])

    # weights

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers themselves: a step of one of them does not count as a step of the run."""
        wrappers: Any = self.optimizers()
        return [wrapper.optimizer for wrapper in wrappers]

    def _raw_step(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def _train_only(self, *modules: nn.Module) -> None:
        for module in (self.backbone, self.branch, self.judge, self.match):
            module.requires_grad_(any(module is m for m in modules))

    def _mean(self, value: Tensor) -> Tensor:
        """Over all ranks."""
        mean = self.trainer.strategy.reduce(value, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    @torch.no_grad()
    def _average(self, count: int, step: int) -> None:
        """Move the averaged weights of what is in training towards it."""
        half_life, stage = self.ema_kimg * 1000, int(self.stage)
        if not stage:
            half_life = min(half_life, EMA_RAMP * count * (step + 1))
        pair = (self.branches[stage - 1], self.branch) if stage else (self.averaged, self.backbone)
        keep = 0.5 ** (count / max(half_life, 1e-8))
        for mean, value in zip(pair[0].parameters(), pair[1].parameters(), strict=True):
            mean.lerp_(value, 1 - keep)
        for kept, own in zip(pair[0].buffers(), pair[1].buffers(), strict=True):
            kept.copy_(own)

    def _adapt(self, count: int, step: int) -> None:
        """Augment more where the discriminator knows real pictures too well, else less."""
        if self.ada_target and (step + 1) % ADA_EVERY == 0:
            pictures = self.ada_kimg[int(self.stage) > 0] * 1000
            more = torch.sign(self.ada_signs / ADA_EVERY - self.ada_target)
            self.ada_p.add_(more * count * ADA_EVERY / pictures).clamp_(0, 1)
        if (step + 1) % ADA_EVERY == 0:
            self.ada_signs.zero_()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the generator and for the discriminators, corrected for their rarer second losses (StyleGAN2,
        appendix B)."""
        players: list[list[nn.Module]] = [[self.backbone, self.branch], [self.judge, self.match]]
        optimizers: list[torch.optim.Optimizer] = []
        for modules, every in zip(players, (PATH_EVERY, R1_EVERY), strict=True):
            share = every / (every + 1)
            parameters = [p for m in modules for p in m.parameters()]
            optimizers.append(torch.optim.Adam(parameters, lr=self.lr * share, betas=(0.0, BETA**share)))
        return optimizers

    # what comes out

    @property
    def learnt(self) -> list[str]:
        """The types whose branch has begun to train."""
        return self.types[: int(self.stage)]

    def artifact(self) -> tuple[str, dict[str, Tensor]]:
        """The averaged backbone, and the averaged branches that have begun."""
        tensors = {f"backbone.{k}": v for k, v in self.averaged.state_dict().items()}
        for i in range(len(self.learnt)):
            tensors |= {f"branches.{i}.{k}": v for k, v in self.branches[i].state_dict().items()}
        return "dfmgan", tensors

    def artifact_metadata(self) -> dict[str, str]:
        return {"types": json.dumps(self.types), "learnt": json.dumps(self.learnt)}

    @torch.no_grad()
    def log_images(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Pictures for a sample grid, drawn from fixed codes with the averaged weights.

        Returns:
            `inputs`, `normals` and, of the type that trains, `defects` with their `masks`.
        """
        count = len(batch["image"])
        z = torch.randn(2, count, self.sizes.z_dim, generator=generator(0)).to(self.device)
        ws = self.averaged.mapping(z[0])[:, None].expand(-1, self.averaged.styles, -1)
        rows = {"inputs": batch["image"], "normals": self.averaged.render(ws).image.clamp(-1, 1)}
        if self.learnt:
            branch: Any = self.branches[len(self.learnt) - 1]
            wd = branch.mapping(z[1])[:, None].expand(-1, branch.styles, -1)
            made = self.averaged.render(ws, branch, wd)
            assert made.m is not None
            rows["defects"] = made.image.clamp(-1, 1)
            rows["masks"] = (made.m >= 0).float().expand(-1, 3, -1, -1) * 2 - 1
        return rows
