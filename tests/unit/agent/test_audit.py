"""Files that other programs read."""

from __future__ import annotations

from pathlib import Path

from agent.adapters.audit import Ledger, StatusFile


def test_the_newest_report_can_be_read(tmp_path: Path) -> None:
    status = StatusFile(tmp_path / "status.json")
    status.write({"a": 1})
    status.write({"a": 2})

    assert status.read() == {"a": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_before_the_first_report_there_is_none(tmp_path: Path) -> None:
    assert StatusFile(tmp_path / "status.json").read() is None


def test_a_damaged_report_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_bytes(b'{"a":')

    assert StatusFile(tmp_path / "status.json").read() is None


def test_acknowledged_ranges_are_appended(tmp_path: Path) -> None:
    for _ in range(2):
        ledger = Ledger(tmp_path / "ledger")
        ledger.acknowledged("e1", [(1, 3), (5, 5)])
        ledger.acknowledged("e1", [])

    assert (tmp_path / "ledger").read_text() == "e1 1 3\ne1 5 5\n" * 2
