"""Drafts: AIAS starts from a first version of a defect, noised so far as asked, and everything else is as before."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import fast.cli.synthesis_job
import fast.generators
import fast.synthesis.normals
from fast.aias import AIASOptions, Guidance
from fast.artifact import find_artifact, load_model
from fast.data.images import read_image, read_mask, resize_image, write_image, write_mask
from fast.generators import create
from fast.generators.drafts import DRAWS, MAX_DISTANCE, Drafter, MixedDrafter, drafter_for
from fast.latent.sampling import sample_latents
from fast.model import FAST
from fast.synthesis.counterfeit import counterfeit_strength
from fast.synthesis.maker import Draft
from fast.synthesis.pair import Pair
from fast.synthesis.synthesizer import Synthesizer
from ldm.errors import UserError
from ldm.models.diffusion.schedule import NoiseSchedule
from ldm.rng import seed_of
from support.synthesis import manifest, plain_recipe, synthesize, whole_set

SIDE = 64


def noise_of(seed: int):  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator)


def test_the_network_is_asked_from_the_draft_s_time_down_and_first_sees_the_noised_draft() -> None:
    schedule = NoiseSchedule.linear()
    draft, mask = torch.full((1, 4, 8, 8), 3.0), torch.ones(1, 1, 8, 8)
    seen: list[tuple[int, torch.Tensor]] = []

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append((int(t[0]) + 1, x))
        return torch.zeros_like(x)

    guidance = Guidance(schedule, mask, torch.zeros(1, 4, 8, 8))
    sample_latents(denoise, guidance, draft, noise=noise_of(1), options=AIASOptions(steps=4), draft=draft, strength=0.3)
    assert [t for t, _ in seen] == [300, 151, 2, 1]
    bar = float(schedule.alpha_bar(300))
    eps = noise_of(1)(draft)
    assert torch.allclose(seen[0][1], bar**0.5 * draft + (1 - bar) ** 0.5 * eps, atol=1e-5)


def test_a_perfect_network_gives_the_draft_back() -> None:
    schedule = NoiseSchedule.linear()
    draft, background = torch.full((1, 4, 8, 8), 3.0), torch.full((1, 4, 8, 8), -1.0)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:5, 2:5] = 1
    clean = mask * draft + (1 - mask) * background

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        bar = float(schedule.alpha_bar(int(t[0]) + 1))
        return (x - bar**0.5 * clean) / (1 - bar) ** 0.5

    made = sample_latents(
        denoise, Guidance(schedule, mask, background), draft, noise=noise_of(2), options=AIASOptions(steps=5),
        draft=clean, strength=0.5,
    )  # fmt: skip
    assert torch.allclose(made, clean, atol=1e-3)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "plms"])
def test_other_samplers_refuse_a_draft(sampler: str) -> None:
    x = torch.zeros(1, 4, 8, 8)
    guidance = Guidance(NoiseSchedule.linear(10), x[:, :1], x)
    with pytest.raises(UserError, match=f"aias, not {sampler}"):
        sample_latents(
            lambda x, t: x, guidance, x, noise=noise_of(1), options=AIASOptions(), sampler=sampler, draft=x,
            strength=0.5,
        )  # fmt: skip


# pictures


class Dot:
    """A drafter that paints one black square."""

    def __init__(self) -> None:
        self.method = "dot"

    def __call__(self, image: np.ndarray, pair: Pair, mask: np.ndarray | None = None):  # type: ignore[no-untyped-def]
        from fast.synthesis.maker import Draft

        found = np.zeros(image.shape[:2], np.uint8) if mask is None else mask.copy()
        if mask is None:
            found[20:40, 24:44] = 1
        return Draft(np.where(found[..., None] > 0, 0, image).astype(np.uint8), found, {"defect_source": "dot"})

    def settings(self) -> dict[str, str]:
        return {"is": "dot"}


def normal() -> np.ndarray:
    return np.random.default_rng(3).integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)


def drafted(model: FAST, strength: float) -> Synthesizer:
    made = Synthesizer(model, plain_recipe(SIDE, steps=3, draft="procedural", strength=strength))
    made.draft_of = Dot()
    return made


def filled(synthesizer: Synthesizer, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    made = synthesizer.fill_draft(normal(), mask, 0, 5)
    return made.image, made.mask


def test_at_strength_one_nothing_but_the_mask_is_the_draft_s(tiny_fast: FAST) -> None:
    synthesizer = drafted(tiny_fast, 1.0)
    image, mask = filled(synthesizer)
    assert (mask[20:40, 24:44] == 1).all()
    assert mask.sum() == 400
    assert (image == synthesizer.fill(normal(), mask, 0, 5)).all()


def test_at_strength_one_detail_and_border_are_as_without_a_draft(tiny_fast: FAST) -> None:
    recipe = plain_recipe(SIDE, steps=3, draft="procedural", strength=1.0, detail=True, blend=2)
    synthesizer = Synthesizer(tiny_fast, recipe)
    synthesizer.draft_of = Dot()
    image, mask = filled(synthesizer)
    assert (image == synthesizer.fill(normal(), mask, 0, 5)).all()
    assert counterfeit_strength(recipe) == counterfeit_strength(plain_recipe(SIDE))


def test_below_it_the_draft_decides_and_outside_the_mask_every_byte_is_the_normal_s(tiny_fast: FAST) -> None:
    synthesizer = drafted(tiny_fast, 0.3)
    image, mask = filled(synthesizer)
    assert (image[mask == 0] == normal()[mask == 0]).all()
    assert (image != synthesizer.fill(normal(), mask, 0, 5)).any()
    own = np.zeros((SIDE, SIDE), np.uint8)
    own[5:9, 5:9] = 1
    image, mask = filled(synthesizer, own)
    assert (mask == own).all()
    assert (image[own == 0] == normal()[own == 0]).all()
    given = normal()
    made = synthesizer.fill_draft(given, None, 0, 5)
    assert (given == normal()).all()  # arguments stay as they are
    assert (made.image != given).any()


class SoftDot(Dot):
    """The square of `Dot` with a soft edge of three pixels, which is filled and not marked."""

    def __call__(self, image: np.ndarray, pair: Pair, mask: np.ndarray | None = None):  # type: ignore[no-untyped-def]
        dot = super().__call__(image, pair, mask)
        wide = cv2.dilate(dot.mask, np.ones((7, 7), np.uint8))
        return replace(dot, image=np.where(wide[..., None] > 0, image // 2, image).astype(np.uint8), filled=wide)


def test_a_draft_s_soft_edge_stays_the_draft_s_and_is_not_marked(
    tiny_fast: FAST, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real defects have their soft edge outside of their masks when networks learn from them. So has a draft when it is
    made new: the edge is ground that sampling sees, and the mask is all that it fills, of a counterfeit too."""
    synthesizer, given = drafted(tiny_fast, 0.3), []
    generate, pair = synthesizer.engine.generate, Pair(0, None, None, 0, 5)
    monkeypatch.setattr(
        synthesizer.engine,
        "generate",
        lambda *args: given.append(args) or generate(*args),  # type: ignore[func-returns-value]
    )
    synthesizer.draft_of, draft = SoftDot(), SoftDot()(normal(), pair)
    made = synthesizer.fill_draft(normal(), None, 0, 5)
    inside = draft.mask > 0
    assert (made.mask == draft.mask).all()
    assert (made.filled == draft.filled).all()
    assert (made.image[~inside] == draft.image[~inside]).all()
    assert (made.image[inside] != draft.image[inside]).any(1).mean() > 0.5
    (ground,), (mask,), _, _, _, (start,) = given[0]
    assert (mask == draft.mask).all()
    assert (start == draft.image).all()
    assert (ground == normal()).all()
    fake = synthesizer.fill_draft(normal(), None, 0, 5, counterfeit=True)
    assert (fake.mask == draft.mask).all()  # where it was filled; it is stored empty
    assert fake.filled is None
    assert (fake.image[~inside] == normal()[~inside]).all()


def test_a_draft_s_soft_edge_is_resized_with_its_picture(tiny_fast: FAST) -> None:
    recipe = plain_recipe(SIDE, steps=3, draft="procedural", strength=0.3)
    synthesizer = Synthesizer(tiny_fast, replace(recipe, size=SIDE // 2))
    synthesizer.draft_of, draft = SoftDot(), SoftDot()(normal(), Pair(0, None, None, 0, 5))
    made = synthesizer.fill_draft(normal(), None, 0, 5)
    small, start = resize_image(normal(), SIDE // 2), resize_image(draft.image, SIDE // 2)
    assert made.filled is not None
    edge = (made.filled > 0) & (made.mask == 0)
    assert edge.any()
    assert (made.image[edge] == start[edge]).all()
    assert (made.image == small)[made.filled == 0].all()


def test_at_strength_one_nothing_is_left_of_a_draft_s_soft_edge(tiny_fast: FAST) -> None:
    synthesizer = drafted(tiny_fast, 1.0)
    synthesizer.draft_of, draft = SoftDot(), SoftDot()(normal(), Pair(0, None, None, 0, 5))
    made = synthesizer.fill_draft(normal(), None, 0, 5)
    assert made.filled is None
    assert (made.mask == draft.mask).all()
    assert (made.image == normal())[draft.mask == 0].all()


def test_what_sampling_changes_of_a_draft_fades_in_from_the_border_of_its_mask(tiny_fast: FAST) -> None:
    """An untrained network changes all of the square; at its border the draft is left, so that no step is added."""
    synthesizer = Synthesizer(tiny_fast, plain_recipe(SIDE, steps=3, draft="procedural", strength=0.3, blend=2))
    synthesizer.draft_of, dot = Dot(), Dot()(normal(), Pair(0, None, None, 0, 5))
    made = synthesizer.fill_draft(normal(), None, 0, 5)
    change = np.abs(made.image.astype(float) - dot.image).mean(2)
    depth = cv2.distanceTransform(dot.mask, cv2.DIST_L2, 5)
    assert change[depth > 5].mean() > 10
    assert change[(depth > 0) & (depth <= 1)].mean() < 0.5 * change[depth > 5].mean()
    fake = synthesizer.fill_draft(normal(), None, 0, 5, counterfeit=True)  # of the normal: nothing of the draft
    border = (depth > 0) & (depth <= 1)
    assert (
        np.abs(fake.image[border].astype(float) - normal()[border]).mean()
        < np.abs(fake.image[border].astype(float) - dot.image[border]).mean()
    )


def test_settings_say_what_the_draft_came_from(tiny_fast: FAST) -> None:
    settings = drafted(tiny_fast, 0.3).settings()
    assert settings["draft_settings"] == {"is": "dot"}
    assert (settings["draft"], settings["strength"]) == ("procedural", 0.3)
    assert settings["draft_change"]  # of other programs no set is continued that made drafts new in another way


def test_a_drawn_draft_is_made_new_by_the_word_for_what_was_drawn(
    tiny_fast: FAST, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hole(Dot):
        def __call__(self, image: np.ndarray, pair: Pair, mask: np.ndarray | None = None):  # type: ignore[no-untyped-def]
            return replace(super().__call__(image, pair, mask), look="hole")

    synthesizer, asked = drafted(tiny_fast, 0.5), []
    generate, types = synthesizer.engine.generate, tiny_fast.prompts.types
    monkeypatch.setattr(
        synthesizer.engine,
        "generate",
        lambda *given: asked.append(given[2]) or generate(*given),  # type: ignore[func-returns-value]
    )
    synthesizer.draft_of, crack, hole = Hole(), types.index("wood/crack"), types.index("wood/hole")
    synthesizer.fill_draft(normal(), None, crack, 5)  # weights with types of their own
    synthesizer.looks = {key: number for number, key in enumerate(types)}
    for given in (crack, hole, types.index("leather/stain")):
        synthesizer.fill_draft(normal(), None, given, 5)
    assert asked == [[crack], [hole], [hole], [types.index("leather/hole")]]
    assert synthesizer.settings()["draft_prompts"] == "looks"
    synthesizer.engine.recipe = replace(synthesizer.recipe, strength=1.0)
    synthesizer.fill_draft(normal(), None, crack, 5)  # of the draft nothing but its mask is left
    assert asked[-1] == [crack]
    assert "draft_prompts" not in synthesizer.settings()


# methods


@pytest.mark.parametrize("in_mask", [False, True])
def test_a_method_that_draws_says_what(in_mask: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    method = create("procedural", looks={"odd": ["hole", "tear", "stain"]}, on_object="off")
    name, at = ("_filled", 2) if in_mask else ("_drawn", 2)
    monkeypatch.setattr(method, name, lambda *given: drawn.append(given[at]) or (given[0], given[1]))
    said = [method.look(np.random.default_rng(seed), "wood/odd", in_mask) for seed in range(20)]
    for seed in range(20):
        mask = np.ones((SIDE, SIDE), np.uint8) if in_mask else None
        method.synthesize(normal(), mask, np.random.default_rng(seed), "wood/odd")
    assert said == drawn
    assert set(said) == ({"hole", "stain"} if in_mask else {"hole", "tear", "stain"})


def test_a_draft_is_what_its_method_alone_makes_of_the_pair(drawn_root: Path) -> None:
    method = create("transplant", defects=str(drawn_root), split="all", on_object="off")
    image = read_image(next((drawn_root / "wood" / "train" / "good").iterdir()))
    draft = Drafter(method, ["wood/hole"])(image, Pair(0, None, None, 0, 77))
    made, mask = method.synthesize(image, None, np.random.default_rng(77), "wood/hole")
    assert (draft.image == made).all()
    assert (draft.mask == mask).all()
    assert Path(draft.origin["defect_source"]).parent.name == "hole"


def test_a_type_is_found_by_its_word_alone_if_one_part_has_it(drawn_root: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn_root / "wood", tmp_path / "wood")
    one = create("transplant", defects=str(tmp_path), split="all")
    assert Drafter(one, ["plank/hole"]).names == ["wood/hole"]
    with pytest.raises(UserError, match=r"no real defect of type 'plank/rust'"):
        Drafter(one, ["plank/rust"])


def test_mixed_drafts_are_of_both_methods_each_as_it_alone_makes_them(drawn_root: Path) -> None:
    options = {"defects": str(drawn_root), "split": "all", "on_object": "off", "material": "wood"}
    mixed = drafter_for("mixed", {**options, "max_distance": None}, ["wood/hole"])
    one, other = (drafter_for(name, {k: v for k, v in options.items() if k in own}, ["wood/hole"])
                  for name, own in (("transplant", ("defects", "split", "on_object")),
                                    ("procedural", ("on_object", "material"))))  # fmt: skip
    image = read_image(next((drawn_root / "wood" / "train" / "good").iterdir()))
    sources = []
    for seed in range(12):
        pair = Pair(0, None, None, 0, seed)
        draft = mixed(image, pair)
        own = (one if "defect_source" in draft.origin else other)(image, pair)
        assert (draft.image == own.image).all()
        method = "transplant" if "defect_source" in draft.origin else "procedural"
        assert draft.origin == {"draft_by": method, **own.origin}
        sources.append("defect_source" in draft.origin)
    assert 2 <= sum(sources) <= 10
    with pytest.raises(UserError, match=r"draft_options\.colour is no option of transplant or procedural"):
        drafter_for("mixed", {"colour": 1}, ["wood/hole"])


def test_mixed_drafts_of_a_type_that_one_method_cannot_make_are_the_others(drawn_root: Path, tmp_path: Path) -> None:
    root = shutil.copytree(drawn_root, tmp_path / "set")
    for side in ("test", "ground_truth"):
        shutil.copytree(root / "wood" / side / "hole", root / "wood" / side / "gizmo")
    options = {"defects": str(root), "split": "all", "on_object": "off"}
    types = ["wood/hole", "wood/gizmo", "wood/dent"]  # both, no look, no real defect

    def drafted(types: list[str], **more: Any) -> list[set[str]]:
        mixed = drafter_for("mixed", {**options, "max_distance": None, **more}, types)
        picture = read_image(next((root / "wood" / "train" / "good").iterdir()))
        return [
            {mixed(picture, Pair(0, None, None, n, seed)).origin["draft_by"] for seed in range(12)}
            for n in range(len(types))
        ]

    both = {"transplant", "procedural"}
    assert drafted(types) == [both, {"transplant"}, {"procedural"}]
    assert drafted(types, looks={"gizmo": ["pit"], "hole": ["none"]}) == [{"transplant"}, both, {"procedural"}]
    mixed = drafter_for("mixed", options, [*types, "wood/thing"])  # weights may know types that nobody asks for
    with pytest.raises(UserError, match=r"mixed can make no 'thing': .*no real defect.*cannot draw 'thing'"):
        mixed.check(3, "thing")
    with pytest.raises(UserError, match="no real defect"):
        mixed(normal(), Pair(0, None, None, 3, 0))
    assert drafted(["wood/gizmo"]) == [{"transplant"}]
    with pytest.raises(UserError, match=r"draft_options\.looks\.hole=none says that hole is not drawn"):
        drafter_for("procedural", {"looks": {"hole": ["none"]}}, ["wood/hole"])


def test_a_drawn_draft_unlike_the_real_defects_is_drawn_anew_or_a_real_one_moved(
    drawn_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"defects": str(drawn_root), "split": "all", "on_object": "off", "material": "wood"}
    mixed = drafter_for("mixed", options, ["wood/hole"])
    assert isinstance(mixed, MixedDrafter)
    picture = read_image(next((drawn_root / "wood" / "train" / "good").iterdir()))
    pair = Pair(0, None, None, 0, next(seed for seed in range(12) if seed_of(seed, 9) % 2))  # a drawn one's turn
    asked: list[np.ndarray] = []
    apart: list[float | None] = []

    def distance(kind: str, image: np.ndarray, mask: np.ndarray) -> float | None:
        assert kind == "wood/hole"
        assert ((image != picture).any(axis=2) <= (mask > 0)).all()
        asked.append(image)
        return apart[len(asked) - 1]

    monkeypatch.setattr(mixed.likeness, "distance", distance)

    def drafted(*distances: float | None) -> Draft:
        asked.clear()
        apart[:] = distances
        return mixed(picture, pair)

    first = mixed.drawn(picture, pair)
    for near in (MAX_DISTANCE, None):  # None: nothing can be said of the type
        assert (drafted(near).image == first.image).all()
        assert len(asked) == 1
    third = drafted(1.2, 1.11, 0.9)
    assert third.origin == {"draft_by": "procedural"}
    assert len({image.tobytes() for image in asked}) == 3
    assert (third.image == asked[2]).all()
    moved = drafted(*[MAX_DISTANCE + 0.01] * DRAWS)
    assert (len(asked), moved.origin["draft_by"]) == (DRAWS, "transplant")
    assert (moved.image == mixed.moved(picture, pair).image).all()
    assert mixed.settings()["max_distance"] == MAX_DISTANCE
    assert mixed.settings()["likeness"] == mixed.likeness.settings()
    with pytest.raises(UserError, match="--draft mixed moves real defects, which bring their own masks; give no mask"):
        mixed(picture, pair, np.ones(picture.shape[:2], np.uint8))

    draw, redrawn = mixed.drawn, list[int]()

    def no_place(image: np.ndarray, pair: Pair, mask: np.ndarray | None = None) -> Draft:
        redrawn.append(pair.seed)
        if len(redrawn) == 2:
            raise UserError("no place")
        return draw(image, pair, mask)

    monkeypatch.setattr(mixed, "drawn", no_place)
    mixed.drawn.refused = {}  # type: ignore[attr-defined]
    mixed.drawn.method = draw.method  # type: ignore[attr-defined]
    assert drafted(1.2, 0.9).origin == {"draft_by": "procedural"}  # drawn three times, asked about twice
    assert len(redrawn) == 3
    monkeypatch.setattr(mixed, "drawn", draw)

    mixed.max_distance = None
    assert (drafted().image == first.image).all()
    assert "likeness" not in mixed.settings()
    for wrong in (0, -1, True, "far"):
        with pytest.raises(UserError, match=r"max_distance=.* is no distance; give a number above 0"):
            drafter_for("mixed", {**options, "max_distance": wrong}, ["wood/hole"])
    with pytest.raises(UserError, match=r"draft_options\.max_distance is no option of procedural"):
        drafter_for("procedural", {"max_distance": 1.1}, ["wood/hole"])


def test_a_type_of_several_parts_is_asked_about_and_not_drawn_instead(drawn_root: Path, tmp_path: Path) -> None:
    for part in ("left", "right"):
        shutil.copytree(drawn_root / "wood", tmp_path / "parts" / part)
    for draft in ("transplant", "mixed"):
        with pytest.raises(UserError, match=r"of several parts \(left/hole, right/hole\)"):
            drafter_for(draft, {"defects": str(tmp_path / "parts"), "split": "all"}, ["/hole"])


def test_a_transplant_refuses_a_given_mask(drawn_root: Path) -> None:
    method = create("transplant", defects=str(drawn_root), split="all", on_object="off")
    with pytest.raises(UserError, match="own masks"):
        Drafter(method, ["wood/hole"])(normal(), Pair(0, None, None, 0, 1), np.ones((SIDE, SIDE), np.uint8))


def test_drafts_are_made_with_one_thread_of_opencv(tiny_artifact: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "normal.png", normal())
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        maker = Synthesizer(
            load_model(find_artifact(tiny_artifact)), plain_recipe(SIDE, steps=2, draft="procedural", strength=0.2)
        )
        maker.mask_of = None
        asked: list[int] = []

        def draft(image: np.ndarray, pair: Pair, mask: np.ndarray | None = None) -> Draft:
            asked.append(cv2.getNumThreads())
            found = np.zeros(image.shape[:2], np.uint8)
            found[10:20, 10:20] = 1
            return Draft(image, found)

        maker.draft_of = draft  # type: ignore[assignment]
        list(maker.make(iter([Pair(i, tmp_path / "normal.png", None, 0, i) for i in range(2)]), 2))
        assert asked == [1, 1]
    finally:
        cv2.setNumThreads(before)


# command


def command(root: Path, artifact: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--data_root", str(root / "wood" / "train" / "good"), "--pt_path", str(artifact), "--sample_name", str(out)),
        *("--anomaly_name", "wood/hole", "--device", "cpu", "--steps", "3", "--count", "4", *more),
    ]


def test_the_command_starts_from_real_defects_and_says_which(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    flags = ("--draft", "transplant", "--defects", str(drawn_root), "--split", "all", "--on_object", "off")
    assert synthesize(command(drawn_root, tiny_artifact, tmp_path / "a", *flags, "--strength", "0.2")) == 0
    for row in manifest(tmp_path / "a"):
        assert Path(row["defect_source"]).parent.name == "hole"
        assert (row["draft"], row["strength"], row["mask_source"]) == ("transplant", 0.2, None)
        made, mask = read_image(tmp_path / "a" / row["image"]), read_mask(tmp_path / "a" / row["mask"])
        before = resize_image(read_image(row["normal_source"]), SIDE)
        assert mask.any()
        assert (made[mask == 0] == before[mask == 0]).all()
    assert synthesize(command(drawn_root, tiny_artifact, tmp_path / "b", *flags, "--strength", "0.2",
                              "--batch_size", "1")) == 0  # fmt: skip
    a, b = whole_set(tmp_path / "a"), whole_set(tmp_path / "b")
    assert a == b


def test_of_mixed_drafts_the_manifest_says_whose_each_is(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--draft", "mixed", "--defects", str(drawn_root), "--split", "all", "--on_object", "off", "--count", "8")
    assert synthesize(command(drawn_root, tiny_artifact, tmp_path / "a", *flags)) == 0
    rows = manifest(tmp_path / "a")
    assert {row["draft_by"] for row in rows} == {"transplant", "procedural"}
    assert all(("defect_source" in row) == (row["draft_by"] == "transplant") for row in rows)
    assert {row["draft"] for row in rows} == {"mixed"}
    drawn = sum(row["draft_by"] == "procedural" for row in rows)
    assert capsys.readouterr().out.endswith(f"\ndrafts: wood/hole {8 - drawn} real and {drawn} drawn\n")
    far = (*flags, "method.draft_options.max_distance=0.01")
    assert synthesize(command(drawn_root, tiny_artifact, tmp_path / "a", *far)) == 2  # another run
    assert "differs in draft_settings" in capsys.readouterr().err
    assert synthesize(command(drawn_root, tiny_artifact, tmp_path / "b", *far)) == 0
    assert capsys.readouterr().out.endswith("\ndrafts: wood/hole 8 real and 0 drawn\n")


def test_where_the_real_defects_lie_decides_nothing_and_the_regions_of_drafts_do(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved, regions, out = tmp_path / "moved", tmp_path / "regions", tmp_path / "out"
    shutil.copytree(drawn_root, moved)
    for file in (drawn_root / "wood" / "train" / "good").iterdir():
        write_mask(regions / f"{file.stem}.png", np.ones(read_image(file).shape[:2], np.uint8))
    flags = ("--draft", "transplant", "--split", "all", "--on_object", str(regions))
    assert synthesize(command(drawn_root, tiny_artifact, out, *flags, "--defects", str(drawn_root))) == 0
    assert synthesize(command(drawn_root, tiny_artifact, out, *flags, "--defects", str(moved))) == 0
    for file in regions.iterdir():
        region = np.ones(read_mask(file).shape, np.uint8)
        region[:, :20] = 0
        write_mask(file, region)
    assert synthesize(command(drawn_root, tiny_artifact, out, *flags, "--defects", str(moved))) == 2
    assert "differs in on_object" in capsys.readouterr().err


def test_drawn_defects_fill_the_masks_that_are_given(drawn_root: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    masks = drawn_root / "wood" / "ground_truth" / "hole"
    assert synthesize(command(drawn_root, tiny_artifact, tmp_path / "a", "--draft", "procedural", "--mask_path",
                              str(masks))) == 0  # fmt: skip
    for row in manifest(tmp_path / "a"):
        mask, asked = read_mask(tmp_path / "a" / row["mask"]), read_mask(row["mask_source"])
        assert mask.any()
        assert asked[mask == 1].all()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--draft", "transplant", "--mask_path", "{masks}"), "--draft transplant draws its own masks"),
        (("--draft", "transplant", "--sampler", "ddim"), "aias"),
        (("--draft", "procedural", "--strength", "0"), "0..1"),
        (("--draft", "procedural", "--strength", "1.5"), "0..1"),
        (("--draft", "procedural", "--strength", "0.01", "--steps", "50"), "--strength"),
        (("--strength", "0.5"), "--draft"),
        (("--defects", "somewhere", "--draft", "procedural"), "--defects is for"),
        (("--material", "wood", "--draft", "transplant"), "or --draft procedural and mixed, not --draft transplant"),
    ],
)
def test_what_does_not_go_together_is_refused_and_nothing_is_written(
    flags: tuple[str, ...], says: str, drawn_root: Path, tiny_artifact: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    masks = str(drawn_root / "wood" / "ground_truth" / "hole")
    more = [flag.format(masks=masks) for flag in flags]
    assert synthesize(command(drawn_root, tiny_artifact, tmp_path / "a", *more)) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "a" / "manifest.jsonl").exists()


def test_weights_of_a_split_ask_which_defects_drafts_may_hold(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    own = fast.cli.synthesis_job.read_metadata
    monkeypatch.setattr(fast.cli.synthesis_job, "read_metadata", lambda path: {**own(path), "split": "ab" * 32})
    flags = ("--draft", "transplant", "--defects", str(drawn_root), "--on_object", "off")
    assert synthesize(command(drawn_root, tiny_artifact, tmp_path / "a", *flags)) == 2
    assert "say with --split FILE" in capsys.readouterr().err
    assert synthesize(command(drawn_root, tiny_artifact, tmp_path / "a", *flags, "--split", "all")) == 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--draft", "procedural", "method.draft_options.looks.hole=[ditch]"), "looks.hole="),
        (("--draft", "procedural", "method.draft_options.colour=3"), "draft_options.colour is no option of procedural"),
        (("--draft", "transplant", "--split", "nowhere.json"), "nowhere.json"),
        (("--draft", "transplant", "--keep", "0.5", "--split", "nowhere.json"), "nowhere.json"),
        (("--draft", "transplant", "method.draft_options.looks.hole=[pit]"), "draft_options.looks is no option of tr"),
        (("--draft", "transplant", "--on_object", "sideways"), "sideways"),
        (("--draft", "mixed", "method.draft_options.blend=none"), "blend='none' is unknown"),
    ],
)
def test_what_is_wrong_with_drafts_is_told_before_data_and_weights_are_read(
    flags: tuple[str, ...], says: str, drawn_root: Path, tiny_artifact: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fast.generators.latent, "load_model", lambda *_, **__: pytest.fail("the weights are read"))
    job, normals = fast.cli.synthesis_job, fast.synthesis.normals
    for module, name in ((job, "open_dataset"), (normals, "open_dataset"), (job, "find_normals")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("the data are read"))
    given = ("--defects", str(drawn_root)) * ("procedural" not in flags)
    assert synthesize(command(drawn_root, tiny_artifact, tmp_path / "a", *flags, *given)) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert "normals" not in said.out


def test_from_python_a_pair_needs_no_mask(drawn_root: Path, tiny_artifact: Path) -> None:
    generator = fast.generators.create(
        "fast", weights=tiny_artifact, device="cpu", steps=3, draft="transplant", strength=0.2,
        draft_options={"defects": str(drawn_root), "split": "all", "on_object": "off"},
    )  # fmt: skip
    image, mask = generator.synthesize(normal(), None, np.random.default_rng(1), "wood/hole")
    assert image.shape == (SIDE, SIDE, 3)
    assert mask.any()
