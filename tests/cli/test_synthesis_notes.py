"""What the synthesis command tells of masks whose folders name other types than those asked for."""

from pathlib import Path

import pytest

from fast.cli.synthesis_job import _of_types
from fast.cli.synthesis_notes import tell_masks
from fast.cli.synthesis_types import named_types
from fast.synthesis.options import SynthesisOptions
from fast.synthesis.sources import MaskSource, Sources, kinds_below

TYPES = ["part/hole", "part/crack"]


@pytest.mark.parametrize(
    ("folders", "name", "allowed", "says"),
    [
        (["scratch", "dent"], "hole", [0], "note: the masks in dent, scratch are used for hole; to use others"),
        (["hole", "dent"], "hole,crack", [0, 1], "note: the masks in dent are used for hole, crack;"),
        (["hole"], "hole,crack", [0, 1], "note: no mask lies in a folder crack, so that nothing of it is made;"),
        (["hole"], "hole", [0], ""),
        (["."], "hole", [0], ""),
        ([".", "hole"], "hole,crack", [0, 1], ""),  # those of no type's folder serve all
        (["scratch"], None, [0, 1], ""),
    ],
)
def test_masks_of_other_types(
    folders: list[str], name: str | None, allowed: list[int], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [Path("masks", folder) for folder in folders]
    given = Sources([], [MaskSource(place / "0.png", place.name) for place in places], TYPES, allowed)
    tell_masks(SynthesisOptions(sample_name="out", mask_path="masks", anomaly_name=name), given)
    said = capsys.readouterr().out
    assert said.startswith(says)
    assert said.count("\n") == bool(says)


@pytest.mark.parametrize(
    ("folder", "name", "told"),
    [
        ("parts/masks/blur", "hole", True),  # a folder of masks holds one for each type
        ("given/crack", "hole", True),
        ("~/given/scratch", "hole,crack", True),  # a type, though not one of these weights
        ("parts/masks/hole", "hole", False),
        ("given/mine", "hole", False),
        ("parts/masks", "hole", False),
    ],
)
def test_a_folder_of_masks_that_is_named_as_another_type(
    folder: str, name: str, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(folder).expanduser()
    given = Sources([], [MaskSource(place / "0.png", place.name)], TYPES, [0, 1] if "," in name else [0])
    tell_masks(SynthesisOptions(sample_name="out", mask_path=folder, anomaly_name=name), given)
    says = f"note: the masks in {folder} are used for {name.replace(',', ', ')}, not for {place.name}; to use others,"
    said = capsys.readouterr().out
    assert said.startswith(says if told else "")
    assert said.count("\n") == told


def test_a_home_folder_that_nobody_expanded_names_no_type() -> None:
    top = Path("~/given").expanduser()
    masks = [MaskSource(top / "0.png", "given"), MaskSource(top / "hole" / "0.png", "hole")]
    assert kinds_below("~/given", masks) == ["hole"]
    assert named_types(SynthesisOptions(sample_name="out", mask_path="~/given"), [], masks[:1]) == ["/fast"]


def test_the_masks_of_a_named_type_s_own_folder_are_taken() -> None:
    masks = [MaskSource(Path("masks", kind, "0.png"), kind) for kind in ("crack", "hole")]
    assert [mask.kind for mask in _of_types(masks, ["part/crack"])] == ["crack"]
    assert _of_types(masks, ["/scratch"]) == masks
