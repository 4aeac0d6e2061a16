"""Honest masks: what really changed, and pairs made again where nothing did."""

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fast.synthesis.honest
from fast.data.images import read_mask
from fast.runtime.command import run_cli
from fast.runtime.counts import number_of
from fast.synthesis.honest import TRIES, UNCHANGED, HonestMaker, made_again
from fast.synthesis.output import OutputFolder
from fast.synthesis.pair import Pair, SynthesizedSample, record
from fast.synthesis.records import read_records
from support.synthesis import arguments, leftovers, manifest, synthesize

WHOLE = slice(0, 32), slice(0, 32)


class Making:
    """Fills a square of a grey image from the try on that a pair's number says; before, nothing changes."""

    size = None

    def __init__(self) -> None:
        self.seeds: dict[int, list[int]] = {}
        self.stop_after: int | None = None

    def make(self, pairs: Iterator[Pair], in_flight: int) -> Generator[SynthesizedSample, None, None]:
        for pair in sorted(pairs, key=lambda p: -p.index):
            tries = self.seeds.setdefault(pair.index, [])
            tries.append(pair.seed)
            normal, mask = np.full((32, 32, 3), 100, np.uint8), np.zeros((32, 32), np.uint8)
            mask[8:20, 8:20] = 1
            image = normal.copy()
            if len(tries) > pair.index:
                image[8:14, 8:20] = 160
            yield SynthesizedSample(normal, image, mask, WHOLE, pair=pair, windows=[(0, 0, 32, 32)], seconds=0.1)

    def stop(self) -> None: ...

    def prompt(self, type_index: int) -> str:
        return ""

    def settings(self) -> dict[str, Any]:
        return {"steps": 3}


def pairs(count: int) -> Iterator[Pair]:
    return (Pair(i, Path("n.png"), Path("m.png"), 0, 100 + i) for i in range(count))


def test_what_did_not_change_is_made_again_and_given_up_in_the_end() -> None:
    inner = Making()
    maker = HonestMaker(inner, composite=True)
    made = {m.pair.index: m for m in maker.make(pairs(TRIES + 2), 2)}
    assert sorted(made) == list(range(TRIES + 2))
    for index in range(TRIES):
        one = made[index]
        assert one.origin["honest"] == {"share": 0.5, "tries": index + 1}
        assert not one.rejected
        assert one.mask[8:14, 8:20].all()
        assert one.mask.sum() == 6 * 12
        assert one.asked is not None
        assert one.asked.sum() == 144
        assert one.pair.seed == inner.seeds[index][-1]
    for index in (TRIES, TRIES + 1):
        assert made[index].rejected == UNCHANGED
        assert made[index].origin["honest"] == {"share": 0.0, "tries": TRIES}
    assert [len(inner.seeds[i]) for i in range(TRIES + 2)] == [1, 2, 3, 4, 4, 4]
    every = [seed for tries in inner.seeds.values() for seed in tries]
    assert len(set(every)) == len(every)
    rows = [record(m, "", {}) for m in made.values()]
    assert made_again(rows) == (
        f"{TRIES + 1} pairs were made again, for next to nothing had changed; of 2 nothing is to be seen after {TRIES} "
        "tries: such pairs lie in rejected/"
    )
    assert made_again(rows, packed=True).endswith("tries: such pairs have a record and no picture")
    assert made_again([row for row in rows if row["index"] == 0]) == ""


@pytest.mark.parametrize("composite", [True, False])
def test_a_soft_edge_beyond_the_mask_is_not_marked(composite: bool) -> None:
    """Of a pair that was filled beyond its mask the mask alone is looked at, and what was filled stays known."""

    class Soft(Making):
        def make(self, pairs: Iterator[Pair], in_flight: int) -> Generator[SynthesizedSample, None, None]:
            for made in super().make(pairs, in_flight):
                inner = np.zeros_like(made.mask)
                inner[10:16, 10:18] = 1
                yield replace(made, mask=inner, asked=made.mask)

    (made,) = HonestMaker(Soft(), composite).make(pairs(1), 1)
    assert made.asked is not None
    assert made.asked.sum() == 144
    assert made.mask[10:14, 10:18].all()
    assert made.mask.sum() == 4 * 8
    assert made.origin["honest"] == {"share": round(4 / 6, 4), "tries": 1}


def test_seeds_depend_on_the_pair_alone_and_a_stop_ends_it() -> None:
    alone, together = Making(), Making()
    list(HonestMaker(alone, True).make((p for p in pairs(4) if p.index == 2), 1))
    maker = HonestMaker(together, True)
    for made in maker.make(pairs(4), 2):
        if made.pair.index == 0:
            maker.stop()
    assert together.seeds[2] == alone.seeds[2][:1]
    assert maker.settings() == {"steps": 3, "honest_masks": True}


def test_outside_the_asked_mask_counts_without_a_composite() -> None:
    class Spilling(Making):
        def make(self, pairs: Iterator[Pair], in_flight: int) -> Generator[SynthesizedSample, None, None]:
            for made in super().make(pairs, in_flight):
                made.image[18:24, 8:20] = 160
                yield made

    (kept,) = HonestMaker(Spilling(), composite=True).make(pairs(1), 1)
    (spilt,) = HonestMaker(Spilling(), composite=False).make(pairs(1), 1)
    assert not kept.mask[20:].any()
    assert spilt.mask[20:23, 9:19].all()
    assert not spilt.mask[24:].any()


def test_the_command_keeps_the_asked_mask_and_goes_on(drawn_root: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert synthesize(arguments(drawn_root, tiny_artifact, plain)) == 0
    assert not (plain / "mask_asked").exists()
    assert not any({"mask_asked", "honest", "rejected", "honest_masks"} & row.keys() for row in manifest(plain))
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--honest_masks")) == 0
    for row in manifest(out):
        mask, asked = read_mask(out / row["mask"]), read_mask(out / row["mask_asked"])
        assert (asked >= mask).all()
        assert mask.sum() == row["defect_pixels"] > 0
        if row["honest"]["tries"] == 1:
            assert (asked == read_mask(plain / row["mask"])).all()
            assert (out / row["image"]).read_bytes() == (plain / row["image"]).read_bytes()
    before = {p: p.read_bytes() for p in (out / "mask_asked").iterdir()}
    next(iter(before)).unlink()
    assert synthesize(arguments(drawn_root, tiny_artifact, out, "--honest_masks")) == 0
    assert {p: p.read_bytes() for p in (out / "mask_asked").iterdir()} == before


def test_pairs_that_show_nothing_lie_in_rejected_and_are_not_made_again(
    drawn_root: Path, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    out = tmp_path / "out"
    nothing = fast.synthesis.honest.changed_mask
    monkeypatch.setattr(fast.synthesis.honest, "TRIES", 2)
    monkeypatch.setattr(
        fast.synthesis.honest, "changed_mask", lambda n, i, m, g: nothing(n, i, m, g) * (m.sum() % 2 == 0)
    )
    argv = arguments(drawn_root, tiny_artifact, out, "--honest_masks", "--count", "6")
    assert synthesize(argv) == 0
    kept, rejected = read_records(out), read_records(out / "rejected")
    assert sorted(r["index"] for r in kept + rejected) == list(range(6))
    assert kept
    assert rejected
    assert all(r["rejected"] == UNCHANGED and (out / "rejected" / r["mask_asked"]).is_file() for r in rejected)
    assert f"{number_of(len(kept), 'pair')} in {out}" in capsys.readouterr().out
    assert leftovers(out) == []
    monkeypatch.setattr(OutputFolder, "write", None)  # nothing is left to do
    assert synthesize(argv) == 0


def test_methods_that_mark_their_own_changes_refuse_it(drawn_root: Path, tmp_path: Path, capsys: Any) -> None:
    import generate_with_mask

    argv = ["--method", "draem", "--data_root", str(drawn_root / "wood"), "--sample_name", str(tmp_path / "out")]
    assert run_cli(generate_with_mask.main, [*argv, "--honest_masks"]) == 2
    assert "--honest_masks is for methods on a latent base" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
