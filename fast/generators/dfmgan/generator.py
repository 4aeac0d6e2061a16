"""DFMGAN behind the interface of all methods: it draws the picture, the defect and the mask by itself."""

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fast.data.images import resize_image, resize_mask
from fast.data.tensors import to_image
from fast.generators.base import Learned
from fast.generators.dfmgan.networks import DefectBranch, Rendered, Sizes, SynthesisNetwork
from fast.runtime.device import pick_device
from fast.runtime.folders import parse_json
from ldm.checkpoint import load_strict, read_metadata, read_state_dict
from ldm.errors import UserError
from ldm.hashing import file_hash

SIZES = ("resolution", "channel_base", "channel_max", "z_dim", "w_dim")


class DFMGANGenerator(Learned):
    """Draw pairs with a trained DFMGAN, which invents the picture with its background, the defect and the mask.

    A given image sets only the pair's size, and a given mask nothing. `rejected` counts the empty masks that were drawn
    again.

    Args:
        weights: the run or artifact of DFMGAN, see `Learned`.
        mask: "gates" marks every cell whose gate was open at any resolution. "published" marks where the full-size
            logits are not negative, which leaves out cells that only a coarse gate opened, though the picture has
            changed there.
        truncation: 1 draws as in training. Less, down to 0, draws nearer to the mean picture and the mean defect.
        device: "cpu", "cuda" or "auto". None: a GPU where there is one.
        max_tries: how many draws may have an empty mask before that is an error.
        learning: the other parameters of `Learned`.

    Raises:
        UserError: when an option is unknown or out of range, or when `weights` hold no trained defect branch.
    """

    name = artifact = "dfmgan"
    takes_mask = False
    takes_image = False

    def __init__(
        self,
        weights: str | Path | None = None,
        mask: str = "gates",
        truncation: float = 1.0,
        device: str | None = None,
        max_tries: int = 100,
        **learning: Any,
    ):
        if not 0 <= truncation <= 1 or max_tries < 1:
            raise UserError(f"dfmgan: truncation={truncation} must lie in 0..1 and max_tries={max_tries} be 1 or more")
        if mask not in ("gates", "published"):
            raise UserError(f"dfmgan: mask={mask} is unknown; use gates or published")
        self.mask, self.truncation, self.max_tries, self.rejected = mask, truncation, max_tries, 0
        self.device = pick_device(device or "auto", "device=")
        self.backbone: SynthesisNetwork | None = None
        self.branches: dict[str, DefectBranch] = {}
        self.hash, self._lock = "", Lock()
        super().__init__(weights, **learning)

    def load(self, weights: Path, step: int | None = None) -> None:
        from fast.artifact import find_weights  # heavy

        path = find_weights(weights, self.artifact, step)
        metadata = read_metadata(path)
        try:
            known, learnt = parse_json(metadata["types"]), parse_json(metadata["learnt"])
            params = parse_json(metadata["config"])["model"]["params"]
            sizes = Sizes(**{k: params[k] for k in SIZES if k in params})
        except (KeyError, ValueError, TypeError):
            raise UserError(
                f"{path} is not an artifact of DFMGAN's training: its config or types are missing"
            ) from None
        if not learnt:
            raise UserError(
                f"{path} has a backbone and no defect type yet; train beyond model.params.backbone_steps "
                "(go on with -t -r RUN --max_steps N)"
            )
        with torch.device("meta"):
            backbone, branches = SynthesisNetwork(sizes), [DefectBranch(sizes) for _ in learnt]
        whole = torch.nn.ModuleDict({"backbone": backbone, "branches": torch.nn.ModuleList(branches)})
        load_strict(whole, {k: v.clone() for k, v in read_state_dict(path).items()}, str(path))
        whole.to(self.device).eval().requires_grad_(False)
        self.backbone, self.branches = backbone, dict(zip(learnt, branches, strict=True))
        self.types, self._known, self.hash = list(learnt), list(known), file_hash(path)

    def synthesize(
        self, image: np.ndarray | None, mask: np.ndarray | None, rng: np.random.Generator, anomaly: str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """A pair of the network's size, or resized to `image` (H,W,3) where one is given."""
        made = self._draw(rng, self._type(rng, anomaly))[1]
        picture, drawn = to_image(made.image[0]), self._mask(made)
        if image is None:
            return picture, drawn
        size = (image.shape[0], image.shape[1])
        return resize_image(picture, size), resize_mask(drawn, size)

    def normal(self, rng: np.random.Generator, anomaly: str | None = None) -> np.ndarray:
        """The picture (R,R,3) uint8 that `synthesize` puts its defect on, for an `rng` in the same state."""
        ws, _ = self._draw(rng, self._type(rng, anomaly))
        with torch.no_grad():
            return to_image(self._trained().render(ws).image[0])

    def settings(self) -> dict[str, Any]:
        return {
            "method": self.name,
            "mask": self.mask,
            "weights": self.hash,
            "truncation": self.truncation,
            "max_tries": self.max_tries,
            "device": self.device.type,
        }

    def _trained(self) -> SynthesisNetwork:
        if self.backbone is None:
            raise UserError("dfmgan has no weights; give weights=RUN, or train with fit or main.py")
        return self.backbone

    def _type(self, rng: np.random.Generator, anomaly: str | None) -> str:
        self._trained()
        if anomaly is None:
            return self.types[int(rng.integers(len(self.types)))]
        if anomaly not in self.branches:
            later = " (training has not come to it yet; go on with -t -r RUN)" if anomaly in self._known else ""
            raise UserError(f"dfmgan knows no defect type {anomaly}{later}; it has {', '.join(self.types)}")
        return anomaly

    def _mask(self, made: Rendered) -> np.ndarray:
        """The mask (R,R) uint8 in {0,1} of the one picture in `made`."""
        assert made.m is not None
        assert made.open is not None
        found = made.open if self.mask == "gates" else made.m >= 0
        return found[0, 0].cpu().numpy().astype(np.uint8)

    @torch.no_grad()
    def _draw(self, rng: np.random.Generator, key: str) -> tuple[Tensor, Rendered]:
        """(object styles, what they and a new defect render to), one picture whose mask is not empty."""
        backbone, branch = self._trained(), self.branches[key]
        for _ in range(self.max_tries):
            codes = rng.standard_normal((2, 1, backbone.sizes.z_dim)).astype(np.float32)
            z, z_defect = torch.from_numpy(codes).to(self.device)
            ws = backbone.mapping(z, self.truncation)[:, None].expand(-1, backbone.styles, -1)
            wd = branch.mapping(z_defect, self.truncation)[:, None].expand(-1, branch.styles, -1)
            made = backbone.render(ws, branch, wd)
            if self._mask(made).any():
                return ws, made
            with self._lock:
                self.rejected += 1
        raise UserError(
            f"dfmgan: {self.max_tries} masks of {key} were empty; train its branch longer or raise max_tries"
        )
