"""Names of defect types that the synthesis command refuses before it loads or reads anything."""

from pathlib import Path

import pytest

import fast.cli.pairs
from fast.cli.synthesis_names import check_names
from fast.cli.synthesis_options import parse_synthesis
from fast.runtime.options import did_you_mean
from ldm.errors import UserError
from support.synthesis import synthesize

DRAWN = ["--sample_name", "out", "--method", "procedural"]
DRAFTED = ["--sample_name", "out", "--pt_path", "mini", "--draft", "procedural"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([*DRAWN, "--anomaly_name", "crack,scrach"], r"cannot draw 'scrach' \(did you mean scratch\?\); name one of"),
        ([*DRAWN, "--anomaly_name", "part/scrach"], "cannot draw 'scrach'"),
        ([*DRAWN, "--init_word", "blowhol"], r"did you mean blowhole\?.* 'method\.looks\.blowhol=\[scratch\]'"),
        ([*DRAWN, "--anomaly_name", "xyzzy"], "cannot draw 'xyzzy'; name one of scratch, crack"),
        ([*DRAWN, "--anomaly_name", "kratze", "method.looks.kratzer=[scratch]"], r"did you mean kratzer\?"),
        ([*DRAFTED, "--anomaly_name", "holee"], r"did you mean hole\?.* 'method\.draft_options\.looks\.holee="),
        ([*DRAFTED, "--anomaly_name", "part+holee"], "cannot draw 'holee'"),
        (
            [*DRAWN, "method.looks.blowhole=[hole,scrach]"],
            r"looks\.blowhole=\['hole', 'scrach'\] \(did you mean scratch",
        ),
        ([*DRAWN, "method.looks={blowhole: xyzzy}"], "looks.blowhole=xyzzy must be a list of types to draw"),
        ([*DRAFTED, "--anomaly_name", "pore", "method.draft_options.looks.pore=[pitt]"], "did you mean pit?"),
        (DRAFTED, "none is named; name some with --anomaly_name"),
        (["--sample_name", "out", "--pt_path", "mini", "--masks", "mixed"], "none is named"),
    ],
)
def test_what_nothing_says_the_looks_of(flags: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_names(parse_synthesis(flags)[0])


@pytest.mark.parametrize(
    "flags",
    [
        [*DRAWN, "--anomaly_name", "scratch,blowhole,part/uneven"],
        DRAWN,
        [*DRAWN, "--anomaly_name", "kratzer", "method.looks.kratzer=[scratch]"],
        [*DRAWN, "--anomaly_name", "kratzer", "method.looks={kratzer: [scratch]}"],
        [*DRAWN, "method.looks.kratzer=[scratch"],  # told by who reads all of the options
        [*DRAFTED, "--anomaly_name", "kratzer", "method.draft_options.looks.kratzer=[scratch]"],
        [*DRAFTED, "--anomaly_name", "part", "--init_word", "scratch"],  # a part
        [*DRAFTED, "--anomaly_name", "part", "--mask_path", "masks"],
        [*DRAFTED, "--anomaly_name", "surface"],
        ["--sample_name", "out", "--pt_path", "logs/own", "--draft", "procedural"],  # these name their own types
        ["--sample_name", "out", "--pt_path", "mini", "--masks", "mixed", "--anomaly_name", "quirk"],
    ],
)
def test_what_may_be_right_is_left_to_those_who_read_the_data(flags: list[str]) -> None:
    check_names(parse_synthesis(flags)[0])


def test_a_bare_name_may_be_a_part_of_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "screw").mkdir()
    check_names(parse_synthesis([*DRAWN, "--data_root", str(tmp_path), "--anomaly_name", "screw"])[0])
    check_names(parse_synthesis([*DRAWN, "--data_root", str(tmp_path / "screw"), "--anomaly_name", "screw"])[0])
    with pytest.raises(UserError, match="cannot draw 'nut'"):
        check_names(parse_synthesis([*DRAWN, "--data_root", str(tmp_path), "--anomaly_name", "nut"])[0])


def test_the_command_says_nothing_else_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(fast.cli.pairs, "synthesize", started)
    argv = ["--method", "procedural", "--data_root", str(tmp_path / "parts"), "--sample_name", str(tmp_path / "out")]
    assert synthesize([*argv, "--anomaly_name", "scrach"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: procedural cannot draw 'scrach' (did you mean scratch?)")
    assert not (tmp_path / "out").exists()


def test_only_what_is_alike_is_suggested() -> None:
    assert did_you_mean("scrach", ["scratch", "crack"]) == " (did you mean scratch?)"
    assert did_you_mean("quirk", ["scratch", "crack"]) == ""
