"""What counts as an entry script."""

import pytest

from hub.adapters.packaging.entry_script import check_entry_script
from protocol.errors import Code, InvalidError

GOOD = [
    b"def init(): pass\ndef run(x): pass\n",
    b"def init(): pass\nasync def run(x): pass\n",
    b"from mine import init, main as run\n",
    b"def a(): pass\ninit = run = a\n",
    b"init: object = 1\ntry:\n  from a import run\nexcept ImportError:\n  def run(x): pass\n",
    b"# -*- coding: latin-1 -*-\n# \xe4\ndef init(): pass\ndef run(x): pass\n",
]
BAD = [
    (b"def run(x): pass", "does not define 'init'"),
    (b"def init(): pass", "does not define 'run'"),
    (b"class A:\n  def init(self): pass\n  def run(self): pass\n", "does not define 'init'"),
    (b"def init(:\n", "line 1"),
    (b"\x00", "cannot be read|valid Python"),
    (b"\xff\xfe", "valid Python|cannot be read"),
    (b"(" * 5000, "valid Python|cannot be read"),
    (b"x = " + b"-" * 50_000 + b"1", "valid Python|cannot be read"),
    (b"#" * (1024 * 1024 + 1), "more than"),
]


@pytest.mark.parametrize("source", GOOD)
def test_scripts_with_init_and_run_are_accepted(source: bytes) -> None:
    check_entry_script(source, "score.py")


@pytest.mark.parametrize(("source", "words"), BAD, ids=range(len(BAD)))
def test_others_are_refused_with_the_reason(source: bytes, words: str) -> None:
    with pytest.raises(InvalidError, match=words) as caught:
        check_entry_script(source, "score.py")

    assert caught.value.code == Code.SCRIPT_INVALID


def test_nothing_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    check_entry_script(b"print('ran')\ndef init(): pass\ndef run(x): pass\n", "score.py")

    assert capsys.readouterr().out == ""
