"""The engine's create options inside a manifest: one JSON text, split over several keys when long.

Decides how the pieces `createOptions`, `createOptions01`, ... become one text. What the options
mean is the container engine's business.
"""

from __future__ import annotations

from typing import Any

import msgspec

from protocol import strict_json
from protocol.errors import Code, InvalidError

_KEY = "createOptions"
_MAX_PIECES = 100
_LIMIT_BYTES = 1024 * 1024


def join_create_options(agent: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a copy of `$edgeAgent`'s properties in which every split text is whole.

    Parts of another type than they should have are left for the caller's own check.

    Args:
        agent: The desired properties of `$edgeAgent`.
        path: Where they stand in the manifest, for errors.

    Raises:
        InvalidError: `manifest-invalid`, for a gap in the numbering, a piece that is not a text, or
            a text that is not a JSON object.
    """
    out = dict(agent)
    for group in ("modules", "systemModules"):
        if isinstance(modules := agent.get(group), dict):
            out[group] = {
                name: _with_joined(module, f"{path}.{group}.{name}.settings")
                for name, module in modules.items()
            }
    return out


def _with_joined(module: Any, path: str) -> Any:
    settings = module.get("settings") if isinstance(module, dict) else None
    if not isinstance(settings, dict):
        return module
    pieces = {key: value for key, value in settings.items() if key.startswith(_KEY)}
    if not pieces:
        return module
    rest = {key: value for key, value in settings.items() if key not in pieces}
    return {**module, "settings": {**rest, _KEY: _join(pieces, f"{path}.{_KEY}")}}


def _join(pieces: dict[str, Any], path: str) -> str:
    names = [_KEY, *(f"{_KEY}{number:02d}" for number in range(1, len(pieces)))]
    if len(names) > _MAX_PIECES or set(names) != pieces.keys():
        raise _refuse(path, "has a gap in its numbering", "number the pieces 01, 02, ... 99")
    whole = pieces[_KEY]
    if isinstance(whole, dict) and len(pieces) == 1:
        raw = _encode(whole, path)  # `az iot edge` accepts an object and makes it a text
    elif all(isinstance(piece, str) for piece in pieces.values()):
        raw = _encode("".join(pieces[name] for name in names) or "{}", path)
    else:
        raise _refuse(path, "is not a text", "write the JSON as a string")
    strict_json.parse_object(raw, limit=_LIMIT_BYTES, code=Code.MANIFEST_INVALID, what=repr(path))
    return raw.decode()


def _encode(options: dict[str, Any] | str, path: str) -> bytes:
    try:
        return options.encode() if isinstance(options, str) else msgspec.json.encode(options)
    except (ValueError, OverflowError, RecursionError) as error:
        raise _refuse(path, f"cannot be written as JSON: {error}", "write less into it") from error


def _refuse(path: str, problem: str, hint: str) -> InvalidError:
    return InvalidError(f"{path[:300]!r} {problem}", code=Code.MANIFEST_INVALID, hint=hint)
