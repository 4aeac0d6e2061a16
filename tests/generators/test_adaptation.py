"""Data for adapting: how often made samples are drawn, what they are, and that nothing of the test side is read."""

from collections import Counter
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import fast.data.images
import fast.data.samples
import fast.generators.adaptation
import fast.generators.cutouts
from fast.data.images import read_image
from fast.data.module import DefectData
from fast.data.sampler import Extra, SampleIndex, StepSampler
from fast.generators.adaptation import AdaptationData, MadeOptions
from fast.model import FAST
from fast.training.run import MADE
from ldm.errors import UserError
from ldm.rng import seed_of
from support.tiny import TYPES
from support.training import artifact, assert_same_run, door, recipe

REAL = [[0, 1], [2], [3, 4, 5]]
EXTRAS = [Extra(Fraction(1, 4), [[6, 7, 8]]), Extra(Fraction(1, 8), [[9], [10, 11]])]


def drawn(world: int = 1, batch: int = 4, steps: int = 40, start: int = 0, extras: Any = EXTRAS) -> list[SampleIndex]:
    ranks = [StepSampler(REAL, batch, steps, 7, r, world, lambda: start, extras=extras) for r in range(world)]
    return [t for parts in zip(*ranks, strict=True) for part in parts for t in part]


def test_extras_have_their_shares_and_leave_the_others_as_they_are() -> None:
    tickets = drawn()
    count = Counter(t.sample for t in tickets)
    assert sum(count[i] for i in (6, 7, 8)) == 40
    assert count[9] == count[10] + count[11] == 10
    assert {count[6], count[7], count[8]} == {13, 14}
    real = [t.sample for t in tickets if t.sample < 6]
    assert real == [t.sample for t in drawn(extras=())][: len(real)]
    for first in range(0, 160, 8):  # spread over the run
        assert sum(t.sample in (6, 7, 8) for t in tickets[first : first + 8]) == 2
        assert sum(t.sample > 8 for t in tickets[first : first + 8]) == 1
    assert len({t.seed for t in tickets}) == len(tickets)


def test_a_resumed_or_divided_run_draws_the_same() -> None:
    assert drawn(2, 2) == drawn(4, 1) == drawn(1, 4)
    assert drawn(start=11) == drawn()[44:]


class Encoder:
    """Stands for a model: its latent is the image, four times smaller."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        torch.manual_seed(0)  # the cache goes by its weights
        self.first_stage_model, self.trainer = torch.nn.Linear(1, 1), SimpleNamespace(is_global_zero=True)

    def first_stage_mean(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image, 4)


def make(root: Path, **options: Any) -> AdaptationData:
    given = {"size": 64, "native": True, "pool": 12, "use": "defects", "views": 2, **options}
    return AdaptationData(str(root / "wood"), **given)


def test_without_shares_it_is_the_plain_data(drawn_root: Path) -> None:
    options: dict[str, Any] = {"size": 64, "native": True, "use": "defects", "views": 2, "augment": {"flips": True}}
    own, plain = AdaptationData(str(drawn_root / "wood"), **options), DefectData(str(drawn_root / "wood"), **options)
    assert own.pictures.samples == plain.pictures.samples
    assert own.describe() == plain.describe()
    a, b = own.latents(Encoder()), plain.latents(Encoder())
    assert torch.equal(a.latents, b.latents)
    for ticket in (SampleIndex(0, 5), SampleIndex(3, 6)):
        assert all(
            torch.equal(torch.as_tensor(a[ticket][k]), torch.as_tensor(b[ticket][k])) for k in ("latent", "type")
        )


def test_the_surface_is_that_of_normal_images(drawn_root: Path) -> None:
    data = make(drawn_root, normal_share=0.25)
    assert data.pictures.made_types == ["wood/normal"]
    assert len(data.pictures) == len(data.pictures.samples) + 12
    normals = [read_image(p) for p in sorted((drawn_root / "wood" / "train").rglob("*.png"))]
    masks = []
    for number in range(len(data.pictures.samples), len(data.pictures)):
        image, mask = data.pictures.view(number, 3)
        assert any(np.array_equal(image, normal) for normal in normals)  # the windows are whole pictures here
        assert set(np.unique(mask)) == {0, 1}
        assert data.pictures.labels(number)["type"] == len(data.types)
        assert data.pictures.labels(number)["caption"] == "wood normal"
        masks.append(mask)
    assert len({m.tobytes() for m in masks}) > 10


def test_drawn_defects_lie_on_normal_images(drawn_root: Path) -> None:
    data = make(drawn_root, drawn_share=0.5)
    normals = [read_image(p) for p in sorted((drawn_root / "wood" / "train").rglob("*.png"))]
    words = []
    for number in range(len(data.pictures.samples), len(data.pictures)):
        image, mask = data.pictures.view(number, 3)
        assert mask.any()
        outside = [np.array_equal(image[mask == 0], normal[mask == 0]) for normal in normals]
        assert sum(outside) == 1
        assert not np.array_equal(image, normals[outside.index(True)])
        words.append(data.pictures.labels(number)["caption"])
    assert words[::2] == [f"wood {w}" for w in ("crack", "hole", "scratch", "stain", "crack", "hole")]  # transplanted
    assert words[1::2] == [f"wood {w}" for w in ("scratch", "crack", "dent", "hole", "pit", "chip")]
    assert set(data.pictures.made_types) == {"wood/chip", "wood/dent", "wood/pit"}
    looks = make(drawn_root, drawn_share=0.5, drawn="procedural", drawn_words="looks")
    assert looks.pictures.made_types == []
    looks.types = ["wood/scratches", "wood/pit"]
    assert looks.describe()[-1] == "  scratches is drawn as scratch"
    again = make(drawn_root, drawn_share=0.5)
    for number in range(len(data.pictures.samples), len(data.pictures)):
        assert all(map(np.array_equal, again.pictures.view(number, 3), data.pictures.view(number, 3)))


def test_no_test_picture_is_read(drawn_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(drawn_root, normal_share=0.25, drawn_share=0.25)
    held_out = {s.image for s in data.held_out} | set((drawn_root / "wood" / "test" / "good").glob("*"))
    assert len(held_out) == 9
    read: set[Path] = set()

    def watched(path: Any, *rest: Any, **named: Any) -> np.ndarray:
        read.add(Path(path))
        return read_image(path, *rest, **named)

    for module in (fast.data.samples, fast.generators.adaptation):
        monkeypatch.setattr(module, "read_image", watched)
    data.latents(Encoder())
    assert len(read) >= 4 + 3  # the training defects and the normals
    assert not read & held_out


def test_the_latents_hold_one_view_of_each(drawn_root: Path, tmp_path: Path) -> None:
    data = make(drawn_root, normal_share=0.2, drawn_share=0.2, cache_folder=str(tmp_path), seed=3)
    latents, real = data.latents(Encoder()), len(data.pictures.samples)
    assert len(latents.latents) == 2 * real + 24
    number = real + 5
    image, mask = data.pictures.view(number, seed_of(3, number, 1))
    item = latents[SampleIndex(number, 99)]
    assert torch.equal(item["mask"][0], torch.from_numpy(mask).float())
    expected = torch.nn.functional.avg_pool2d(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1, 4)
    torch.testing.assert_close(item["latent"], expected[0], atol=1e-5, rtol=0)
    make(drawn_root, normal_share=0.2, drawn_share=0.3, cache_folder=str(tmp_path), seed=3).latents(Encoder())
    make(drawn_root, normal_share=0.2, cache_folder=str(tmp_path), seed=3).latents(Encoder())
    assert len([*tmp_path.iterdir()]) == 2  # another share needs no other latents, other samples do


def test_made_types_are_known_by_their_words(tiny_base: Path, tiny_fast_config: dict[str, Any]) -> None:
    model = FAST(types=TYPES, ckpt_path=str(tiny_base), **tiny_fast_config["params"])
    model.teach(["wood/normal"])
    encoder, count = model.cond_stage_model, len(TYPES)
    given = {"type": torch.tensor([count, 2, count])}
    model.eval()
    found = model.conditioning(given)
    model.set_classes(["wood/normal", TYPES[2]])  # as synthesis does for words that were not learned
    expected = model.prompts(encoder, torch.tensor([0, 1, 0]))
    torch.testing.assert_close(found, expected)
    assert not any("made_prompts" in name for name in model.adapter_state())


def test_the_decoder_s_fit_leaves_out_every_option_of_made_samples() -> None:
    assert set(MADE) == {field.name for field in fields(MadeOptions)}


def test_a_resumed_run_goes_on_as_if_unbroken(
    drawn_root: Path, tiny_base: Path, tiny_fast_config: dict[str, Any], tmp_path: Path, capsys: Any
) -> None:
    tiny_fast_config["params"] |= {"ckpt_path": str(tiny_base), "lora": {"rank": 2}}
    options = {"normal_share": 0.3, "drawn_share": 0.3, "pool": 6, "native": True}
    path = recipe(tmp_path, tiny_fast_config, drawn_root / "wood", steps=5, **options)
    config = OmegaConf.load(path)
    config.data.target = "fast.generators.adaptation.AdaptationData"
    OmegaConf.save(config, path)
    assert door("-b", path, "-t", "-l", tmp_path, "-n", "whole") == 0
    assert "30% of the samples: normal surface under masks, 6 on 3 normal images" in capsys.readouterr().out
    assert door("-b", path, "-t", "-l", tmp_path, "-n", "parts", "--max_steps", "3") == 0
    assert door("-r", tmp_path / "parts", "-t", "--max_steps", "5") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts", 5)
    assert artifact(tmp_path / "whole", 5)["prompts.vectors"].shape[0] == 4  # the part's own types


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normal_share": 1.2}, r"normal_share=1.2 is no share"),
        ({"normal_share": 0.5, "drawn_share": 0.5}, r"leave no real defect"),
        ({"pool": 0}, r"pool=0"),
        ({"drawn": ["glued"]}, r"drawn=\['glued'\] must be a list of transplant, procedural"),
        ({"drawn_words": "none"}, r"drawn_words=none"),
        ({"pool": 48}, r"pool=48 counts made samples, and none are asked for; give data.params.normal_share or"),
        ({"pool": 128, "drawn": "transplant"}, r"drawn=\['transplant'\] says how .* give data.params.drawn_share, or"),
        ({"normal_share": 0.1, "drawn_words": "looks"}, r"drawn_words=looks says how .* none are asked for"),
        (
            {"drawn_share": 0.1, "drawn": "transplant", "drawn_words": "looks"},
            r"drawn_words=looks names procedural defects, which drawn=\['transplant'\] leaves out",
        ),
        ({"normal_share": 0.1, "use": "normals"}, r"need defects"),
    ],
)
def test_slips_are_named(drawn_root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(drawn_root, **options)
