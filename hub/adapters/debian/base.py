"""A base layer with Python, made of Debian packages: fetched by apt-get, unpacked by ourselves.

Decides which packages and which of their files are in it, and what replaces the work of the
maintainer scripts, none of which runs. Needs no root and works for a foreign processor. The
machine's own package state is not touched; its sources and proxies are used.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hub.adapters.debian.archive import DebFile, read_deb
from hub.adapters.debian.sources import debian_sources
from hub.adapters.packaging.bases import BaseLayer
from hub.adapters.packaging.budget import Budget, run_program
from hub.adapters.packaging.layer_cache import LayerCache
from hub.adapters.packaging.tar_layers import Entry, bytes_entry, write_layer
from hub.core.packaging import APP_ROOT, USER, Architecture, Layer, LayerKind, Progress
from protocol.errors import Code, UnavailableError

RECIPE_VERSION = "1"
_COMMON = (
    "base-files",
    "base-passwd",
    "netbase",
    "media-types",
    "tzdata",
    "libc6",
    "libc-bin",
    "libgcc-s1",
    "libstdc++6",
    "libgomp1",
    "ca-certificates",
    "zlib1g",
    "libbz2-1.0",
    "liblzma5",
    "libsqlite3-0",
    "libexpat1",
    "libuuid1",
    "libncursesw6",
    "libtinfo6",
    "libcrypt1",
)


@dataclass(frozen=True, slots=True)
class Suite:
    """What a Debian release calls things."""

    python_version: str
    packages: tuple[str, ...]


_SUITES = {
    "bookworm": Suite("3.11", (*_COMMON, "libssl3", "libffi8", "libreadline8")),
    "trixie": Suite("3.13", (*_COMMON, "libssl3t64", "libffi8", "libreadline8t64", "libzstd1")),
}
_DROPPED = re.compile(
    r"usr/share/(?:man|locale|info|lintian|doc-base|bash-completion|menu|bug|pixmaps|applications"
    r"|gcc|gdb|binfmts|perl5|debianutils|zsh|python3)/"
    r"|usr/share/doc/[^/]+/(?!copyright$)"
    r"|usr/share/zoneinfo/(?:right|posix)/"
    r"|usr/lib/python3\.\d+/(?:test|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data"
    r"|config-[^/]+)/"
    r"|usr/lib/[^/]+/gconv/"
    r"|usr/(?:bin|sbin)/(?!python3)"
    r"|etc/(?:cron|init\.d|logrotate|apt|dpkg|update-motd)"
    r"|var/"
)
_MERGED = re.compile(r"(?:bin|sbin|lib|lib32|lib64|libx32)/")
_ACCOUNTS = (
    "root:x:0:0:root:/root:/usr/sbin/nologin\nnonroot:x:{uid}:{uid}::/tmp:/usr/sbin/nologin\n"
)
_GROUPS = "root:x:0:\nnonroot:x:{uid}:\n"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_QUIET = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


@dataclass(frozen=True, slots=True)
class DebianBases:
    """Plays `BaseImages` with the Debian release this machine runs.

    Args:
        cache_dir: Folder for finished layers. A layer stays as it is until it is removed.
        root: Where this machine's `etc` is.
    """

    cache_dir: Path
    root: Path = Path("/")

    def obtain(self, architecture: Architecture, budget: Budget, progress: Progress) -> BaseLayer:
        """Return the base layer for a processor.

        Raises:
            FleetError: `base-unavailable`.
        """
        codename = _codename(self.root / "etc" / "os-release")
        suite = _SUITES[codename]

        def make(path: Path) -> Layer:
            with tempfile.TemporaryDirectory() as folder:
                apt = _Apt(Path(folder), self.root / "etc" / "apt", architecture, budget)
                progress("base: fetching packages")
                python = f"python{suite.python_version}-minimal"
                library = f"libpython{suite.python_version}"
                packages = (*suite.packages, python, f"{library}-minimal", f"{library}-stdlib")
                debs = apt.download(codename, packages)
                progress("base: unpacking")
                entries = _entries(debs, suite.python_version)
                return write_layer(path, LayerKind.BASE, entries, check=budget.check)

        cache = LayerCache(self.cache_dir)
        layer, path = cache.obtain(_key(codename, architecture), make)
        return BaseLayer(layer, path, suite.python_version)


@dataclass(frozen=True, slots=True)
class _Apt:
    """apt-get with a state of its own in `folder`."""

    folder: Path
    configuration: Path
    architecture: Architecture
    budget: Budget

    def download(self, codename: str, packages: Iterable[str]) -> list[Path]:
        """Return the packages as files, ordered by name."""
        sources = debian_sources(self.configuration, codename)
        if not sources:
            raise _unavailable(
                f"apt has no source for Debian '{codename}'",
                f"add Debian's '{codename}' to the sources of apt",
            )
        for name in ("state/lists/partial", "cache/archives/partial", "sources", "debs"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "status").touch()
        (self.folder / "apt.conf").write_text(_QUIET)
        text = "\n".join(source.render() for source in sources)
        (self.folder / "sources" / "debian.sources").write_text(text)
        self._run("update", "--error-on=any")
        self._run("download", *packages)
        return sorted((self.folder / "debs").glob("*.deb"))

    def _run(self, *arguments: str) -> None:
        options = {
            "APT::Architecture": self.architecture.value,
            "APT::Architectures": self.architecture.value,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Debug::NoLocking": "1",
            "Dir::State": str(self.folder / "state"),
            "Dir::State::status": str(self.folder / "status"),
            "Dir::Cache": str(self.folder / "cache"),
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": str(self.folder / "sources"),
        }
        command = ["apt-get", "-qq", "-c", str(self.folder / "apt.conf")]
        for key, value in options.items():
            command += ["-o", f"{key}={value}"]
        try:
            status, output = run_program([*command, *arguments], self.folder / "debs", self.budget)
        except FileNotFoundError as error:
            raise _unavailable(
                "there is no apt-get on this machine", "build on Debian, or without a base"
            ) from error
        if status:
            words = " ".join(output.split())[-1000:]
            raise _unavailable(
                f"apt-get cannot fetch the packages of the base: {words}",
                "check the network and the sources of apt, or build without a base",
            )


def _entries(debs: Iterable[Path], python_version: str) -> Iterator[Entry]:
    """Yield the files of all packages, and what maintainer scripts would have made."""
    found: dict[str, DebFile] = {}
    for deb in debs:
        for file in read_deb(deb, _is_wanted):
            path = _merged(file.path)
            found[path] = DebFile(path, file.executable, file.content, file.link)
    certificates = sorted(path for path in found if path.startswith("usr/share/ca-certificates/"))
    bundle = b"".join(found[path].content or b"" for path in certificates)
    for path, file in found.items():
        if file.link is not None:
            yield Entry(path, link=file.link)
        else:
            yield bytes_entry(path, file.content or b"", executable=file.executable)
    yield bytes_entry(_BUNDLE, bundle)
    # Without this link OpenSSL finds no certificate at all.
    yield Entry("usr/lib/ssl/cert.pem", link=f"/{_BUNDLE}")
    for name in ("python3", "python"):
        yield Entry(f"usr/bin/{name}", link=f"python{python_version}")
    merged = ["bin", "sbin", "lib"]
    if any(path.startswith("usr/lib64/") for path in found):
        merged.append("lib64")
    yield from (Entry(name, link=f"usr/{name}") for name in merged)
    yield Entry("usr/sbin")
    yield bytes_entry("etc/passwd", _ACCOUNTS.format(uid=USER).encode())
    yield bytes_entry("etc/group", _GROUPS.format(uid=USER).encode())
    yield bytes_entry("etc/nsswitch.conf", b"passwd: files\ngroup: files\nhosts: files dns\n")
    yield from (Entry(name, mode=0o1777) for name in ("tmp", "var/tmp"))
    yield from (Entry(name) for name in ("proc", "sys", "dev", "run", "root", APP_ROOT.lstrip("/")))


def _is_wanted(path: str) -> bool:
    return not _DROPPED.match(_merged(path))


def _merged(path: str) -> str:
    """Return where a path is when /bin, /lib and the like are links into /usr."""
    return f"usr/{path}" if _MERGED.match(path) else path


def _codename(release: Path) -> str:
    try:
        lines = release.read_text().splitlines()
    except OSError:
        lines = []
    facts = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in lines)}
    codename = facts.get("VERSION_CODENAME", "")
    if facts.get("ID") != "debian" or codename not in _SUITES:
        name = facts.get("PRETTY_NAME", "an unknown system")
        raise _unavailable(
            f"a base cannot be made on '{name}'",
            f"build on Debian ({', '.join(_SUITES)}), or without a base",
        )
    return codename


def _key(codename: str, architecture: Architecture) -> str:
    parts = f"base {RECIPE_VERSION} {codename} {architecture.value}"
    return hashlib.sha256(parts.encode()).hexdigest()


def _unavailable(message: str, hint: str) -> UnavailableError:
    return UnavailableError(message, code=Code.BASE_UNAVAILABLE, hint=hint)
