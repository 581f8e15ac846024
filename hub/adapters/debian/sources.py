"""Where this machine's package manager gets its packages: reads apt's own source lists.

Decides which of them are Debian's for one release. Names no server itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<rest>.+)")
_FILE_LIMIT = 256 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """One place packages come from; `signed_by` keeps the form it has in apt's deb822 files."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    trusted: str = ""

    def render(self) -> str:
        """Return the source as a deb822 paragraph."""
        lines = [
            "Types: deb",
            f"URIs: {' '.join(self.uris)}",
            f"Suites: {' '.join(self.suites)}",
            f"Components: {' '.join(self.components)}",
        ]
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        if self.trusted:
            lines.append(f"Trusted: {self.trusted}")
        return "\n".join(lines) + "\n"


def debian_sources(apt: Path, codename: str) -> tuple[Source, ...]:
    """Return the sources of a Debian release that this machine is configured with.

    Args:
        apt: Apt's configuration folder, `/etc/apt`.
        codename: Name of the release.
    """
    wanted = {codename, f"{codename}-updates", f"{codename}-security"}
    found: list[Source] = []
    for source in _all(apt):
        suites = tuple(suite for suite in source.suites if suite in wanted)
        if suites and "main" in source.components:
            found.append(Source(source.uris, suites, ("main",), source.signed_by, source.trusted))
    own = [
        source for source in found if not source.signed_by or "debian-archive" in source.signed_by
    ]
    return tuple(own or found)


def _all(apt: Path) -> Iterator[Source]:
    folder = apt / "sources.list.d"
    files = [apt / "sources.list", *(sorted(folder.iterdir()) if folder.is_dir() else ())]
    for path in files:
        if not path.is_file() or path.stat().st_size > _FILE_LIMIT:
            continue
        text = path.read_text("utf-8", "replace")
        if path.suffix == ".sources":
            yield from parse_deb822(text)
        elif path.suffix == ".list":
            yield from parse_one_line(text)


def parse_one_line(text: str) -> Iterator[Source]:
    """Yield the sources of a `.list` file."""
    for line in text.splitlines():
        found = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if found:
            pairs = (option.partition("=") for option in (found["options"] or "").split())
            options = {key.lower(): value for key, _, value in pairs}
            suite, *components = found["rest"].split()
            yield Source(
                (found["uri"],),
                (suite,),
                tuple(components),
                options.get("signed-by", ""),
                options.get("trusted", ""),
            )


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the sources of a `.sources` file."""
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in re.split(r"\n[ \t]*\n", kept):
        fields = _fields(paragraph)
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" in fields.get("types", "").split():
            yield Source(
                tuple(fields.get("uris", "").split()),
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                fields.get("signed-by", ""),
                fields.get("trusted", ""),
            )


def _fields(paragraph: str) -> Mapping[str, str]:
    fields: dict[str, str] = {}
    key = ""
    for line in paragraph.splitlines():
        if line[:1] in (" ", "\t") and key:
            fields[key] += "\n" + line
        elif ":" in line:
            name, _, value = line.partition(":")
            key = name.strip().lower()
            fields[key] = value.strip()
    return fields
