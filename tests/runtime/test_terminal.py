"""What commands print, and how they end: names no terminal can show, readers that go away, signals, full disks."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fast.reports.contact_sheet import read_row
from fast.runtime.command import expand_home, run_cli, write_failure
from fast.runtime.folders import held, parse_json, sole
from fast.runtime.signals import importing
from fast.runtime.terminal import PlainStream, plain
from fast.synthesis.output import OutputFolder
from fast.synthesis.records import read_records
from ldm.errors import UserError
from support.paths import ROOT


def run(code: str, **how: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, **how)  # type: ignore[call-overload, no-any-return]


def test_control_characters_and_stray_bytes_are_escaped() -> None:
    assert plain("a\x1b[31mb\rc\x9bd\ne\tf") == "a\\x1b[31mb\\x0dc\\x9bd\ne\tf"
    assert plain(os.fsdecode(b"\xc8\xb1")) == "ȱ"
    assert plain(os.fsdecode(b"\xff\xfe")) == "\\xff\\xfe"
    assert plain("\ud800") == "\\ud800"


def test_a_name_reaches_no_terminal_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str]) -> None:
        print("made \x1b[31mred.png")
        raise UserError("bad \x1b]0;title\x07 name")

    assert run_cli(main, []) == 2
    out, err = capfd.readouterr()
    assert out == "made \\x1b[31mred.png\n"
    assert err == "error: bad \\x1b]0;title\\x07 name\n"


def test_an_encoding_without_the_letters_gets_escapes() -> None:
    code = "import fast.runtime.command as c; raise SystemExit(c.run_cli(lambda _: print('gr\\u00fc\\udcffn'), []))"
    done = run(code, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"gr\\xfc\\xffn\n", b"")


def test_a_reader_that_goes_away_does_not_end_the_work(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fast.runtime.command import run_cli\n"
        "def main(argv):\n"
        "    for i in range(50000): print('line', i)\n"
        f"    Path({str(tmp_path / 'done')!r}).touch()\n"
        "sys.exit(run_cli(main, []))"
    )
    program = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.readline()
    program.stdout.close()
    assert (program.wait(), program.stderr.read()) == (0, b"")
    assert (tmp_path / "done").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_output_is_said() -> None:
    code = "import fast.runtime.command as c; raise SystemExit(c.run_cli(lambda _: print('x'), []))"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write the standard output: No space left")


def test_closed_streams_are_no_fault() -> None:
    code = "import fast.runtime.command as c; raise SystemExit(c.run_cli(lambda _: print('x'), []))"
    shell = f'exec "{sys.executable}" -c "{code}" >&- 2>&-'
    assert subprocess.run(["sh", "-c", shell], cwd=ROOT, check=False).returncode == 0


def test_the_stream_still_counts_what_it_was_given() -> None:
    under = io.StringIO()
    stream = PlainStream(under)
    assert stream.write("a\x1b") == 2
    stream.writelines(["b", "c\n"])
    assert under.getvalue() == "a\\x1bbc\n"


def test_home_is_expanded_wherever_a_shell_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/u/me")
    given = ["~/x", "--out=~/y", "data.params.path=~/z", "~", "a~/b", "--init_word=~other", "x=1~/"]
    kept = ["a~/b", "--init_word=~other", "x=1~/"]
    assert expand_home(given) == ["/u/me/x", "--out=/u/me/y", "data.params.path=/u/me/z", "/u/me", *kept]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_in_one_line(number: signal.Signals, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    assert run_cli(lambda argv: os.kill(os.getpid(), number), []) == 2
    assert capfd.readouterr().err == "interrupted; run the same command again to go on\n"
    assert signal.getsignal(number) is before


def test_a_signal_during_an_import_ends_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow_import.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from fast.runtime.command import run_cli\n"
        "def main(argv):\n    try:\n        import slow_import\n    except BaseException:\n        print('raised')\n"
        "sys.exit(run_cli(main, []))"
    )
    done = run(code)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"interrupted; run the same command again to go on\n"


def test_commands_listen_before_their_slow_imports() -> None:
    for script in (
        "generate_with_mask.py",
        "main.py",
        *(f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")),
    ):
        text = (ROOT / script).read_text()
        first = text.index("listen(__name__)")
        slow = (
            "import numpy",
            "import torch",
            "from tqdm",
            "from fast.runtime.command",
            "from fast.cli",
            "from fast.data",
            "from fast.synthesis.synthesizer",
        )
        assert all(first < text.index(name) for name in slow if name in text)


def test_only_imports_count_as_imports() -> None:
    assert not importing(sys._getframe())


def test_a_nul_in_a_name_is_bad_input(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli(lambda argv: None, ["--out", "a\0b"]) == 2
    assert run_cli(lambda argv: os.stat("a\0b"), []) == 2
    assert "NUL" in capfd.readouterr().err


def test_what_the_machine_lacks_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    def fails(error: BaseException) -> str:
        def main(argv: list[str]) -> None:
            raise error

        assert run_cli(main, []) == 2
        return capfd.readouterr().err

    assert "out of memory" in fails(MemoryError("Unable to allocate 9 TiB"))
    assert "out of memory" in fails(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert "is not valid in utf-8" in fails(UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"))
    with pytest.raises(RecursionError):
        fails(RecursionError("a bug"))
    assert "nested too deep" in fails_deep(capfd)


def fails_deep(capfd: pytest.CaptureFixture[str]) -> str:
    import json

    assert run_cli(lambda argv: json.loads("[" * 100000), []) == 2
    return capfd.readouterr().err


def test_a_failed_write_names_the_file() -> None:
    assert write_failure(RuntimeError("PytorchStreamWriter failed"), "runs/last.ckpt") == (
        "cannot write runs/last.ckpt: torch could not store all of it"
    )


def test_a_file_manager_s_files_do_not_fill_a_folder(tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._x.png", ".directory"):
        (tmp_path / name).touch()
    assert held(tmp_path) == set()
    OutputFolder(tmp_path, {}).close()
    assert held(tmp_path) >= {"settings.json"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").touch()
    with pytest.raises(UserError, match="other files"):
        OutputFolder(other, {})


def test_a_refused_run_leaves_its_folder_as_it_was(tmp_path: Path) -> None:
    new, mine = tmp_path / "a" / "new", tmp_path / "mine"
    mine.mkdir()
    (mine / ".DS_Store").touch()
    for folder in (new, mine):
        output = OutputFolder(folder, {"seed": 0})
        output.gather()
        output.abandon()
        output.close()
    assert not new.exists()
    assert [p.name for p in mine.iterdir()] == [".DS_Store"]


@pytest.mark.parametrize(
    "line", ['{"image": 5, "mask": "m"}', '{"image": "../x", "mask": "m"}', "[" * 99999, "[1]",
             '{"image": "a\\u0000b", "mask": "m"}', '{"image": "/etc/passwd", "mask": "m"}']
)  # fmt: skip
def test_a_manifest_that_was_tampered_with_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"manifest\.jsonl is damaged"):
        read_records(tmp_path)


def test_a_manifest_without_windows_is_refused(tmp_path: Path) -> None:
    import numpy as np

    from fast.data.images import write_image

    for name in ("i.png", "m.png", "n.png"):
        write_image(tmp_path / name, np.full((8, 8, 3), 255, np.uint8))
    row = {"image": "i.png", "mask": "m.png", "normal_source": str(tmp_path / "n.png"), "prompt": "x"}
    assert read_row(tmp_path, {**row, "windows": [[0, 0, 8, 8]]}).caption == "x"
    for windows in ({}, {"windows": 5}, {"windows": []}):
        with pytest.raises(UserError, match="is damaged"):
            read_row(tmp_path, {**row, **windows})


def test_json_nested_too_deep_is_damage() -> None:
    with pytest.raises(ValueError, match="nested"):
        parse_json("[" * 100000)


def test_one_process_writes_a_file(tmp_path: Path) -> None:
    out = tmp_path / "new" / "r.json"
    with sole(out, "--out"):
        with pytest.raises(UserError, match=r"--out .*r\.json is being written by another process"), sole(out, "--out"):
            pass
        with sole(out.with_name("other.json"), "--out"):
            pass
    assert not out.parent.exists()
    with sole(out, "--out"):
        out.write_text("{}")
    assert [p.name for p in out.parent.iterdir()] == ["r.json"]
