"""Target conditions: truth tables, precedence, positions, hostile texts, a second opinion."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.core.targeting import MAX_LENGTH, asks_reported, parse_condition
from protocol.errors import Code, FleetError

FACTS: dict[str, Any] = {
    "deviceId": "press-7",
    "profile": "generic-x86",
    "tags": {
        "site": "plant-7",
        "floor": 3,
        "hot": True,
        "deep": {"er": "x"},
        "list": [1],
        "quote": "it's",
    },
    "properties": {"reported": {"modules": {"m": {"restarts": 2}}, "load": 0.5}},
}
TRUE, FALSE, UNDEFINED = "tags.floor = 3", "tags.floor = 4", "tags.none = 3"


def holds(text: str) -> bool:
    return parse_condition(text).matches(FACTS)


def truth(text: str) -> bool | None:
    """Tell an undefined answer from a false one: only a false one turns true when negated."""
    if holds(text):
        return True
    return False if holds(f"NOT ({text})") else None


def refusal(text: str) -> FleetError:
    with pytest.raises(FleetError) as caught:
        parse_condition(text)
    assert caught.value.code is Code.CONDITION_INVALID
    assert caught.value.hint
    assert len(str(caught.value)) < 300
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "  *  ",
        "deviceId = 'press-7'",
        "profile IN ['a', 'generic-x86']",
        "profile NIN ['a', 'b']",
        "tags.site = 'plant-7'",
        "tags.floor >= 3 AND tags.floor <= 3",
        "tags.floor < 3.5 and tags.floor > 2e0",
        "tags.floor <> 4 AND tags.floor != -4",
        "tags.hot = true",
        "tags.hot != false",
        "tags.deep.er = 'x'",
        "tags.quote = 'it''s'",
        "'press-7' = deviceId",
        "tags.site > 'plant-6'",
        "properties.reported.modules.m.restarts = 2",
        "properties.reported.load < 1",
        "IS_DEFINED(tags.deep)",
        "is_defined(tags.list)",
        "NOT IS_DEFINED(tags.none)",
        "NOT NOT NOT tags.floor = 4",
        "\ttags.floor\n=\r\n3 ",
        "tags.floor=3AND tags.hot=true",
    ],
)
def test_a_condition_that_is_true_targets(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "tags.none = 'a'",
        "NOT (tags.none = 'a')",
        "NOT NOT tags.none = 'a'",
        "tags.none != 'a'",
        "tags.none NIN ['a']",
        "tags.none IN ['a']",
        "NOT tags.none IN ['a']",
        "tags.floor = '3'",
        "tags.floor != '3'",
        "tags.floor = true",
        "tags.hot = 1",
        "tags.hot > false",
        "tags.deep = 'x'",
        "tags.list = 1",
        "tags.site.deeper = 'x'",
        "tags.site NIN ['a', tags.none]",
        "tags.site NIN ['a', 3]",
    ],
)
def test_what_is_missing_or_of_another_type_is_undefined_and_never_targets(text: str) -> None:
    assert truth(text) is None


@pytest.mark.parametrize(
    ("left", "right", "both", "either"),
    [
        (TRUE, TRUE, True, True),
        (TRUE, FALSE, False, True),
        (TRUE, UNDEFINED, None, True),
        (FALSE, FALSE, False, False),
        (FALSE, UNDEFINED, False, None),
        (UNDEFINED, UNDEFINED, None, None),
    ],
)
def test_three_valued_logic(
    left: str, right: str, *, both: bool | None, either: bool | None
) -> None:
    assert truth(f"{left} AND {right}") is truth(f"{right} AND {left}") is both
    assert truth(f"{left} OR {right}") is truth(f"{right} OR {left}") is either


def test_membership_is_a_chain_of_equalities() -> None:
    assert holds("tags.site IN [tags.none, 'plant-7']")
    assert truth("tags.site IN ['a']") is False
    assert truth("tags.site IN ['a', tags.none]") is None


def test_or_binds_loosest_and_not_tightest() -> None:
    assert holds(f"{TRUE} OR {TRUE} AND {FALSE}")
    assert not holds(f"({TRUE} OR {TRUE}) AND {FALSE}")
    assert not holds(f"NOT {TRUE} OR {FALSE}")
    assert holds(f"NOT ({FALSE} OR {FALSE}) AND {TRUE}")


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        ("   ", 3),
        ("tags.a", 6),
        ("tags.a =", 8),
        ("tags.a = 'x", 9),
        ("tags.a = 'x' 'y'", 13),
        ("tags.a = x", 9),
        ("  ; tags.a = 1", 2),
        ("tags.a = 1 AND", 14),
        ("(tags.a = 1", 11),
        ("tags.a = 1)", 10),
        ("tags.a == 1", 8),
        ("tags.a IN 1", 10),
        ("tags.a IN [1", 12),
        ("tags.a IN []", 11),
        ("IS_DEFINED(1)", 11),
        ("IS_DEFINED tags.a", 11),
        ("owner = 'x'", 0),
        ("tags = 'x'", 0),
        ("tags. = 'x'", 0),
        ("tags..a = 'x'", 0),
        ("deviceId.a = 'x'", 0),
        ("properties.desired.a = 'x'", 0),
        ("tags.a = \u0663", 9),
        ("tags.a = 1 * 2", 11),
        ("AND", 0),
    ],
)
def test_a_refusal_names_the_position(text: str, position: int) -> None:
    assert f"at position {position}:" in str(refusal(text))


def test_a_text_has_a_limit() -> None:
    assert "4097 characters" in str(refusal("*" + " " * MAX_LENGTH))
    assert holds("*" + " " * (MAX_LENGTH - 1))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 4000,
        "(" * 60 + TRUE + ")" * 60,
        "NOT " * 1000,
        "'" * 4095,
        "[" * 4096,
        "tags." + "a" * 4000,
        "\0",
        "tags.a = '\ud800' AND",
        "tags.a IN [" + "1," * 2000,
        "=" * 4096,
        "-" * 4096,
        "tags.a = " + "9" * 4000 + "x",
    ],
)
def test_hostile_texts_are_refused(text: str) -> None:
    refusal(text)


def test_nesting_and_negation_within_the_limit_are_fine() -> None:
    assert holds("(" * 49 + TRUE + ")" * 49)
    assert holds("NOT " * 1000 + TRUE)
    assert not holds("tags.floor = " + "9" * 4000)


def read(text: str) -> None:
    with contextlib.suppress(FleetError):
        parse_condition(text).matches(FACTS)


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    read(text)


WORDS = ["AND", "OR", "NOT", "IN", "NIN", "(", ")", "[", "]", ",", "=", "<", "tags.a", "'x'", "1"]


@given(st.lists(st.sampled_from([*WORDS, "IS_DEFINED", "true", "deviceId"]), max_size=12))
def test_any_words_are_a_condition_or_refused(words: list[str]) -> None:
    read(" ".join(words))


def test_only_conditions_on_reports_ask_for_them() -> None:
    assert asks_reported("properties.reported.load > 1")
    assert not asks_reported("tags.site = 'plant-7'")


# ---- a second opinion: the same trees, evaluated by brute force ----------------------------------

Tree = tuple[Any, ...]
operands = st.one_of(
    st.sampled_from(["deviceId", "tags.a", "tags.b", "tags.none", "properties.reported.n"]).map(
        lambda path: ("path", path)
    ),
    st.sampled_from([0, 1, 1.5, -2, "", "a", "it's", True, False]).map(
        lambda value: ("value", value)
    ),
)
comparisons = st.tuples(
    st.just("compare"), st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="]), operands, operands
)
leaves = st.one_of(
    comparisons,
    st.tuples(st.sampled_from(["IN", "NIN"]), operands, st.lists(operands, min_size=1, max_size=3)),
    st.tuples(st.just("defined"), st.sampled_from(["tags.a", "tags.none", "deviceId"])),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("NOT"), inner),
        st.tuples(st.sampled_from(["AND", "OR"]), inner, inner),
    ),
    max_leaves=8,
)
devices = st.fixed_dictionaries(
    {
        "deviceId": st.sampled_from(["a", "b"]),
        "profile": st.just("p"),
        "tags": st.fixed_dictionaries(
            {},
            optional={
                name: st.sampled_from([0, 1, 1.5, "", "a", True, False, [1], {"x": 1}])
                for name in "ab"
            },
        ),
        "properties": st.fixed_dictionaries(
            {"reported": st.fixed_dictionaries({}, optional={"n": st.integers(-2, 2)})}
        ),
    }
)


def written(tree: Tree) -> str:  # noqa: PLR0911 - one line per kind of node
    match tree:
        case ("path", path):
            return str(path)
        case ("value", bool(value)):
            return str(value).lower()
        case ("value", str(value)):
            return "'" + value.replace("'", "''") + "'"
        case ("value", value):
            return repr(value)
        case ("compare", sign, left, right):
            return f"{written(left)} {sign} {written(right)}"
        case ("IN" | "NIN" as word, left, values):
            return f"{written(left)} {word} [{', '.join(map(written, values))}]"
        case ("defined", path):
            return f"IS_DEFINED({path})"
        case ("NOT", inner):
            return f"NOT ({written(inner)})"
        case (word, left, right):
            return f"({written(left)}) {word} ({written(right)})"
    raise AssertionError(tree)


def looked_up(operand: Tree, facts: dict[str, Any]) -> Any:
    kind, here = operand
    if kind == "value":
        return here
    found: Any = facts
    for part in here.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def compared(sign: str, left: Any, right: Any) -> bool | None:
    kinds = [
        "bool" if isinstance(v, bool) else "number" if isinstance(v, int | float) else type(v)
        for v in (left, right)
    ]
    if kinds[0] != kinds[1] or kinds[0] not in ("bool", "number", str):
        return None
    if kinds[0] == "bool" and sign not in ("=", "!=", "<>"):
        return None
    order = (left > right) - (left < right)
    truths: dict[str, bool] = {
        "=": order == 0,
        "!=": order != 0,
        "<>": order != 0,
        "<": order < 0,
        "<=": order <= 0,
        ">": order > 0,
        ">=": order >= 0,
    }
    return truths[sign]


RANK = {False: 0, None: 1, True: 2}


def brute(tree: Tree, facts: dict[str, Any]) -> bool | None:
    match tree:
        case ("compare", sign, left, right):
            return compared(sign, looked_up(left, facts), looked_up(right, facts))
        case ("IN" | "NIN" as word, left, values):
            value = looked_up(left, facts)
            found = [compared("=", value, looked_up(each, facts)) for each in values]
            among = max(found, key=lambda truth: RANK[truth])
            return among if word == "IN" or among is None else not among
        case ("defined", path):
            return looked_up(("path", path), facts) is not None
        case ("NOT", inner):
            answer = brute(inner, facts)
            return None if answer is None else not answer
        case ("AND", left, right):
            return min(brute(left, facts), brute(right, facts), key=lambda truth: RANK[truth])
        case (_, left, right):
            return max(brute(left, facts), brute(right, facts), key=lambda truth: RANK[truth])
    raise AssertionError(tree)


@given(trees, devices)
def test_the_parser_agrees_with_brute_force(tree: Tree, facts: dict[str, Any]) -> None:
    text = written(tree)

    assert parse_condition(text).matches(facts) is (brute(tree, facts) is True)
    assert parse_condition(f"NOT ({text})").matches(facts) is (brute(tree, facts) is False)
