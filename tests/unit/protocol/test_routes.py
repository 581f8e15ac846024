"""Routes: which messages go where, and what is refused with its reason."""

from __future__ import annotations

import pytest
import strategies
from hostile import refusal
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Code, InvalidError
from protocol.routes import Route, parse_route


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM /* INTO $upstream", Route("/", exact=False, sink="upstream")),
        ("FROM /messages/* INTO $upstream", Route("/messages/", exact=False, sink="upstream")),
        (
            "  select *\nfrom /messages/modules/*\tinto $UPSTREAM ",
            Route("/messages/modules/", exact=False, sink="upstream"),
        ),
        (
            "FROM /messages/modules/a/* INTO $upstream",
            Route("/messages/modules/a/", exact=False, sink="upstream"),
        ),
        (
            "FROM /messages/modules/a/outputs/* INTO $upstream",
            Route("/messages/modules/a/outputs/", exact=False, sink="upstream"),
        ),
        (
            'FROM /messages/modules/a/outputs/o INTO BrokeredEndpoint("/modules/b/inputs/i")',
            Route(
                "/messages/modules/a/outputs/o", exact=True, sink="module", module="b", input="i"
            ),
        ),
        (
            "FROM /messages/* INTO brokeredendpoint( '/modules/b/inputs/i' )",
            Route("/messages/", exact=False, sink="module", module="b", input="i"),
        ),
    ],
)
def test_reads(text: str, expected: Route) -> None:
    assert parse_route(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cannot be read"),
        ("INTO $upstream", "cannot be read"),
        ("FROM /messages/*", "cannot be read"),
        ("FROM /messages/* INTO ", "cannot be read"),
        ("FROM messages INTO $upstream", "cannot be read"),
        ("FROM /messages/* WHERE a = 1 INTO $upstream", "a WHERE condition is not supported"),
        ("FROM /messages/* where 'x INTO y' = z INTO $upstream", "WHERE condition"),
        ("FROM /twinChangeNotifications INTO $upstream", "source '/twinChangeNotifications'"),
        ("FROM /messages/modules INTO $upstream", "source"),
        ("FROM /messages/modules/a/inputs/i INTO $upstream", "source"),
        ("FROM /messages/* INTO $downstream", "sink"),
        ("FROM /messages/* INTO upstream", "sink"),
        ('FROM /messages/* INTO BrokeredEndpoint("/modules/b")', "sink"),
        ("FROM /messages/* INTO BrokeredEndpoint(\"/modules/b/inputs/i')", "sink"),
    ],
)
def test_refuses(text: str, why: str) -> None:
    with pytest.raises(InvalidError, match=why) as caught:
        parse_route(text)
    assert caught.value.code is Code.MANIFEST_INVALID
    assert caught.value.hint


@pytest.mark.parametrize(
    ("source", "module", "output", "expected"),
    [
        ("/*", "a", "o", True),
        ("/messages/*", "a", "o", True),
        ("/messages/modules/a/*", "a", "o", True),
        ("/messages/modules/a/*", "ab", "o", False),
        ("/messages/modules/a/outputs/*", "a", "o", True),
        ("/messages/modules/a/outputs/o", "a", "o", True),
        ("/messages/modules/a/outputs/o", "a", "oo", False),
        ("/messages/modules/a/outputs/o", "b", "o", False),
    ],
)
def test_matches(source: str, module: str, output: str, *, expected: bool) -> None:
    route = parse_route(f"FROM {source} INTO $upstream")

    assert route.matches(module, output) is expected


@given(module=strategies.module_names, output=strategies.module_names)
def test_everything_takes_the_route_for_everything(module: str, output: str) -> None:
    assert parse_route("FROM /* INTO $upstream").matches(module, output)


@pytest.mark.parametrize(
    "text",
    [
        "FROM /a WHERE" + " " * 200_000,
        "FROM /* WHERE " + " INTO" * 40_000,
        "FROM /" + "a" * 200_000,
        " " * 300_000,
        "SELECT" + " " * 200_000,
        "FROM /* INTO" + " " * 200_000 + "x",
    ],
    ids=["where", "into", "source", "blank", "select", "sink"],
)
def test_long_nonsense_is_refused_in_linear_time(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_route(text)
    assert len(str(caught.value)) < 200


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    assert refusal(parse_route, text) in {None, Code.MANIFEST_INVALID}
