"""What `@rawhttp` gives run(): the request, with the attributes that scripts use of Flask's."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from .multipart import FilePart, parse_multipart

Function = TypeVar("Function", bound=Callable[..., Any])

# The decorator has to leave a trace for the server, however the function is wrapped afterwards.
raw_functions: list[Callable[..., Any]] = []


def rawhttp(func: Function) -> Function:
    """Ask for the raw request in run(). The function itself is not changed."""
    raw_functions.append(func)
    return func


class Headers(Mapping[str, str]):
    """Headers by case-insensitive name; the first of several with one name."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Keep the pairs in their order."""
        self._pairs = [(name.title(), value) for name, value in pairs]

    def __getitem__(self, name: str) -> str:
        for key, value in self._pairs:
            if key == name.title():
                return value
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for key, _ in self._pairs))

    def __len__(self) -> int:
        return len({key for key, _ in self._pairs})

    def getlist(self, name: str) -> list[str]:
        """Return all values of the name."""
        return [value for key, value in self._pairs if key == name.title()]


class MultiDict(dict[str, Any]):
    """The first value by name; all of them with getlist()."""

    def __init__(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Keep the pairs in their order."""
        self._pairs = list(pairs)
        super().__init__(reversed(self._pairs))

    def getlist(self, name: str) -> list[Any]:
        """Return all values of the name."""
        return [value for key, value in self._pairs if key == name]


class AMLRequest:
    """One HTTP request with its whole body."""

    def __init__(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b"",
        host: str = "localhost",
    ) -> None:
        """Made by the server."""
        self.method = method
        self.path = path
        self.query_string = query.encode()
        self.headers = Headers(headers)
        self.host = host
        self.scheme = "http"
        self.args = MultiDict(parse_qsl(query, keep_blank_values=True))
        self._body = body
        self._forms: tuple[MultiDict, MultiDict] | None = None

    def __repr__(self) -> str:
        return f"<AMLRequest {self.url!r} [{self.method}]>"

    @property
    def full_path(self) -> str:
        """The path with the query; it ends in `?` when there is none, as in Flask."""
        return f"{self.path}?{self.query_string.decode()}"

    @property
    def base_url(self) -> str:
        """The URL without the query."""
        return f"{self.scheme}://{self.host}{self.path}"

    @property
    def url(self) -> str:
        """The URL with the query."""
        return self.base_url + (f"?{self.query_string.decode()}" if self.query_string else "")

    @property
    def content_type(self) -> str | None:
        """The Content-Type header, if there is one."""
        return self.headers.get("Content-Type")

    @property
    def mimetype(self) -> str:
        """The content type without parameters, lower case; '' without the header."""
        return (self.content_type or "").partition(";")[0].strip().lower()

    @property
    def content_length(self) -> int:
        """The size of the body in bytes."""
        return len(self._body)

    @property
    def data(self) -> bytes:
        """The body."""
        return self._body

    def get_data(
        self,
        cache: bool = True,  # noqa: FBT001, FBT002, ARG002 - Flask's signature
        as_text: bool = False,  # noqa: FBT001, FBT002 - Flask's signature
        parse_form_data: bool = False,  # noqa: FBT001, FBT002, ARG002 - Flask's signature
    ) -> Any:
        """Return the body as bytes, or as text."""
        return self._body.decode("utf-8", "replace") if as_text else self._body

    @property
    def is_json(self) -> bool:
        """Whether the content type is a JSON one."""
        return self.mimetype == "application/json" or self.mimetype.endswith("+json")

    @property
    def json(self) -> Any:
        """The body parsed as JSON; ValueError if it is not."""
        return self.get_json()

    def get_json(
        self,
        force: bool = False,  # noqa: FBT001, FBT002 - Flask's signature
        silent: bool = False,  # noqa: FBT001, FBT002 - Flask's signature
        cache: bool = True,  # noqa: FBT001, FBT002, ARG002 - Flask's signature
    ) -> Any:
        """Return the body parsed as JSON; None or ValueError (`silent`) when it is not JSON."""
        if not (force or self.is_json):
            if silent:
                return None
            raise ValueError("the content type is not application/json")
        try:
            return json.loads(self._body)
        except ValueError:
            if silent:
                return None
            raise

    @property
    def form(self) -> MultiDict:
        """The fields of a form body."""
        return self._parsed_form()[0]

    @property
    def files(self) -> MultiDict:
        """The files of a multipart body, each with read(), filename and content_type."""
        return self._parsed_form()[1]

    def _parsed_form(self) -> tuple[MultiDict, MultiDict]:
        if self._forms is None:
            fields: list[tuple[str, str]] = []
            files: list[tuple[str, FilePart]] = []
            if self.mimetype == "application/x-www-form-urlencoded":
                fields = parse_qsl(self._body.decode("utf-8", "replace"), keep_blank_values=True)
            elif self.mimetype == "multipart/form-data":
                fields, files = parse_multipart(self._body, self.content_type or "")
            self._forms = (MultiDict(fields), MultiDict(files))
        return self._forms
