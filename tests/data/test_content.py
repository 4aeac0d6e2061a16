"""Copies are known by what they hold, and nothing is read that need not be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fast.data import content as module_content
from fast.data.content import Copies
from fast.data.images import write_mask


def files(folder: Path, **texts: bytes) -> dict[str, Path]:
    found = {name: folder / name for name in texts}
    for name, text in texts.items():
        found[name].write_bytes(text)
    return found


def test_the_first_of_several_is_named_and_few_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = files(tmp_path, a=b"x" * 9, b=b"x" * 9, c=b"y" * 9, d=b"z" * 5, e=b"", f=b"")
    asked = files(tmp_path, same=b"x" * 9, other=b"w" * 9, longer=b"x" * 10, empty=b"")
    read: list[str] = []
    whole = module_content.file_hash
    monkeypatch.setattr(module_content, "file_hash", lambda path: read.append(path.name) or whole(path))
    copies = Copies(own.values())
    assert copies.among(asked.values()) == {asked["same"]: own["a"]}
    assert sorted(read) == ["a", "b", "same"]  # no other has their size and middle
    assert copies.twin(asked["same"]) == own["a"]
    assert len(read) == 3
    assert copies.twin(own["c"]) == own["c"]
    (tmp_path / "link").symlink_to(own["d"])
    assert copies.twin(tmp_path / "link") == own["d"]
    assert copies.twin(own["f"]) == own["f"]  # empty: its place tells
    assert copies.twin(tmp_path / "gone") is None


def test_files_that_repeat_others_are_found_by_reading_those_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle = b"m" * 4096
    texts = {"a": b"x" * 9, "b": b"y" * 9, "c": b"x" * 9, "d": b"x" * 9, "e": b"z" * 5, "f": b"", "g": b""}
    texts |= {"h": b"1" + middle * 3, "i": b"2" + middle * 3}  # alike in their middle only
    own = files(tmp_path, **texts)
    read: list[str] = []
    whole = module_content.file_hash
    monkeypatch.setattr(module_content, "file_hash", lambda path: read.append(path.name) or whole(path))
    assert Copies([*own.values(), tmp_path / "gone"]).repeated() == {own["c"]: own["a"], own["d"]: own["a"]}
    assert sorted(read) == ["a", "c", "d", "h", "i"]


def test_files_that_are_gone_or_locked_are_themselves_and_no_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = files(tmp_path, a=b"x" * 9, b=b"x" * 9)
    gone = tmp_path / "gone"
    copies = Copies([gone, own["a"]])
    assert copies.twin(tmp_path / "x" / ".." / "gone") == gone
    locked = own["a"].open

    def refuse(path: Path, mode: str) -> object:
        if path == own["a"]:
            raise PermissionError
        return locked(mode)

    monkeypatch.setattr(module_content, "open", refuse, raising=False)
    copies = Copies([own["a"]])
    assert copies.twin(own["b"]) is None
    assert copies.twin(own["a"]) == own["a"]


def test_a_mask_in_another_format_is_a_copy_where_masks_are_asked_for(tmp_path: Path) -> None:
    mask = np.zeros((16, 16), np.uint8)
    mask[2:5, 3:9] = 1
    write_mask(tmp_path / "a.png", mask)
    Image.fromarray(255 * mask).save(tmp_path / "b.bmp")
    Image.fromarray(255 * (1 - mask)).save(tmp_path / "other.bmp")
    copies = Copies([tmp_path / "a.png", tmp_path / "gone.png"])
    assert copies.twin(tmp_path / "b.bmp") is None
    assert copies.twin(tmp_path / "b.bmp", mask=True) == tmp_path / "a.png"
    assert copies.twin(tmp_path / "other.bmp", mask=True) is None
