"""The documentation says what the code does: errors, examples, links, commands, docstrings."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from protocol.errors import CATALOGUE, Code
from protocol.manifest import read_manifest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("protocol", "hub", "agent", "modules", "simulator")
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"))
    if not path.name.startswith("CHANGELOG")
)
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EXIT_CODES = {1, 2, 3, 70}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


@cache
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- generated parts ----------------------------------------------------------------------------


def test_generated_pages_are_current() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in generator().pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]

    assert stale == [], "run `make docs`"


def test_every_code_has_one_row_in_the_page_of_errors() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == sorted(Code)


def test_every_code_ends_a_command_in_a_documented_way() -> None:
    assert set(CATALOGUE) == set(Code)
    assert {entry.exit_code for entry in CATALOGUE.values()} == EXIT_CODES


def test_every_golden_file_is_an_example_on_the_page_of_the_protocol() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    golden = {path.stem: path for path in (ROOT / "tests/golden/protocol").glob("*.json")}
    blocks = re.findall(r"<!-- golden: (\S+) -->\s*```json\n(.*?)```", page, re.DOTALL)

    assert {name: json.loads(text) for name, text in blocks} == {
        name: json.loads(path.read_bytes()) for name, path in golden.items()
    }


def test_the_manifest_on_the_page_is_one() -> None:
    page = (ROOT / "docs" / "manifest.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- manifest: whole -->\s*```json\n(.*?)```", page, re.DOTALL)
    assert found is not None

    manifest = read_manifest(json.loads(found[1]))

    assert manifest.agent.modules["digits"].golden_samples is not None


# ---- links --------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the anchors a page offers: its headings, the way they are rendered."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)(?: \"[^\"]*\")?\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


@each_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in links(page):
        name, _, anchor = target.partition("#")
        goal = (page.parent / name).resolve() if name else page
        inside = goal.is_relative_to(ROOT) and goal.exists()
        if not inside or (anchor and goal.suffix == ".md" and anchor not in anchors(goal)):
            broken.append(target)

    assert broken == []


# ---- commands -----------------------------------------------------------------------------------

_BLOCK = re.compile(r"^```(?:console|sh|bash|shell|text)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`((?:\.venv/bin/)?(?:rimward|rimward-agent)(?: [^`\n]+)?)`")
_LINE = re.compile(r"^\s*(?:\$ )?((?:\.venv/bin/)?(?:rimward|rimward-agent)(?: .*)?)$")
_OPTION = re.compile(r"--[a-z][a-z-]*")
_PLACEHOLDER = re.compile(r"[<{\[…]|\.\.\.")
_MODULES = {"rimward": "hub.__main__", "rimward-agent": "agent.__main__"}
_DRIVER = """
import contextlib, importlib, io, json, sys
main = importlib.import_module(sys.argv[1]).main
answers = []
for arguments in json.load(sys.stdin):
    sys.argv, text, code = arguments, io.StringIO(), 0
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            code = main()
        except SystemExit as end:
            code = end.code
    answers.append([code or 0, text.getvalue()])
json.dump(answers, sys.__stdout__)
"""


def shown_commands(text: str) -> Iterator[str]:
    """Yield every command line of ours in a page: in blocks, and between backticks."""
    for block in _BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if found := _LINE.match(line):
                yield found[1]
    yield from _INLINE.findall(_BLOCK.sub("", text))


def help_arguments(command: str) -> tuple[str, ...]:
    """Return the arguments that ask for the help of the command a line calls."""
    program, *rest = shlex.split(command, comments=True)
    words = []
    for word in rest:
        if word.startswith("-") or word in {"|", ">", "&&", ";"} or _PLACEHOLDER.search(word):
            break
        words.append(word)
    return (program.rsplit("/", 1)[-1], *words, "--help")


def ask_for_help(calls: set[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[int, str]]:
    """Return what the real programs answer: exit code and text."""
    answers: dict[tuple[str, ...], tuple[int, str]] = {}
    for program, module in _MODULES.items():
        mine = sorted(call for call in calls if call[0] == program)
        done = subprocess.run(
            [sys.executable, "-c", _DRIVER, module],
            input=json.dumps(mine),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"},
        )
        assert done.returncode == 0, done.stderr
        answers.update(
            (call, tuple(answer))
            for call, answer in zip(mine, json.loads(done.stdout), strict=True)
        )
    return answers


def unknown_commands(commands: list[tuple[str, str]]) -> list[str]:
    """Return what no program understands: (where it is shown, command line) -> complaint."""
    answers = ask_for_help({help_arguments(command) for _, command in commands})
    complaints = []
    for where, command in commands:
        code, text = answers[help_arguments(command)]
        missing = [option for option in _OPTION.findall(command) if option not in text]
        if code != 0 or missing:
            said = " ".join(re.sub(r"[\u2500-\u257f]", "", text).split())[-120:]
            complaints.append(f"{where}: {command!r}: {missing or said}")
    return complaints


def test_commands_on_the_pages_exist() -> None:
    shown = [
        (str(page.relative_to(ROOT)), command)
        for page in PAGES
        for command in shown_commands(page.read_text(encoding="utf-8"))
    ]

    assert shown
    assert unknown_commands(shown) == []


def test_commands_in_hints_exist() -> None:
    shown = [
        (str(path.relative_to(ROOT)), command)
        for path in SOURCES
        for command in _INLINE.findall(path.read_text(encoding="utf-8"))
    ]

    assert shown
    assert unknown_commands(shown) == []


# ---- docstrings ---------------------------------------------------------------------------------


def undocumented(path: Path) -> Iterator[str]:
    """Yield the public classes and functions of a module that say nothing of themselves."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from _bare(tree, str(path.relative_to(ROOT)))


def _bare(node: ast.Module | ast.ClassDef, where: str) -> Iterator[str]:
    if isinstance(node, ast.ClassDef) and not ast.get_docstring(node):
        yield where
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield from _bare(child, f"{where}:{child.name}")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and _is_bare(child):
            yield f"{where}:{child.name}"


def _is_bare(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """An overload is explained by what it overloads, a setter by its property."""
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in function.decorator_list}
    private = function.name.startswith("_")
    return not (private or names & {"overload", "setter"} or ast.get_docstring(function))


@pytest.mark.parametrize("package", PACKAGES)
def test_public_things_say_what_they_are_for(package: str) -> None:
    sources = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == package]

    assert [name for path in sources for name in undocumented(path)] == []


def test_test_files_have_names_of_their_own() -> None:
    """Folders of tests are not packages: two files of one name could not both be imported."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]

    assert sorted(names) == sorted(set(names))
