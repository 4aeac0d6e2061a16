"""Tables of text."""

from fast.runtime.tables import markdown, markdown_text, plain

HEAD, ROWS = ["type", "IoU"], [["scratch", "5.0"], ["all", "47.25"]]


def test_columns_are_padded() -> None:
    assert plain(HEAD, ROWS) == "type       IoU\nscratch    5.0\nall      47.25"
    assert plain(HEAD, ROWS, left=2) == "type     IoU\nscratch  5.0\nall      47.25"
    assert plain(["a", ""], []) == "a"


def test_markdown_aligns_numbers_right() -> None:
    assert markdown(HEAD, ROWS) == "| type | IoU |\n| --- | ---: |\n| scratch | 5.0 |\n| all | 47.25 |"
    assert markdown(HEAD, [], left=2).endswith("| --- | --- |")


def test_what_means_something_in_markdown_is_shown_as_it_is() -> None:
    assert markdown_text("a|b *c* ball_screw  _x_\n<i>") == "a\\|b \\*c\\* ball_screw \\_x\\_ \\<i\\>"
