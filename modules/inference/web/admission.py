"""How much may wait at once: requests and bytes. Counts only; never waits."""


class Admission:
    """Bounds what is read, queued and scored at the same time. Use it from one thread."""

    def __init__(self, *, requests: int, limit_bytes: int) -> None:
        self._free_requests = requests
        self._free_bytes = limit_bytes
        self._requests = requests

    @property
    def active(self) -> int:
        """How many requests are inside."""
        return self._requests - self._free_requests

    def enter(self) -> "Place | None":
        """Return a place for one request, or None when all are taken."""
        if self._free_requests == 0:
            return None
        self._free_requests -= 1
        return Place(self)

    def _take(self, size: int) -> bool:
        if size > self._free_bytes:
            return False
        self._free_bytes -= size
        return True

    def _leave(self, size: int) -> None:
        self._free_requests += 1
        self._free_bytes += size


class Place:
    """One request's share of an Admission, until leave()."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = 0

    def take(self, size: int) -> bool:
        """Claim `size` more bytes; False when they are not there."""
        taken = self._admission._take(size)  # noqa: SLF001 - one class in two parts
        self._held += size if taken else 0
        return taken

    def leave(self) -> None:
        """Give everything back. Call it exactly once."""
        self._admission._leave(self._held)  # noqa: SLF001 - one class in two parts
