#!/usr/bin/env python3
"""Write the parts of the documentation that are made from the code and the golden files.

`docs/errors.md` is the catalogue of `protocol/errors.py`; the examples of `docs/protocol.md` are
the golden files; the tables of `docs/settings.md` are what hub and agent read. `make docs` runs
this, `tests/test_docs.py` checks that nobody forgot to.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.settings import documented as agent_settings  # noqa: E402 - found by the line above
from hub.settings import documented as hub_settings  # noqa: E402
from protocol.errors import CATALOGUE, Code  # noqa: E402

GOLDEN = ROOT / "tests" / "golden" / "protocol"
ERRORS_HEAD = """\
# Errors

<!-- Written by `make docs` from `protocol/errors.py`; change it there. -->

Every failure Rimward can name has a code, a sentence and a hint that says what to do. The code is
stable: it stands in the answer of the HTTP API (`code`, `message`, `hint`), in the last line of a
command (`error[code]: message`), in the reported state of a device and in the logs.

A command exits with 0 when it is done, 1 when it was refused, 2 when it was called wrongly, 3 when
the same call may work later, and 70 for a defect of ours. "Retry" says whether the same call may
work later without anybody changing anything; devices do that by themselves.
"""
_SAMPLE = re.compile(r"(<!-- golden: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def grouped_codes() -> dict[str, list[Code]]:
    """Return the codes below the comments that group them in the enumeration."""
    groups: dict[str, list[Code]] = {}
    heading = ""
    for line in (ROOT / "protocol" / "errors.py").read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("# "):
            heading = text.removeprefix("# ")
        elif found := re.match(r"([A-Z_]+) = \"", text):
            groups.setdefault(heading, []).append(Code[found[1]])
    return groups


def render_errors() -> str:
    """Return the page of errors."""
    parts = [ERRORS_HEAD]
    for heading, codes in grouped_codes().items():
        rows = [
            f"| `{code}` | {entry.meaning} | {entry.http_status} | {entry.exit_code} |"
            f" {'yes' if entry.retryable else 'no'} |"
            for code in codes
            for entry in [CATALOGUE[code]]
        ]
        parts.append(
            f"## {heading[0].upper()}{heading[1:]}\n\n"
            "| code | what happened | HTTP status | exit code | retry |\n"
            "|---|---|--:|--:|---|\n" + "\n".join(rows) + "\n"
        )
    return "\n".join(parts)


def render_samples(page: str) -> str:
    """Return `page` with every marked example replaced by what its golden file holds."""

    def block(found: re.Match[str]) -> str:
        document = json.loads((GOLDEN / f"{found[2]}.json").read_bytes())
        text = json.dumps(document, indent=2, ensure_ascii=False)
        return f"{found[1]}\n```json\n{text}\n```\n\n{found[3]}"

    return _SAMPLE.sub(block, page)


def render_settings(page: str) -> str:
    """Return `page` with the tables of variables that hub and agent read."""
    for name, table in (("hub", hub_settings()), ("agent", agent_settings())):
        rows = "\n".join(f"| `{variable}` | {meaning} |" for variable, meaning in table.items())
        block = f"<!-- {name} -->\n| variable | meaning |\n|---|---|\n{rows}\n<!-- end -->"
        page = re.sub(rf"<!-- {name} -->.*?<!-- end -->", lambda _: block, page, flags=re.DOTALL)  # noqa: B023 - used at once
    return page


def pages() -> dict[Path, str]:
    """Return every generated page by its path, as it should be."""
    protocol, settings = ROOT / "docs" / "protocol.md", ROOT / "docs" / "settings.md"
    return {
        ROOT / "docs" / "errors.md": render_errors(),
        settings: render_settings(settings.read_text(encoding="utf-8")),
        protocol: render_samples(protocol.read_text(encoding="utf-8")),
    }


def main() -> None:
    """Write the pages that are not current, and say which."""
    for path, text in pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
