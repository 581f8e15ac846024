"""What holds for every test: where code is found, how much is generated, what must not be skipped.

A fixture that needs a real component asks `requirements_gate.require`. Whatever else skips a test
that is marked with a required component makes the run fail too.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

TESTS = Path(__file__).resolve().parent
for folder in (TESTS, TESTS.parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from requirements_gate import COMPONENTS, VARIABLE, required_components  # noqa: E402 - found above

hypothesis_settings.register_profile("default", max_examples=50, deadline=None)
hypothesis_settings.register_profile(
    "ci",
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)

REQUIRED: pytest.StashKey[frozenset[str]] = pytest.StashKey()
WRONGLY_SKIPPED: pytest.StashKey[list[str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--kills`: how often the power-cut story pulls the plug."""
    parser.addoption(
        "--kills",
        type=int,
        default=30,
        metavar="N",
        help="how many times the chaos test kills a process (default: 30)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Choose the amount of generated examples and read what must be there."""
    required = required_components()
    config.stash[REQUIRED] = required
    config.stash[WRONGLY_SKIPPED] = []
    if not config.getoption("--hypothesis-profile", default=None):
        hypothesis_settings.load_profile("ci" if required else "default")


@pytest.fixture(scope="session")
def kills(pytestconfig: pytest.Config) -> int:
    """How many times the chaos test kills a process."""
    count: int = pytestconfig.getoption("--kills")
    return count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note every skipped test whose marker names a required component."""
    report = yield
    marked = {mark.name for mark in item.iter_markers()}.intersection(COMPONENTS)
    required: frozenset[str] = item.config.stash[REQUIRED]
    if report.skipped and marked & required:
        item.config.stash[WRONGLY_SKIPPED].append(f"{item.nodeid} ({', '.join(sorted(marked))})")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Note every file skipped as a whole: its markers were never seen, so any may be meant."""
    report = yield
    if report.skipped and collector.config.stash[REQUIRED]:
        collector.config.stash[WRONGLY_SKIPPED].append(f"{collector.nodeid} (the whole file)")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a required component was skipped over."""
    if session.config.stash[WRONGLY_SKIPPED] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say which tests were skipped although their component is required."""
    if skipped := config.stash[WRONGLY_SKIPPED]:
        required: frozenset[str] = config.stash[REQUIRED]
        names = ",".join(sorted(required))
        terminalreporter.section("skipped although required", sep="!", red=True)
        terminalreporter.write_line(f"{VARIABLE}={names} does not allow these to be skipped:")
        for line in skipped:
            terminalreporter.write_line(f"  {line}")
