"""Values of the embedded OCI registry."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.ids import Digest


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """A manifest as it was pushed.

    Attributes:
        digest: Digest of `content`.
        media_type: What it was pushed as.
        content: The exact bytes.
        subject: Digest it refers to, if any.
        artifact_type: Its artifact type, or its config's media type.
        annotations: Its annotations, as JSON text.
    """

    digest: Digest
    media_type: str
    content: bytes
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: str = "{}"
