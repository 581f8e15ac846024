"""Splits a multipart/form-data body into fields and files, byte for byte."""

from email.message import Message
from io import BytesIO

MAX_PARTS = 1_000


class FilePart(BytesIO):
    """An uploaded file, readable and seekable."""

    def __init__(self, content: bytes, name: str, filename: str, content_type: str) -> None:
        """Hold the content under the names that Flask's FileStorage has."""
        super().__init__(content)
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self.mimetype = content_type.partition(";")[0].strip().lower()

    def save(self, destination: str) -> None:
        """Write the content to a file."""
        with open(destination, "wb") as file:  # noqa: PTH123 - a path or whatever scripts give
            file.write(self.getvalue())


Fields = list[tuple[str, str]]
Files = list[tuple[str, FilePart]]


def parse_multipart(body: bytes, content_type: str) -> tuple[Fields, Files]:
    """Return fields and files in their order. Raises ValueError for a broken body."""
    outer = Message()
    outer["content-type"] = content_type
    boundary = outer.get_boundary()
    if not boundary:
        raise ValueError("multipart body without a boundary")
    mark = b"\r\n--" + boundary.encode("latin-1")
    pieces = (b"\r\n" + body).split(mark, MAX_PARTS + 2)
    if len(pieces) > MAX_PARTS + 1 or not pieces[-1].startswith(b"--"):
        raise ValueError("multipart body is cut off, or has too many parts")
    fields: Fields = []
    files: Files = []
    for piece in pieces[1:-1]:
        _add_part(piece, fields, files)
    return fields, files


def _add_part(piece: bytes, fields: Fields, files: Files) -> None:
    head, found, content = piece.partition(b"\r\n\r\n")
    if not found:
        raise ValueError("multipart part without a header")
    headers = Message()
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip():
            headers[name.strip()] = value.strip()
    field = headers.get_param("name", header="content-disposition")
    filename = headers.get_filename()
    if not isinstance(field, str):
        raise ValueError("multipart part without a name")  # noqa: TRY004 - the body is wrong
    if filename is None:
        fields.append((field, content.decode("utf-8", "replace")))
    else:
        kind = headers.get("content-type", "application/octet-stream")
        files.append((field, FilePart(content, field, filename, kind)))
