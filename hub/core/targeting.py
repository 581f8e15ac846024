"""Target conditions: which devices a deployment is for, in IoT Hub's query language.

Logic is three-valued: comparing a missing property, or two values of unlike types, is *undefined*;
NOT undefined is undefined, and only *true* targets a device.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from protocol.errors import Code, InvalidError

MAX_LENGTH = 4096
_MAX_NESTING = 50

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    | (?P<string>'(?:[^']|'')*')
    | (?P<name>[A-Za-z_$][A-Za-z0-9_$.-]*)
    | (?P<symbol><=|>=|<>|!=|[=<>(),*\[\]])
    )""",
    re.VERBOSE,
)
_PATH = re.compile(r"deviceId|profile|(?:tags|properties\.reported)(?:\.[^.]+)+")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_MISSING = object()

Truth = bool | None
Evaluate = Callable[[Mapping[str, Any]], Truth]


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed target condition."""

    text: str
    _evaluate: Evaluate

    def matches(self, facts: Mapping[str, Any]) -> bool:
        """Tell whether the condition is true of a device.

        Args:
            facts: `deviceId`, `profile`, `tags` and `properties` (with `reported` below it).
        """
        return self._evaluate(facts) is True


def parse_condition(text: str) -> Condition:
    """Parse a target condition, or raise InvalidError (`condition-invalid`) naming the position."""
    if len(text) > MAX_LENGTH:
        raise _refuse(f"it is {len(text)} characters long, the limit is {MAX_LENGTH}", 0)
    if text.strip() == "*":
        return Condition(text, lambda _facts: True)
    return Condition(text, _Parser(text).parse())


def asks_reported(condition: str) -> bool:
    """Tell whether what a device reports may change the answer of a condition."""
    return "properties" in condition


def _refuse(problem: str, position: int) -> InvalidError:
    return InvalidError(
        f"the target condition is not valid at position {position}: {problem}",
        code=Code.CONDITION_INVALID,
        hint="for example: tags.site = 'plant-7' AND profile IN ['generic-x86', 'raspberry-pi-5']",
    )


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def _tokens(text: str) -> list[_Token]:
    out, position, end = [], 0, len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if not found:
            start = end - len(text[position:end].lstrip())
            raise _refuse(f"{text[start : start + 10]!r} is not understood", start)
        kind = str(found.lastgroup)
        out.append(_Token(kind, found[kind], found.start(kind)))
        position = found.end()
    return out


class _Parser:
    """Recursive descent: OR binds loosest, then AND, then NOT, then comparisons."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._end = len(text)
        self._index = 0
        self._depth = 0

    def parse(self) -> Evaluate:
        result = self._either()
        if (left := self._peek()) is not None:
            raise _refuse(f"{left.text!r} was not expected", left.position)
        return result

    def _peek(self) -> _Token | None:
        return self._tokens[self._index] if self._index < len(self._tokens) else None

    def _next(self, wanted: str) -> _Token:
        token = self._peek()
        if token is None:
            raise _refuse(f"{wanted} is missing", self._end)
        self._index += 1
        return token

    def _accept(self, *words: str) -> str | None:
        token = self._peek()
        if token and token.kind in ("name", "symbol") and token.text.upper() in words:
            self._index += 1
            return token.text.upper()
        return None

    def _expect(self, symbol: str) -> None:
        token = self._next(repr(symbol))
        if token.text != symbol:
            raise _refuse(f"{symbol!r} was expected, not {token.text!r}", token.position)

    def _either(self) -> Evaluate:
        self._depth += 1
        if self._depth > _MAX_NESTING:
            raise _refuse("it is nested too deep", self._end)
        parts = [self._both()]
        while self._accept("OR"):
            parts.append(self._both())
        self._depth -= 1
        return parts[0] if len(parts) == 1 else _any(parts)

    def _both(self) -> Evaluate:
        parts = [self._negation()]
        while self._accept("AND"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else _all(parts)

    def _negation(self) -> Evaluate:
        negations = 0
        while self._accept("NOT"):
            negations += 1
        inner = self._primary()
        return _not(inner) if negations % 2 else inner

    def _primary(self) -> Evaluate:
        if self._accept("("):
            inner = self._either()
            self._expect(")")
            return inner
        if self._accept("IS_DEFINED"):
            self._expect("(")
            path = self._path(self._next("a property"))
            self._expect(")")
            return lambda facts: path(facts) is not _MISSING
        return self._comparison()

    def _comparison(self) -> Evaluate:
        left = self._operand()
        if word := self._accept("IN", "NIN"):
            among = _any([_compare(left, operator.eq, value) for value in self._list()])
            return among if word == "IN" else _not(among)
        token = self._next("a comparison")
        if token.text not in _COMPARE:
            raise _refuse(f"a comparison was expected, not {token.text!r}", token.position)
        return _compare(left, _COMPARE[token.text], self._operand())

    def _list(self) -> list[Callable[[Mapping[str, Any]], Any]]:
        self._expect("[")
        values = [self._operand()]
        while self._accept(","):
            values.append(self._operand())
        self._expect("]")
        return values

    def _operand(self) -> Callable[[Mapping[str, Any]], Any]:
        token = self._next("a value or property")
        if token.kind == "string":
            return _constant(token.text[1:-1].replace("''", "'"))
        if token.kind == "number":
            return _constant(float(token.text))
        if token.text in ("true", "false"):
            return _constant(token.text == "true")
        return self._path(token)

    def _path(self, token: _Token) -> Callable[[Mapping[str, Any]], Any]:
        if token.kind != "name" or not _PATH.fullmatch(token.text):
            names = "deviceId, profile, tags.<name> or properties.reported.<name>"
            raise _refuse(f"{token.text!r} is not {names}", token.position)
        parts = token.text.split(".")

        def value(facts: Mapping[str, Any]) -> Any:
            here: Any = facts
            for part in parts:
                if not isinstance(here, Mapping) or part not in here:
                    return _MISSING
                here = here[part]
            return here

        return value


def _constant(value: Any) -> Callable[[Mapping[str, Any]], Any]:
    return lambda _facts: value


def _kind(value: Any) -> type | None:
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float):
        return float
    return str if isinstance(value, str) else None


def _compare_values(left: Any, test: Callable[[Any, Any], bool], right: Any) -> Truth:
    kind = _kind(left)
    if kind is None or kind is not _kind(right):
        return None
    if kind is bool and test not in (operator.eq, operator.ne):
        return None
    return test(left, right)


def _compare(
    left: Callable[[Mapping[str, Any]], Any],
    test: Callable[[Any, Any], bool],
    right: Callable[[Mapping[str, Any]], Any],
) -> Evaluate:
    return lambda facts: _compare_values(left(facts), test, right(facts))


def _all(parts: list[Evaluate]) -> Evaluate:
    def evaluate(facts: Mapping[str, Any]) -> Truth:
        truths = [part(facts) for part in parts]
        if False in truths:
            return False
        return None if None in truths else True

    return evaluate


def _any(parts: list[Evaluate]) -> Evaluate:
    def evaluate(facts: Mapping[str, Any]) -> Truth:
        truths = [part(facts) for part in parts]
        if True in truths:
            return True
        return None if None in truths else False

    return evaluate


def _not(inner: Evaluate) -> Evaluate:
    def evaluate(facts: Mapping[str, Any]) -> Truth:
        truth = inner(facts)
        return None if truth is None else not truth

    return evaluate
