"""Who may do what in the image registry, and what of it a token carries. Pure rules.

Decides the meaning of patterns and scopes. Must not look at what exists: whether a repository is
there never changes an answer, so nobody learns of what they may not see.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from protocol.errors import InvalidError
from protocol.ids import parse_repository

MAX_SCOPES = 64
_SCOPE = re.compile(r"repository:(?P<name>[^:\s]{1,255}):(?P<actions>[a-z*,]{0,64})")


class Action(StrEnum):
    """What can be done with a repository."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


Grants = Mapping[str, frozenset[Action]]


@dataclass(frozen=True, slots=True)
class Access:
    """What somebody may pull from and push to; who may push may also delete.

    Patterns: `*` is every repository, `team/*` everything below `team/`, anything else one
    repository by its name. Pushing includes pulling.

    Attributes:
        subject: Who it is, for logs and tokens.
    """

    subject: str
    pull: tuple[str, ...] = ()
    push: tuple[str, ...] = ()

    def allowed(self, repository: str) -> frozenset[Action]:
        """Return everything that may be done with a repository."""
        if _matches(self.push, repository):
            return frozenset(Action)
        if _matches(self.pull, repository):
            return frozenset({Action.PULL})
        return frozenset()


@dataclass(frozen=True, slots=True)
class Scope:
    """One thing a client asks a token for; None for `actions` asks for all it may do."""

    repository: str
    actions: frozenset[Action] | None


class Principals(Protocol):
    """Who is behind a user name and a password."""

    async def authenticate(self, username: str, password: str) -> Access:
        """Return what this account may do.

        Raises:
            DeniedError: `token-invalid`, without telling which of the two was wrong.
        """
        ...


def parse_scopes(texts: Iterable[str]) -> tuple[Scope, ...]:
    """Return the repository scopes in `texts`; each text may hold several, divided by blanks.

    What is not a repository scope or not well formed is left out: a client that asks for too
    much gets less, never an error. At most `MAX_SCOPES` are read.
    """
    scopes: list[Scope] = []
    for word in (word for text in texts for word in text.split()):
        scope = _parse_scope(word)
        if scope is not None:
            scopes.append(scope)
        if len(scopes) == MAX_SCOPES:
            break
    return tuple(scopes)


def intersect(access: Access, scopes: Sequence[Scope]) -> dict[str, frozenset[Action]]:
    """Return exactly what is both asked for and allowed, per repository."""
    grants: dict[str, frozenset[Action]] = {}
    for scope in scopes:
        allowed = access.allowed(scope.repository)
        given = allowed if scope.actions is None else allowed & scope.actions
        if given:
            grants[scope.repository] = grants.get(scope.repository, frozenset()) | given
    return grants


def scope_text(repository: str, actions: Iterable[Action]) -> str:
    """Return a scope as it is written in a challenge."""
    return f"repository:{repository}:{','.join(a for a in Action if a in set(actions))}"


def _parse_scope(word: str) -> Scope | None:
    found = _SCOPE.fullmatch(word)
    if not found:
        return None
    try:
        repository = parse_repository(found["name"])
    except InvalidError:
        return None
    names = found["actions"].split(",")
    if "*" in names:
        return Scope(repository, None)
    return Scope(repository, frozenset(action for action in Action if action in names))


def _matches(patterns: Sequence[str], repository: str) -> bool:
    return any(
        pattern in ("*", repository)
        or (pattern.endswith("/*") and repository.startswith(pattern[:-1]))
        for pattern in patterns
    )
