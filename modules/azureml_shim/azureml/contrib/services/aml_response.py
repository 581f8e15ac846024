"""What run() returns to choose status, headers and bytes of the answer itself."""

import json
from collections.abc import Iterable, Mapping

RUN_FAILED = "x-ms-run-function-failed"


class ResponseHeaders:
    """Headers in their order; a name may appear more than once."""

    def __init__(self) -> None:
        """Start empty."""
        self._pairs: list[tuple[str, str]] = []

    def add(self, name: str, value: object) -> None:
        """Add a header beside others of its name."""
        self._pairs.append((name, str(value)))

    def __setitem__(self, name: str, value: object) -> None:
        self._pairs = [pair for pair in self._pairs if pair[0].lower() != name.lower()]
        self.add(name, value)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of the case-insensitive name."""
        return next((v for k, v in self._pairs if k.lower() == name.lower()), default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def items(self) -> list[tuple[str, str]]:
        """Return all headers."""
        return list(self._pairs)


class AMLResponse:
    """An answer made by run() itself."""

    def __init__(
        self,
        message: object,
        status_code: int,
        response_headers: Mapping[str, str] | None = None,
        json_str: bool = False,  # noqa: FBT001, FBT002 - the signature that scripts call
        run_function_failed: bool = False,  # noqa: FBT001, FBT002 - the signature that scripts call
    ) -> None:
        """Take text, bytes, an iterable of either, or with `json_str` anything JSON can hold.

        None is sent as `{}`. A header value is split on commas into headers of the same name.
        """
        given = dict(response_headers or {})
        is_json = json_str or message is None
        self.status_code = int(status_code)
        self.headers = ResponseHeaders()
        self._data = (
            json.dumps({} if message is None else message).encode() if is_json else _bytes(message)
        )
        if is_json or not any(name.lower() == "content-type" for name in given):
            self.headers.add(
                "Content-Type", "application/json" if is_json else "text/html; charset=utf-8"
            )
        self.headers[RUN_FAILED] = run_function_failed
        for name, value in given.items():
            if is_json and name.lower() == "content-type":
                continue
            for part in str(value).split(","):
                self.headers.add(name, part.strip())

    @property
    def data(self) -> bytes:
        """The body."""
        return self._data

    def get_data(self) -> bytes:
        """Return the body."""
        return self._data


def _bytes(message: object) -> bytes:
    if isinstance(message, bytes | bytearray | memoryview):
        return bytes(message)
    if isinstance(message, str):
        return message.encode()
    if isinstance(message, Iterable):
        return b"".join(_bytes(part) for part in message)
    raise TypeError(f"a response cannot hold a {type(message).__name__}")
