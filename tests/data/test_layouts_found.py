"""Datasets as people have them: what is used, what is named as not used, what contradicts itself."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fast.data.images import read_mask, write_image, write_mask
from fast.data.layouts import check, holds_masks, open_dataset
from fast.data.reading import load_reading
from fast.synthesis.sources import find_masks, find_normals
from ldm.errors import UserError

MASK = np.zeros((40, 60), np.uint8)
MASK[5:15, 10:30] = 1


def photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([seed, zlib.crc32(str(path).encode())]).standard_normal((40, 60, 3))
    Image.fromarray(np.clip(130 + 25 * noise, 0, 255).astype(np.uint8)).save(path)
    return path


def mask(path: Path, values: np.ndarray = MASK) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values * np.uint8(255)).save(path)
    return path


def part(root: Path, kinds: tuple[str, ...] = ("a",)) -> Path:
    for i in range(3):
        photo(root / "normal" / f"{i}.png", i)
        for kind in kinds:
            photo(root / "defects" / kind / f"{i}.png", 9 + i)
            mask(root / "masks" / kind / f"{i}.png")
    return root


def mvtec(root: Path, kind: str = "a") -> Path:
    photo(root / "train/good/0.png")
    photo(root / f"test/{kind}/0.png")
    mask(root / f"ground_truth/{kind}/0_mask.png")
    return root


def used(root: Path) -> tuple[list[str], list[str]]:
    """Normals and defects, as paths from the root."""
    index = open_dataset(root)
    assert index.problems == []
    return [index.relative(s.image) for s in index.normals], [index.relative(s.image) for s in index.defects]


def test_folders_inside_the_halves_are_read(tmp_path: Path) -> None:
    photo(tmp_path / "p/normal/lot1/0.png")
    photo(tmp_path / "p/normal/1.png")
    for lot in ("lot1", "lot2"):  # the same names in each
        photo(tmp_path / f"p/defects/a/{lot}/0.png")
        mask(tmp_path / f"p/masks/a/{lot}/0.png", MASK if lot == "lot1" else MASK[:, ::-1])
    normals, defects = used(tmp_path / "p")
    assert normals == ["normal/1.png", "normal/lot1/0.png"]
    assert defects == ["defects/a/lot1/0.png", "defects/a/lot2/0.png"]
    second = open_dataset(tmp_path / "p").defects[1]
    assert second.mask is not None
    np.testing.assert_array_equal(read_mask(second.mask), MASK[:, ::-1])
    photo(tmp_path / "bottle/train/good/day1/7.png")
    photo(tmp_path / "bottle/test/a/0.png")
    mask(tmp_path / "bottle/ground_truth/a/0_mask.png")
    assert used(tmp_path / "bottle") == (["train/good/day1/7.png"], ["test/a/0.png"])
    assert [n.path.name for n in find_normals(str(tmp_path / "p/normal"))] == ["1.png", "0.png"]


def test_masks_nested_otherwise_are_found_by_unique_names(tmp_path: Path) -> None:
    part(tmp_path / "p")
    photo(tmp_path / "p/defects/a/lot/7.png")
    mask(tmp_path / "p/masks/a/7.png")
    assert "defects/a/lot/7.png" in used(tmp_path / "p")[1]


@pytest.mark.parametrize("ending", ["_GT", "_gt", "_label", "_Label", "_mask", "_MASK", "-mask", "_seg"])
def test_endings_of_mask_names(tmp_path: Path, ending: str) -> None:
    root = part(tmp_path / "p")
    photo(root / "defects/a/x1.jpg")
    mask(root / f"masks/a/x1{ending}.bmp")
    assert "defects/a/x1.jpg" in used(root)[1]
    photo(tmp_path / "ksdd/0.png")
    photo(tmp_path / "ksdd/1.png")
    mask(tmp_path / f"ksdd/0{ending}.png")
    mask(tmp_path / f"ksdd/1{ending}.bmp", MASK * 0)
    assert used(tmp_path / "ksdd") == (["1.png"], ["0.png"])
    assert open_dataset(tmp_path / "ksdd").layout == "beside"
    assert [n.path.name for n in find_normals(str(tmp_path / "ksdd"))] == ["1.png"]


def test_beginnings_of_mask_names(tmp_path: Path) -> None:
    photo(tmp_path / "p/0.png")
    mask(tmp_path / "p/mask_0.png")
    photo(tmp_path / "p/1.png")
    assert used(tmp_path / "p") == (["1.png"], ["0.png"])


def test_masks_of_the_same_name_beside_their_images(tmp_path: Path) -> None:
    for i in range(2):
        photo(tmp_path / f"mt/e{i}.jpg", i)
        mask(tmp_path / f"mt/e{i}.png", MASK * i)
    assert used(tmp_path / "mt") == (["e0.jpg"], ["e1.jpg"])
    photo(tmp_path / "both/normal/0.jpg")
    photo(tmp_path / "both/normal/0.png")
    photo(tmp_path / "both/defects/a/1.png")
    mask(tmp_path / "both/masks/a/1.png")
    assert open_dataset(tmp_path / "both").problems == [
        "normal/0.jpg: has the name of 0.png; which is the image? remove or rename the other",
        "normal/0.png: has the name of 0.jpg; which is the image? remove or rename the other",
    ]


def test_masks_beside_defects_in_folders_of_types(tmp_path: Path) -> None:
    root = tmp_path / "p"
    photo(root / "normal/0.png")
    photo(root / "defects/a/1.png")
    mask(root / "defects/a/1_GT.png")
    photo(root / "defects/2.png")
    mask(root / "defects/2_mask.png")
    assert used(root) == (["normal/0.png"], ["defects/a/1.png", "defects/2.png"])
    assert open_dataset(root).types == [("p", "a"), ("p", "defect")]


def test_masks_among_the_normals(tmp_path: Path) -> None:
    root = part(tmp_path / "p")
    mask(root / "normal/0_GT.png", MASK * 0)
    assert used(root)[0] == ["normal/0.png", "normal/1.png", "normal/2.png"]
    mask(root / "normal/1_GT.png")
    mask(root / "normal/9_GT.png")
    index = open_dataset(root)
    assert [s.image.name for s in index.normals] == ["0.png", "2.png"]
    assert index.problems == [
        "normal/1_GT.png: mask with a defect, but 1.png lies among the normals; move it",
        "normal/9_GT.png: mask without image; it lies among the normals, move it",
    ]


def test_several_masks_of_an_image(tmp_path: Path) -> None:
    root = tmp_path / "breakfast_box"  # MVTec LOCO
    photo(root / "train/good/000.png")
    photo(root / "validation/good/000.png")
    photo(root / "test/logical/000.png")
    photo(root / "test/logical/001.png")
    mask(root / "ground_truth/logical/000/000.png")
    mask(root / "ground_truth/logical/000/001.png", MASK[::-1])
    mask(root / "ground_truth/logical/001/000.png", MASK[:, ::-1])
    assert used(root) == (
        ["train/good/000.png", "validation/good/000.png"],
        ["test/logical/000.png", "test/logical/001.png"],
    )
    report = check(open_dataset(root))
    assert report.problems == []
    masks = [read_mask(s.mask) for s in report.usable.defects if s.mask]
    np.testing.assert_array_equal(masks[0], MASK | MASK[::-1])
    np.testing.assert_array_equal(masks[1], MASK[:, ::-1])


def test_mvtec_ad_2(tmp_path: Path) -> None:
    root = tmp_path / "can"
    photo(root / "train/good/000_regular.png")
    photo(root / "test_public/good/000_regular.png")
    for light in ("regular", "overexposed"):
        photo(root / f"test_public/bad/001_{light}.png")
        mask(root / f"test_public/ground_truth/bad/001_{light}_mask.png")
    photo(root / "test_private/000_mixed.png")
    index = open_dataset(root)
    assert (index.types, len(index.normals), len(index.test_normals), index.problems) == ([("can", "bad")], 1, 1, [])
    assert index.notes == ["not used: test_private/000_mixed.png"]
    assert len({s.group for s in index.defects}) == 1  # one can in two lights


def test_one_mask_cannot_serve_two_images(tmp_path: Path) -> None:
    root = part(tmp_path / "p")
    photo(root / "defects/a/0.jpg")
    mask(root / "ground_truth/a/1.png", MASK[::-1])
    mask(root / "masks/a/2_mask.png", MASK[::-1])
    index = open_dataset(root)
    assert index.defects == []
    assert index.problems == [
        "defects/a/0.jpg: has the name of 0.png, and one mask cannot be of both; rename one",
        "defects/a/0.png: has the name of 0.jpg, and one mask cannot be of both; rename one",
        "defects/a/1.png: has 2 masks, ground_truth/a/1.png and masks/a/1.png; keep one",
        "defects/a/2.png: has 2 masks, 2.png and 2_mask.png; keep one",
    ]


def test_what_is_not_used_is_named_and_counted(tmp_path: Path) -> None:
    root = part(tmp_path / "p")
    photo(root / "overview.png")
    for i in range(3):
        photo(root / f"old/{i}.png")
    (root / "normal/3.heic").write_text("x")
    (root / "normal/.DS_Store").write_text("x")
    (root / "README.txt").write_text("x")
    (root / "groups.csv").write_text("image,group\n" + "".join(f"defects/a/{i}.png,{i}\n" for i in range(3)))
    assert open_dataset(root).notes == [
        "not used: overview.png",
        "not used: normal/3.heic",
        "not used: 3 files in old (3 .png; first: old/0.png)",
    ]
    assert [n.path.name for n in find_normals(str(root))] == ["0.png", "1.png", "2.png"]


def test_tables_that_contradict_themselves(tmp_path: Path) -> None:
    data = tmp_path / "candle/Data"
    for i in range(3):
        photo(data / f"Images/Anomaly/{i}.JPG")
    photo(data / "Images/Normal/0.JPG")
    mask(data / "Masks/Anomaly/0.png")
    rows = [f"candle/Data/Images/Anomaly/{i}.JPG,chip,candle/Data/Masks/Anomaly/0.png" for i in range(2)]
    rows += [f"candle/Data/Images/{n}.JPG,normal," for n in ("Normal/0", "Anomaly/2", "Anomaly/2")]
    (tmp_path / "candle/image_anno.csv").write_text("\n".join(["image,label,mask", *rows]))
    index = open_dataset(tmp_path / "candle")
    assert (len(index.normals), index.defects) == (1, [])
    assert index.problems == [
        "Data/Images/Anomaly/2.JPG: listed as good and good; keep one",
        "Data/Masks/Anomaly/0.png: the mask of Data/Images/Anomaly/0.JPG and Data/Images/Anomaly/1.JPG; keep one",
    ]
    root = part(tmp_path / "p")
    (root / "groups.csv").write_text("image,group\n" + "".join(f"defects/a/{i}.png,{i}\n" for i in range(5)))
    assert open_dataset(root).problems == [
        "groups.csv: 2 rows name no image (first: defects/a/3.png); correct the names"
    ]


def test_names_that_mean_normal(tmp_path: Path) -> None:
    root = part(tmp_path / "p", ("a", "good", "Normal"))
    report = check(open_dataset(root))
    assert report.usable.types == [("p", "a")]
    assert report.problems == [
        f"defects/{k}: a defect type cannot be called '{k}', which names the normals; rename it"
        for k in ("Normal", "good")
    ]
    for name in ("normal", "good", "defects", "bottle", "bad"):
        mvtec(tmp_path / "set" / name)
    assert open_dataset(tmp_path / "set").categories == ["bad", "bottle", "defects", "good", "normal"]
    for name in ("normal", "gear"):
        part(tmp_path / "plain" / name)
    assert open_dataset(tmp_path / "plain").categories == ["gear", "normal"]


def test_masks_of_normals_must_be_empty(tmp_path: Path) -> None:
    root = mvtec(tmp_path / "bottle")
    photo(root / "test/good/0.png")
    mask(root / "ground_truth/good/0_mask.png", MASK * 0)
    assert open_dataset(root).problems == []
    mask(root / "ground_truth/good/0_mask.png")
    assert open_dataset(root).problems == [
        "ground_truth/good/0_mask.png: mask with a defect, but 'good' names the normals; move mask and image"
    ]


def test_inverted_masks_are_asked_about(tmp_path: Path) -> None:
    root = part(tmp_path / "p", ("a", "b"))
    mask(root / "masks/a/1.png", 1 - MASK)
    for i in range(3):
        mask(root / f"masks/b/{i}.png", 1 - MASK)
    report = check(open_dataset(root))
    assert [line.split(": ")[0] for line in report.problems] == [
        "masks/a/1.png",
        *(f"masks/b/{i}.png" for i in range(3)),
        "defects/b",
    ]
    assert report.problems[0].startswith(
        "masks/a/1.png: the defect would cover 92% of the picture, the type's other masks 8% of theirs (255 is the "
        "defect); if the mask is inverted"
    )
    assert len(report.usable.defects) == 2
    (root / "masks/b/reading.json").write_text('{"mask_values": [0]}')
    (root / "masks/a/reading.json").write_text('{"mask_values": [255]}')  # it is right: a large defect
    report = check(open_dataset(root))
    assert report.problems == []
    assert {read_mask(s.mask).sum() for s in report.usable.defects if s.mask and s.anomaly == "b"} == {200}
    mask(root / "masks/c/0.png", 1 - MASK)
    with pytest.raises(UserError, match=r"c/0\.png: the defect would cover 92% of the picture"):
        find_masks(str(root / "masks"))


def test_a_mask_of_nothing_but_defect_is_asked_about(tmp_path: Path) -> None:
    root = part(tmp_path / "p")
    mask(root / "masks/a/1.png", np.ones_like(MASK))
    (problem,) = check(open_dataset(root)).problems
    assert problem.startswith("masks/a/1.png: the defect would cover 100% of the picture, the type's other masks 8%")
    (root / "masks/a/reading.json").write_text('{"mask_values": [255]}')
    assert check(open_dataset(root)).problems == []


def test_large_defects_that_leave_the_border_free_are_no_question(tmp_path: Path) -> None:
    root = part(tmp_path / "p")
    whole = np.zeros((40, 60), np.uint8)
    whole[2:38, 2:58] = 1
    mask(root / "masks/a/1.png", whole)
    assert check(open_dataset(root)).problems == []


def test_photographs_are_not_taken_for_masks(tmp_path: Path) -> None:
    root = part(tmp_path / "p")
    assert holds_masks(root)
    with pytest.raises(UserError, match="is a dataset; give its folder of masks"):
        find_masks(str(root))
    with pytest.raises(UserError, match="looks like a photograph"):
        find_masks(str(root / "defects"))
    assert len(find_masks(str(root / "masks"))[0]) == 3
    photo(root / "masks/a/1.png")
    problems = check(open_dataset(root)).problems
    assert len(problems) == 1
    assert problems[0].startswith("masks/a/1.png: looks like a photograph")


@pytest.mark.parametrize(
    ("put", "given", "base", "name"),
    [
        ("p/crack", "p", "p", "masks"),
        ("p/masks/crack", "p", "p", "masks"),
        ("p/masks/crack", "p/masks", "p", "masks"),
        ("p/ground_truth/crack", "p", "p", "ground_truth"),
    ],
)
def test_masks_alone_are_told(tmp_path: Path, put: str, given: str, base: str, name: str) -> None:
    for number in range(2):
        mask(tmp_path / put / f"{number}.png")
    with pytest.raises(UserError) as told:
        open_dataset(tmp_path / given)
    said, first = str(told.value), (tmp_path / put / "0.png").relative_to(tmp_path / given)
    assert f"{tmp_path / given}: looks like masks alone (2 files, {first} the first)" in said
    assert f"images of defects belong into {tmp_path / base / 'defects'}/<type>, masks" in said
    assert f"into {tmp_path / base / name}/<type>, normal images into {tmp_path / base / 'normal'}" in said
    photo(tmp_path / put / "1.png")
    with pytest.raises(UserError, match="no known layout"):
        open_dataset(tmp_path / given)


def test_the_decisions_are_told(tmp_path: Path) -> None:
    root = part(tmp_path / "p")
    mask(root / "masks/a/2.png", MASK * 0)
    mask(root / "masks/a/1.png")
    Image.fromarray(MASK * 38).save(root / "masks/a/1.png")
    Image.fromarray(np.tile(np.arange(0, 60 * 60, 60, dtype=np.uint16), (40, 1))).save(root / "normal/2.png")
    assert check(open_dataset(root)).usable.notes == [
        "masks: 1 with values 0, 255: 255 is the defect",
        "masks: 1 with values 0, 38: 38 is the defect",
        "pictures of p: 5 colour, 8 bit; 1 grey, 12 bit in 16",
    ]


def test_kinds_of_pictures_that_cameras_write(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    folder = tmp_path / "p/normal"
    folder.mkdir(parents=True)
    for suffix in (".pgm", ".jp2", ".gif", ".bmp", ".jfif"):
        Image.fromarray(grey).save(folder / f"g{suffix[1:]}{suffix}", format="JPEG" if suffix == ".jfif" else None)
    Image.fromarray(np.dstack([grey] * 3)).save(folder / "c.ppm")
    photo(tmp_path / "p/defects/a/0.pgm")
    mask(tmp_path / "p/masks/a/0.pgm")
    report = check(open_dataset(tmp_path / "p"))
    assert (report.problems, len(report.usable.normals), len(report.usable.defects)) == ([], 6, 1)
    frames = [Image.fromarray(grey), Image.fromarray(255 - grey)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    assert check(open_dataset(tmp_path / "p")).problems == [
        "normal/film.gif: holds 2 pictures; save each as a file of its own"
    ]


def test_a_pointer_of_git_lfs_says_what_it_is(tmp_path: Path) -> None:
    root = part(tmp_path / "p")
    (root / "normal/1.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265380512\n")
    assert check(open_dataset(root)).problems == [
        "normal/1.png: is a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'"
    ]


def test_names_in_other_encodings(tmp_path: Path) -> None:
    import os

    part(tmp_path / "x")
    os.rename(tmp_path / "x", os.fsencode(tmp_path) + b"/\xc8\xb1\xcf\xdd")
    from fast.data.split import Split, make_split

    root = next(tmp_path.iterdir())
    split = make_split(check(open_dataset(root)).usable)
    split.save(tmp_path / "s.json")
    assert Split.load(tmp_path / "s.json").hash == split.hash


def test_written_images_stay_what_they_were(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    write_mask(tmp_path / "m.png", np.eye(4, dtype=np.uint8))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), np.eye(4))


def test_every_image_may_have_several_masks_in_its_folder(tmp_path: Path) -> None:
    photo(tmp_path / "box" / "train" / "good" / "000.png")
    for i in range(3):
        photo(tmp_path / "box" / "test" / "bent" / f"{i:03}.png", i)
        for k in range(3):
            mask(tmp_path / "box" / "ground_truth" / "bent" / f"{i:03}" / f"{k:03}.png")
    index = open_dataset(tmp_path)
    assert index.problems == []
    assert sorted((s.image.stem, s.mask.name) for s in index.defects if s.mask) == [
        (f"{i:03}", f"{i:03}") for i in range(3)
    ]


def turned(root: Path, turn: int, side: int = 40, turn_mask: bool = False) -> Path:
    """An MVTec category whose one defect's image is turned by EXIF, of `side` x 40 stored pixels, its mask too."""
    mvtec(root)
    exif = Image.Exif()
    exif[0x0112] = turn
    image, drawn = root / "test/a/0.png", root / "ground_truth/a/0_mask.png"
    Image.open(image).crop((0, 0, side, 40)).save(image, exif=exif)
    Image.open(drawn).crop((0, 0, side, 40)).save(drawn, **({"exif": exif} if turn_mask else {}))
    return root


@pytest.mark.parametrize(("turn", "side"), [(6, 40), (3, 60), (3, 40), (2, 60)])
def test_a_mask_that_fits_with_and_without_the_turn_is_asked_about(tmp_path: Path, turn: int, side: int) -> None:
    root = turned(tmp_path / "part", turn, side)
    found = check(open_dataset(root))
    (line,) = [line for line in found.problems if "EXIF" in line]
    assert line.startswith("ground_truth/a/0_mask.png: fits its image with and without the turn that EXIF gives ")
    assert "say so with prepare_data.py --masks_upright, else save the images without the turn" in line
    assert not found.usable.defects
    assert found.usable.left_out == ["ground_truth/a/0_mask.png"]
    (root / "reading.json").write_text('{"masks_upright": true}')
    answered = check(open_dataset(root)).usable
    assert (len(answered.defects), answered.problems) == (1, [])
    told = "1 image is turned by EXIF and its mask is not: read as drawn on the upright images"
    assert told in answered.notes


def test_where_mask_and_image_turn_together_nothing_is_asked(tmp_path: Path) -> None:
    both = check(open_dataset(turned(tmp_path / "part", 6, 40, turn_mask=True)))
    assert both.problems == []
    assert not [note for note in both.usable.notes if "EXIF" in note]


def test_where_the_size_tells_of_the_turn_nothing_is_asked(tmp_path: Path) -> None:
    stored = check(open_dataset(turned(tmp_path / "stored", 6, 60))).problems
    told = "mask is 60x40, its image 40x60 once EXIF turns it; turn the mask too, or save the image without its turn"
    assert f"ground_truth/a/0_mask.png: {told}" in stored
    root = turned(tmp_path / "upright", 6, 60)
    mask(root / "ground_truth/a/0_mask.png", MASK.T)
    (sample,) = check(open_dataset(root)).usable.defects
    assert sample.mask is not None
    np.testing.assert_array_equal(read_mask(sample.mask), MASK.T)  # as it was drawn


@pytest.mark.parametrize("masks_upright", ['"yes"', "1", "null"])
def test_an_answer_that_is_none(tmp_path: Path, masks_upright: str) -> None:
    (tmp_path / "reading.json").write_text(f'{{"masks_upright": {masks_upright}}}')
    with pytest.raises(UserError, match=r"reading\.json: masks_upright=.* must be true or false"):
        load_reading(tmp_path / "reading.json")


def deep(root: Path, bits: dict[str, int]) -> Path:
    """16-bit images in `normal`, each by its name with a brightest value of so many bits."""
    for name, high in bits.items():
        values = np.full((8, 9), 500, np.uint16)
        values[0, 0] = 2**high - 1
        (root / "normal").mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(root / "normal" / name)
    return root


def test_depths_that_differ_are_doubts(tmp_path: Path) -> None:
    root = deep(tmp_path / "part", {"0.png": 12, "1.png": 10, "2.png": 12})
    found = check(open_dataset(root)).usable
    assert found.doubts == [
        "16-bit pictures of part are by their values 1 of 10 bits (normal/1.png), 2 of 12 bits (normal/0.png the "
        "first); if one camera took all, say its depth with prepare_data.py --bits 12, or brightness differs"
    ]
    (root / "reading.json").write_text('{"bits": 12}')
    assert check(open_dataset(root)).usable.doubts == []
    assert check(open_dataset(deep(tmp_path / "other", {"0.png": 12, "1.png": 12}))).usable.doubts == []
