"""Is this file an entry script? Decided by reading it; it is never run here."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from protocol.errors import Code, InvalidError

SCRIPT_LIMIT = 1024 * 1024


def check_entry_script(source: bytes, path: str) -> None:
    """Return when the file defines `init` and `run` at its top level.

    Raises:
        InvalidError: `script-invalid`.
    """
    if len(source) > SCRIPT_LIMIT:
        raise _invalid(f"entry script '{path}' has more than {SCRIPT_LIMIT} bytes", "make it small")
    try:
        tree = ast.parse(source, filename=path)
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise _invalid(
            f"entry script '{path}' is not valid Python{where}: {error.msg}", "correct the script"
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise _invalid(f"entry script '{path}' cannot be read", "correct the script") from error
    defined = set(_names(tree.body))
    for name in ("init", "run"):
        if name not in defined:
            raise _invalid(
                f"entry script '{path}' does not define '{name}'",
                f"add a function '{name}' at the top level of the script",
            )


def _names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield what a module's statements define, also inside `if`, `try` and `with`."""
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield statement.name
            case ast.Assign():
                yield from (t.id for t in statement.targets if isinstance(t, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name for alias in statement.names)
            case ast.If() | ast.Try() | ast.With():
                for block in ("body", "orelse", "finalbody"):
                    yield from _names(getattr(statement, block, []))
                for handler in getattr(statement, "handlers", []):
                    yield from _names(handler.body)


def _invalid(message: str, hint: str) -> InvalidError:
    return InvalidError(message, code=Code.SCRIPT_INVALID, hint=hint)
