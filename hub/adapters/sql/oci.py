"""The index of the embedded registry in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, select, union

from hub.adapters.sql import tables
from hub.adapters.sql.records import Records, insert_once, upsert
from hub.core.oci import ManifestRecord
from protocol.ids import Digest

_MANIFEST = tables.oci_manifests.c
_TAG = tables.oci_tags.c
_BLOB = tables.oci_blobs.c


class SqlOciIndex:
    """The `OciIndex` port."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._manifests = Records(connection, tables.oci_manifests, ManifestRecord)

    def repositories(self) -> Sequence[str]:
        """Return all repositories in lexical order."""
        query = union(select(_MANIFEST.repository), select(_BLOB.repository))
        # The order of a union's rows is the database's business; names are few.
        return sorted(self._connection.execute(query).scalars())

    def manifest(self, repository: str, digest: Digest) -> ManifestRecord | None:
        """Return a manifest of the repository, or None."""
        return self._manifests.get(_MANIFEST.repository == repository, _MANIFEST.digest == digest)

    def put_manifest(self, repository: str, record: ManifestRecord) -> None:
        """Insert; the same digest again changes nothing."""
        self._manifests.add_once(record, repository=repository)

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest and the tags that name it; tell whether it was there."""
        self._delete(tables.oci_tags, _TAG.repository == repository, _TAG.digest == digest)
        return self._delete(
            tables.oci_manifests, _MANIFEST.repository == repository, _MANIFEST.digest == digest
        )

    def tag(self, repository: str, tag: str) -> Digest | None:
        """Return what a tag names, or None."""
        query = select(_TAG.digest).where(_TAG.repository == repository, _TAG.tag == tag)
        digest = self._connection.execute(query).scalar()
        return None if digest is None else Digest(digest)

    def put_tag(self, repository: str, tag: str, digest: Digest) -> None:
        """Point a tag at a manifest the repository has."""
        self._connection.execute(
            upsert(tables.oci_tags, self._connection.dialect.name),
            {"repository": repository, "tag": tag, "digest": digest},
        )

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag; tell whether it was there."""
        return self._delete(tables.oci_tags, _TAG.repository == repository, _TAG.tag == tag)

    def tags(self, repository: str, *, last: str = "", limit: int | None = None) -> Sequence[str]:
        """Return tags in lexical order beyond `last`."""
        query = select(_TAG.tag).where(_TAG.repository == repository, _TAG.tag > last)
        return self._connection.execute(query.order_by(_TAG.tag).limit(limit)).scalars().all()

    def referrers(self, repository: str, subject: Digest) -> Sequence[ManifestRecord]:
        """Return the manifests whose subject is `subject`, in order of digest."""
        mine = (_MANIFEST.repository == repository) & (_MANIFEST.subject == subject)
        return self._manifests.all(self._manifests.select().where(mine).order_by(_MANIFEST.digest))

    def link_blob(self, repository: str, digest: Digest) -> None:
        """Make a stored blob visible in a repository."""
        self._connection.execute(
            insert_once(tables.oci_blobs, self._connection.dialect.name),
            {"repository": repository, "digest": digest},
        )

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Tell whether a blob is visible in a repository."""
        found = exists().where(_BLOB.repository == repository, _BLOB.digest == digest)
        return bool(self._connection.execute(select(found)).scalar())

    def unlink_blob(self, repository: str, digest: Digest) -> bool:
        """Hide a blob from a repository; tell whether it was visible."""
        return self._delete(
            tables.oci_blobs, _BLOB.repository == repository, _BLOB.digest == digest
        )

    def repositories_of_blob(self, digest: Digest) -> Sequence[str]:
        """Return the repositories a blob is visible in, in lexical order."""
        query = select(_BLOB.repository).where(_BLOB.digest == digest).order_by(_BLOB.repository)
        return self._connection.execute(query).scalars().all()

    def _delete(self, table: Table, *where: ColumnElement[bool]) -> bool:
        return self._connection.execute(delete(table).where(*where)).rowcount > 0
