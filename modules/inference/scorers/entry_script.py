"""Hosts an Azure ML v1 entry script unmodified: init() once, run() per request.

Decides how the script's run() wants its input. Never shows a client what the script raised.
"""

import asyncio
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import StartupCode, StartupError
from ..exchange import ScoreRequest
from .script_input import as_arguments, as_text

MODULE_NAME = "entry_module"
RAW_REQUEST_MODULE = "azureml.contrib.services.aml_request"

Read = Callable[[ScoreRequest], dict[str, object]]


class EntryScript:
    """A Scorer made of the init() and run() of one Python file."""

    def __init__(self, path: Path) -> None:
        """Name the script; nothing of it runs before init()."""
        self.raw_http = False
        self._path = path
        self._run: Callable[..., Any] = lambda: None
        self._read: Read = lambda _: {}
        self._headers_wanted = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def init(self) -> None:
        """Import the script, inspect it and get it ready; StartupError if one fails."""
        module = _import(self._path)
        for name in ("init", "run"):
            if not callable(getattr(module, name, None)):
                raise _invalid(f"entry script '{self._path}' does not define {name}()")
        # A generated driver script only forwards run(), so the wrapped script's own is called.
        driver = getattr(module, "driver_module", None)
        inner = driver if isinstance(driver, ModuleType) and hasattr(driver, "run") else module
        self._run = inner.run
        self._inspect()
        try:
            self._finish(module.init())
        except (Exception, SystemExit) as error:
            raise StartupError(
                StartupCode.INIT_FAILED,
                f"init() of '{self._path}' raised {type(error).__name__}: {error}",
                hint="the traceback is above; check AZUREML_MODEL_DIR and the image's packages",
            ) from error

    def read(self, request: ScoreRequest) -> dict[str, object]:
        """Return the keyword arguments for run()."""
        arguments = self._read(request)
        if self._headers_wanted:
            arguments["request_headers"] = {k.title(): v for k, v in request.headers}
        return arguments

    def run(self, arguments: dict[str, object]) -> object:
        """Return what the script's function returns, awaited if it is asynchronous."""
        return self._finish(self._run(**arguments))

    def describe(self) -> dict[str, object]:
        """Name the script; what its model takes only the script knows."""
        ort = sys.modules.get("onnxruntime")
        version = getattr(ort, "__version__", None)
        return {
            "engine": {"name": "entry-script", "script": self._path.name, "onnxruntime": version},
            "inputs": [],
            "outputs": [],
        }

    def _finish(self, result: object) -> object:
        if not inspect.iscoroutine(result):
            return result
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        return self._wait(self._loop, result)

    def _wait(self, loop: asyncio.AbstractEventLoop, result: Coroutine[Any, Any, object]) -> object:
        task = loop.create_task(result)
        try:
            return loop.run_until_complete(task)
        finally:
            if not task.done():  # the deadline cut in: the coroutine must not go on later
                task.cancel()
                loop.run_until_complete(asyncio.gather(task, return_exceptions=True))

    def _inspect(self) -> None:
        parameters = list(inspect.signature(self._run).parameters.values())
        usual = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if any(parameter.kind not in usual for parameter in parameters):
            raise _invalid("run() cannot accept positional-only arguments, *args, or **kwargs.")
        inputs = [parameter for parameter in parameters if parameter.name != "request_headers"]
        self._headers_wanted = len(inputs) < len(parameters)
        if not inputs:
            other = ' other than "request_headers"' if self._headers_wanted else " for input data"
            raise _invalid(f"run() needs to accept an argument{other}.")
        self._read = self._choose_reader(inputs)

    def _choose_reader(self, inputs: list[inspect.Parameter]) -> Read:
        first = inputs[0].name
        raw = sys.modules.get(RAW_REQUEST_MODULE)
        self.raw_http = bool(getattr(raw, "raw_functions", ()))
        decorated = _is_schema_decorated(self._run)
        if self.raw_http and decorated:
            raise _invalid("run() cannot be decorated with both @rawhttp and @input_schema")
        if self.raw_http and raw is not None:
            make = raw.AMLRequest
            return lambda request: {first: _raw_request(make, request)}
        if decorated:
            return lambda request: as_arguments(request, inputs)
        return lambda request: {first: as_text(request)}


def _raw_request(make: Callable[..., object], request: ScoreRequest) -> object:
    return make(
        request.method,
        request.path,
        query=request.query,
        headers=request.headers,
        body=request.body,
        host=request.host,
    )


def _is_schema_decorated(run: Callable[..., Any]) -> bool:
    # Only a script that imported inference-schema can have used its decorators.
    if "inference_schema" not in sys.modules:
        return False
    return bool(importlib.import_module("inference_schema.schema_util").is_schema_decorated(run))


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise _invalid(f"entry script '{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _invalid(
            f"importing entry script '{path}' raised {type(error).__name__}: {error}"
        ) from error
    return module


def _invalid(message: str) -> StartupError:
    return StartupError(
        StartupCode.ENTRY_SCRIPT_INVALID,
        message,
        hint="an entry script defines `init()` and `run(data)` and imports only installed packages",
    )
