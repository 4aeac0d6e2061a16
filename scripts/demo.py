"""What the shipped base does for parts it never saw: words and masks to pairs, and what the pairs are worth.

Draws surfaces that were kept out of all training, fills masks in them, trains a small segmenter without and with these
pairs, tests both on defects that nobody used, and writes report.html. Everything lies in one folder and is kept: a
second run goes on where the first stopped. Start over with `make clean`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from fast.data.drawn import defects_of, draw_defect, draw_surface  # noqa: E402
from fast.data.drawn.dataset import VERSION, picture_rng  # noqa: E402
from fast.data.drawn.traits import HELD_APART  # noqa: E402
from fast.data.images import read_image, read_mask, write_bytes, write_image, write_mask  # noqa: E402
from fast.door import open_door  # noqa: E402
from fast.report import (  # noqa: E402
    PREDICTION_KEY,
    Bar,
    Commands,
    Figure,
    Gallery,
    Report,
    Section,
    Table,
    duration,
    pair_row,
    percent,
    render,
    trial_row,
)
from fast.training.options import Parser  # noqa: E402
from ldm.errors import UserError  # noqa: E402

if TYPE_CHECKING:
    from fast.segmentation.metrics import Tally

SEGMENTERS = {"real": "real alone", "merged": "real + synthetic"}
STAGES = {
    "draw": "drawing the test case",
    "pairs": "synthesizing pairs",
    "segmenters": "training and testing two segmenters",
    "report": "writing this page",
}
AT_ONCE = 12  # pictures for which one more process is worth its start
PAIRS_SHOWN, TRIALS_SHOWN = 6, 3  # rows in the report for each material


@dataclass(frozen=True)
class Plan:
    """What is drawn, made and trained. `normals`, `handful`: pictures of each material; `pairs`, `tests`: of each type
    of defect on each material; `evaluations`: of the network for a pair; `steps`: of each segmenter's training, of
    whose pictures `normal_share` are flawless and, where there are synthetic ones, `real_share` of the rest real."""

    materials: tuple[str, ...] = HELD_APART
    size: int = 256
    normals: int = 12
    handful: int = 3
    pairs: int = 3
    tests: int = 2
    evaluations: int = 10
    steps: int = 300
    normal_share: float = 0.1
    real_share: float = 0.25
    seed: int = 0

    def types(self) -> list[tuple[str, str]]:
        """(material, defect type), all that are made and tested."""
        return [(material, defect) for material in self.materials for defect in defects_of(material)]


@dataclass(frozen=True)
class Drawing:
    """A picture to draw at `image` with its mask at `mask`; without `image` only the mask is kept, drawn on `ground`.
    `use`, `index`: what its random numbers depend on."""

    material: str
    defect: str
    use: str
    index: int
    image: Path | None
    mask: Path | None
    ground: Path | None = None

    @property
    def done(self) -> bool:
        return all(p is None or p.is_file() for p in (self.image, self.mask))


def main(argv: list[str]) -> None:
    p = Parser(prog="demo.py", description=__doc__)
    p.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything (default: demo)")
    p.add_argument("--pt_path", default="models/mini", help="weights that serve any words (default: models/mini)")
    p.add_argument("--pairs", type=int, default=Plan.pairs, help="pairs of each type on each material (default 3)")
    p.add_argument("--steps", type=int, default=Plan.steps, help="steps of each segmenter's training (default 300)")
    options = p.parse_args(argv)
    for name in ("pairs", "steps"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} {getattr(options, name)} must be at least 1")
    run(Plan(pairs=options.pairs, steps=options.steps), options.out, options.pt_path)


def run(plan: Plan, out: Path, weights: str) -> Path:
    """All stages, or what is left of them. Returns the report's path. Raises `UserError`."""
    claim(plan, out, weights)
    draw(plan, out)
    for material in plan.materials:
        synthesize(plan, out, material, weights)
    segment(plan, out)
    page = report(plan, out)
    total = duration(sum(times(out).values()))
    print(f"\nfinished, {total} of work in all; open {page.resolve()}", flush=True)
    return page


def claim(plan: Plan, out: Path, weights: str) -> None:
    """Make `out` this run's own. Raises `UserError` where it holds something else or there are no weights."""
    from fast.checkpoint import find_artifact

    artifact = find_artifact(weights)
    digest = hashlib.sha256(artifact.path.read_bytes()).hexdigest()
    settings = json.dumps({**asdict(plan), "weights": digest, "drawing": VERSION}, indent=1)
    mark = out / "settings.json"
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder")
    if mark.is_file() and mark.read_text() != settings:
        raise UserError(f"{out} holds a run with other settings or weights; start over with make clean, or use --out")
    if not mark.is_file() and out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} holds other files; start over with make clean, or use --out")
    write_bytes(mark, settings.encode())


# 1. what there is


def normals_of(plan: Plan, out: Path, material: str) -> list[Path]:
    return [out / "parts" / material / "normal" / f"{i:03d}.png" for i in range(plan.normals)]


def draw(plan: Plan, out: Path) -> None:
    """Normals, masks as drawn by hand, a handful of real defects, and those that only the test sees."""
    normals = [
        Drawing(m, "", "normal", i, path, None)
        for m in plan.materials
        for i, path in enumerate(normals_of(plan, out, m))
    ]
    masks = [
        Drawing(m, d, "mask", i, None, mask_folder(out, m) / d / f"{i:03d}.png", ground=grounds[i % plan.normals])
        for m, d in plan.types()
        for grounds in [normals_of(plan, out, m)]
        for i in range(plan.pairs)
    ]
    for jobs in (normals, masks + handful(plan, out) + tests(plan, out)):
        left = [job for job in jobs if not job.done]
        if left:
            say("drawing: normals" if jobs is normals else "drawing: masks, a handful of real defects, and the test's")
            with timed(out, "draw"):
                in_processes(draw_one, [(job, plan) for job in left])


def mask_folder(out: Path, material: str) -> Path:
    return out / "parts" / material / "masks"


def handful(plan: Plan, out: Path) -> list[Drawing]:
    """The few real defects that there are to train on: of each material some types, chosen by chance."""
    found = []
    for material in plan.materials:
        chosen = picture_rng(plan.seed, material, "handful", 0).permutation(defects_of(material))[: plan.handful]
        found += [_real(out, "handful", material, str(defect), 0) for defect in chosen]
    return found


def tests(plan: Plan, out: Path) -> list[Drawing]:
    """Real defects that no training sees: every type on every material."""
    return [_real(out, "test", material, defect, i) for material, defect in plan.types() for i in range(plan.tests)]


def _real(out: Path, use: str, material: str, defect: str, index: int) -> Drawing:
    folder = out / use / material
    name = f"{index:03d}.png"
    return Drawing(material, defect, use, index, folder / "defects" / defect / name, folder / "masks" / defect / name)


def draw_one(task: tuple[Drawing, Plan]) -> None:
    job, plan = task
    rng = picture_rng(plan.seed, job.material, f"{job.use}/{job.defect}", job.index)
    if job.ground:
        image = read_image(job.ground)
    else:
        # One product of each material, as a factory has: the same colours in every picture.
        image = draw_surface(job.material, rng, plan.size, picture_rng(plan.seed, job.material, "product", 0))
    if job.mask:
        image, mask = draw_defect(image, job.material, job.defect, rng)
        write_mask(job.mask, mask)
    if job.image:
        write_image(job.image, image)


def in_processes(work: Callable[[Any], None], tasks: Sequence[Any]) -> None:
    """`work(task)` for all tasks, on all cores, with a bar on a terminal."""
    from tqdm import tqdm

    workers = min(os.cpu_count() or 1, len(tasks) // AT_ONCE)
    with tqdm(total=len(tasks), unit="picture", mininterval=0.5, disable=None) as bar:
        if workers < 2:
            for task in tasks:
                work(task)
                bar.update()
            return
        with ProcessPoolExecutor(workers, initializer=_single) as pool:
            futures = [pool.submit(work, task) for task in tasks]
            _wait(futures, lambda: bar.update(), lambda: pool.shutdown(wait=False, cancel_futures=True))


def _single() -> None:
    """In a process of a pool: one thread each, and Ctrl-C is the first process's affair."""
    import cv2

    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _wait(futures: Sequence[Future[None]], each: Callable[[], object], stop: Callable[[], object]) -> None:
    """Until all are done; `stop` is called if one fails or the user stops waiting."""
    try:
        for future in as_completed(futures):
            future.result()
            each()
    except BaseException:
        stop()
        raise


# 2. what is made of it


def synthesize(plan: Plan, out: Path, material: str, weights: str) -> None:
    """Pairs of one material, as many as there are masks, through the synthesis door: by words and masks alone."""
    from fast.synthesis_door import parser
    from fast.synthesis_door import synthesize as fill

    target, count = out / "pairs" / material, plan.pairs * len(defects_of(material))
    if len(records(target)) == count:
        return
    flags = ["--data_root", str(normals_of(plan, out, material)[0].parent), "--mask_path"]
    flags += [str(mask_folder(out, material)), "--pt_path", weights, "--anomaly_name", material]
    flags += ["--sample_name", str(target), "--count", str(count), "--steps", str(plan.evaluations)]
    flags += ["--precision", "bf16" if has_bf16() else "fp32", "--seed", str(plan.seed)]
    say("python generate_with_mask.py " + " ".join(flags))
    with timed(out, "pairs"):
        fill(parser().parse_args(flags))


def records(target: Path) -> list[dict[str, Any]]:
    """The manifest's lines, one for each pair that is made."""
    manifest = target / "manifest.jsonl"
    return [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.is_file() else []


def has_bf16() -> bool:
    """Whether this machine computes in bfloat16 faster than in float32."""
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return torch.cuda.is_available() or any(getattr(torch.cpu, check, lambda: False)() for check in checks)


# 3. what it is worth


def segment(plan: Plan, out: Path) -> None:
    """Train both segmenters side by side, a core each, and keep what they find in the test pictures."""
    import torch
    from tqdm import tqdm

    left = [name for name in SEGMENTERS if not all(found_path(out, name, job).is_file() for job in tests(plan, out))]
    if not left:
        return
    say(f"training: {' | '.join(SEGMENTERS[name] for name in left)}, {plan.steps} steps each")
    stopping = Event()
    with (
        timed(out, "segmenters"),
        tqdm(total=len(left) * plan.steps, unit="step", mininterval=0.5, disable=None) as bar,
        ThreadPoolExecutor(len(left), initializer=lambda: torch.set_num_threads(1)) as pool,
    ):

        def progress(*_: float) -> None:
            if stopping.is_set():
                raise KeyboardInterrupt
            bar.update()

        _wait([pool.submit(_segment, plan, out, name, progress) for name in left], lambda: None, stopping.set)


def _segment(plan: Plan, out: Path, name: str, progress: Callable[[int, float, float], None]) -> None:
    import torch

    from fast.masks import to_tensor
    from fast.segmentation import build
    from fast.segmentation.data import Labelled, from_output, merged
    from fast.segmentation.metrics import predict
    from fast.segmentation.train import train

    real = [Labelled(_given(d.image), _given(d.mask), f"{d.material}/{d.defect}") for d in handful(plan, out)]
    synthetic = [p for m in plan.materials for p in from_output(out / "pairs" / m)[0]] if name == "merged" else []
    normals = [Labelled(path, None, f"{m}/good") for m in plan.materials for path in normals_of(plan, out, m)]
    pairs = merged(synthetic, real, normals, plan.real_share if synthetic else None, plan.normal_share)
    device, fast = "cuda" if torch.cuda.is_available() else "cpu", has_bf16()
    model = build("mini", seed=plan.seed)
    train(
        model, pairs, steps=plan.steps, seed=plan.seed, size=plan.size, bf16=fast, device=device, progress=progress
    )  # fmt: skip
    for job in tests(plan, out):
        image = to_tensor(read_image(_given(job.image)))[None].to(device)
        found = predict(model, image, bf16=fast).argmax(dim=1)[0].cpu().numpy()
        write_mask(found_path(out, name, job), found)


def found_path(out: Path, name: str, job: Drawing) -> Path:
    return out / "found" / name / job.material / job.defect / f"{job.index:03d}.png"


def _given(path: Path | None) -> Path:
    assert path is not None  # real defects have both files
    return path


# 4. what to show


def report(plan: Plan, out: Path) -> Path:
    """Write report.html from what the other stages have left. Returns its path."""
    say("writing the report")
    start = time.perf_counter()
    page = out / "report.html"
    with timed(out, "report", afresh=True):
        made = {m: records(out / "pairs" / m) for m in plan.materials}
        sections = [
            _pairs(plan, out, made),
            _worth(plan, out),
            _trials(plan, out),
            _own_part(),
            _how(plan, {**times(out), "report": time.perf_counter() - start}, made),
        ]
        spent = {**times(out), "report": time.perf_counter() - start}
        write_bytes(page, render(_front(plan, out, sections, spent, made)).encode())
    return page


def tally(plan: Plan, out: Path, name: str, key: Callable[[Drawing], str]) -> dict[str, Tally]:
    """The pixels a segmenter found in the test pictures, summed up by `key`, in the order they come."""
    from fast.segmentation.metrics import Tally

    sums: dict[str, Tally] = {}
    for job in tests(plan, out):
        found, truth = read_mask(found_path(out, name, job)) > 0, read_mask(_given(job.mask)) > 0
        sums.setdefault(key(job), Tally()).add(found, truth, found.astype(np.float32))
    return sums


def _front(
    plan: Plan, out: Path, sections: list[Section], spent: dict[str, float], made: dict[str, list[dict[str, Any]]]
) -> Report:
    alone, merged = (tally(plan, out, name, lambda _: "all")["all"] for name in SEGMENTERS)
    count, few = sum(map(len, made.values())), len(handful(plan, out))
    gain = 100 * ((merged.iou or 0) - (alone.iou or 0))
    per_pair = duration(spent.get("pairs", 0.0) / count)
    names = list(SEGMENTERS.values())
    change = f"{abs(gain):.1f} points {'more' if gain >= 0 else 'less'}, on the same {alone.images} test pictures"
    return Report(
        title="Defects from words and masks, for parts the model has never seen",
        lead=(
            f"{len(plan.materials)} materials that were kept out of all training, {few} real defects in all, and "
            f"{count} synthetic pairs made from normal pictures, masks and a few words. Does a segmentation network "
            "trained on them find more of the defects it has not seen? Every number on this page was measured in the "
            "run that wrote it."
        ),
        figures=[
            Figure(percent(merged.iou), f"IoU, {names[1]}", change, strong=True),
            Figure(percent(alone.iou), f"IoU, {names[0]}", f"{few} real defects, the same steps of training"),
            Figure(per_pair, "per synthetic pair", f"{plan.size} × {plan.size} pixels, {count} pairs"),
            Figure(
                duration(sum(spent.values())),
                "from nothing to this page",
                f"on {os.cpu_count()} cores, training included",
            ),
        ],
        sections=sections,
        foot=(
            "Written by FAST. The materials and their defects are drawn by the project's own generator; “real” means "
            "drawn, not synthesized. IoU and Acc are those of the defect pixels, summed over all pictures."
        ),
    )


def _worth(plan: Plan, out: Path) -> Section:
    counts = Counter(d.defect for d in handful(plan, out))
    few, count = sum(counts.values()), plan.pairs * len(plan.types())
    return Section(
        "What the pairs are worth",
        f"Two networks of 0.8 million parameters, the same start, {plan.steps} steps of 8 pictures each. One trains on "
        f"{few} real defects, the other on these and {count} synthetic pairs; both see the normal pictures. The test "
        "pictures were used by neither. Single types rest on few pictures: read their figures as a tendency.",
        [
            _scores(plan, out, "By material", "material", lambda d: _title(d.material)),
            _scores(plan, out, "By type of defect", "type", lambda d: _title(d.defect), counts),
        ],
    )


def _scores(
    plan: Plan,
    out: Path,
    caption: str,
    what: str,
    key: Callable[[Drawing], str],
    counts: Counter[str] | None = None,
) -> Table:
    alone, merged = ({**tally(plan, out, name, key), **tally(plan, out, name, lambda _: "All")} for name in SEGMENTERS)
    rows: list[list[str | Bar]] = []
    for name in alone:
        a, m = alone[name], merged[name]
        given = [] if counts is None else [str(sum(n for d, n in counts.items() if name in ("All", _title(d))))]
        rows.append([name, str(a.images), *given, Bar(a.iou), Bar(m.iou, True), percent(a.acc), percent(m.acc)])
    given = [] if counts is None else ["real in training"]
    columns = [what, "test pictures", *given, *(f"{s}, {n}" for s in ("IoU", "Acc") for n in SEGMENTERS.values())]
    return Table(caption, columns, rows, total=True)


def _trials(plan: Plan, out: Path) -> Section:
    galleries = []
    shown = spread(plan.materials, TRIALS_SHOWN)
    for material in plan.materials:
        jobs = [d for d in tests(plan, out) if d.material == material and d.defect in shown[material] and d.index == 0]
        rows = [
            trial_row(
                f"{_title(job.material)}, {job.defect}",
                read_image(_given(job.image)),
                read_mask(_given(job.mask)),
                {label: read_mask(found_path(out, name, job)) for name, label in SEGMENTERS.items()},
            )
            for job in jobs
        ]
        galleries.append(Gallery("", rows, PREDICTION_KEY if material == plan.materials[0] else ()))
    return Section(
        "What the networks find",
        f"{TRIALS_SHOWN} types of each material, the first test picture of each, good or bad.",
        galleries,
    )


def _pairs(plan: Plan, out: Path, made: dict[str, list[dict[str, Any]]]) -> Section:
    from fast.contact_sheet import read_row

    galleries, shown = [], spread(plan.materials, PAIRS_SHOWN)
    for material in plan.materials:
        first: dict[str, dict[str, Any]] = {}
        for record in made[material]:
            first.setdefault(record["type"].split("/", 1)[1], record)
        rows = []
        for defect in (d for d in shown[material] if d in first):
            pair = read_row(out / "pairs" / material, first[defect])
            rows.append(pair_row(_title(defect), pair.normal, pair.mask, pair.synthetic, f"“{pair.caption}”"))
        galleries.append(Gallery(_title(material), rows))
    return Section(
        "The pairs",
        "A normal picture, a mask and the quoted words go in; the synthetic picture comes out. Outside the mask every "
        f"byte is that of the normal picture. Shown are {PAIRS_SHOWN} types of each material, the first pair made of "
        f"each; all of them lie in {out / 'pairs'}.",
        galleries,
    )


def spread(materials: Sequence[str], count: int) -> dict[str, list[str]]:
    """`count` types of each material, such that all of them together show as many types as possible."""
    common = Counter(defect for material in materials for defect in defects_of(material))
    seen: Counter[str] = Counter()
    shown: dict[str, list[str]] = {}
    for material in materials:
        types = defects_of(material)
        chosen = sorted(types, key=lambda d: (seen[d], common[d]))[:count]
        seen.update(chosen)
        shown[material] = [d for d in types if d in chosen]
    return shown


def _own_part() -> Section:
    synthesis = (
        "python generate_with_mask.py --data_root parts/normal --mask_path parts/masks --pt_path {} \\\n"
        "  --sample_name samples/{} --count 500"
    )
    return Section(
        "Your own part",
        "Normal pictures in parts/normal, masks (white where the defect is to be) in parts/masks, in folders named by "
        "the defect: parts/masks/scratch, parts/masks/dent. Ten normals and ten masks of each type will do to begin.",
        [
            Commands(
                [
                    ("Words and masks alone, without one real defect", synthesis.format("models/mini", "words")),
                    ("Look at them", "python scripts/contact_sheet.py samples/words --out samples/words.png"),
                    (
                        "With real defects in parts/defects/scratch and so on, masks of the same names in parts/masks: "
                        "adapt to the part, then synthesize",
                        "python main.py --base configs/mini/fast.yaml -t --mvtec_path parts -n parts\n"
                        + synthesis.format("logs/parts", "parts"),
                    ),
                    (
                        "Measure what the pairs are worth for it",
                        "python scripts/segment.py --train parts --test parts --segmenter mini --out real.json\n"
                        "python scripts/segment.py --train parts samples/parts --test parts --segmenter mini "
                        "--out merged.json",
                    ),
                ]
            )
        ],
    )


def _how(plan: Plan, spent: dict[str, float], made: dict[str, list[dict[str, Any]]]) -> Section:
    rows = [[name, duration(spent[stage])] for stage, name in STAGES.items() if stage in spent]
    rows.append(["all", duration(sum(spent.values()))])
    first = next(record for lines in made.values() for record in lines)
    return Section(
        "How it was done",
        f"Sampler {first['sampler']}, {first['steps']} evaluations of the network for a pair, precision "
        f"{first['precision']}, on the {first['device'].upper()}; weights {first['weights']}. The time for pairs "
        "includes loading the weights. The same seed gives the same pairs again.",
        [Table("Where the time went", ["stage", "time"], rows, total=True)],
    )


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


# all the way through


def times(out: Path) -> dict[str, float]:
    """Seconds of work by stage, over all runs in this folder."""
    path = out / "times.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


@contextmanager
def timed(out: Path, stage: str, afresh: bool = False) -> Iterator[None]:
    """Add what is done here to the stage's time, also when it is stopped; `afresh`: forget what there was."""
    start, before = time.perf_counter(), 0.0 if afresh else times(out).get(stage, 0.0)
    try:
        yield
    finally:
        spent = {**times(out), stage: before + time.perf_counter() - start}
        write_bytes(out / "times.json", json.dumps(spent).encode())


def say(line: str) -> None:
    print(f"\n$ {line}" if line.startswith("python ") else f"\n{line}", flush=True)


if __name__ == "__main__":
    sys.exit(open_door(main))
