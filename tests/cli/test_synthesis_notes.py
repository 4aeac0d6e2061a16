"""What the synthesis command tells of masks whose folders name other types than those asked for."""

from pathlib import Path

import pytest

from fast.cli.synthesis_job import _of_types
from fast.cli.synthesis_notes import tell_masks
from fast.synthesis.options import SynthesisOptions
from fast.synthesis.sources import MaskSource, Sources

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


def test_the_masks_of_a_named_type_s_own_folder_are_taken() -> None:
    masks = [MaskSource(Path("masks", kind, "0.png"), kind) for kind in ("crack", "hole")]
    assert [mask.kind for mask in _of_types(masks, ["part/crack"])] == ["crack"]
    assert _of_types(masks, ["/scratch"]) == masks
