"""Flags that there are none of: named, with the one that may be meant, before those that are missing."""

import pytest

from fast.runtime.options import Parser
from ldm.errors import UserError


def parser(**options: bool) -> Parser:
    p = Parser(prog="scripts/try.py", **options)
    p.add_argument("--dataset", required=True)
    p.add_argument("--data_root")
    p.add_argument("--minutes", type=float)
    p.add_argument("rest", nargs="*")
    return p


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--datset", "x"], "unrecognized arguments: --datset (did you mean --dataset?); see --help"),
        (["--datset=x", "--minutes", "3"], "unrecognized arguments: --datset (did you mean --dataset?); see --help"),
        (["--dataset", "x", "--minuts", "3"], "unrecognized arguments: --minuts (did you mean --minutes?); see --help"),
        (["--dataset", "x", "--colour"], "unrecognized arguments: --colour; see --help"),
        (["--qwertz"], "unrecognized arguments: --qwertz; see --help"),
        ([], "the following arguments are required: --dataset; see --help"),
        (["--minutes", "-3"], "the following arguments are required: --dataset; see --help"),
        (["--", "--datset"], "the following arguments are required: --dataset; see --help"),
        (["--datset", "x", "--minutes", "soon"], "argument --minutes: invalid float value: 'soon'; see --help"),
    ],
)
def test_what_is_told(argv: list[str], told: str) -> None:
    with pytest.raises(UserError) as error:
        parser(allow_abbrev=False).parse_args(argv)
    assert str(error.value) == told


def test_the_beginning_of_a_flag_is_no_misspelt_one() -> None:
    with pytest.raises(UserError, match="are required: --dataset"):
        parser().parse_args(["--minu", "3"])
    assert parser().parse_args(["--datas", "x"]).dataset == "x"
