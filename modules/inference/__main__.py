"""`python -m inference`: serve the model of this image until told to stop.

Puts the parts together: the main thread runs the user's code, a second one HTTP. The user's code
gets the main thread because signals, and so the scoring timeout, reach only that one.
"""

import atexit
import faulthandler
import logging
import os
import sys
import traceback

from .bootstrap import choose_scorer, extend_path, read_golden
from .errors import StartupCode, StartupError
from .settings import Settings, read_settings
from .status import Status, golden_verdict
from .web.pending import Dispatcher
from .web.routes import Routes
from .web.server import HttpThread, listen, watch_signals
from .worker import Worker

log = logging.getLogger("rimward.inference")

# Here the traceback is the script's, and its owner needs it.
_CODES_OF_USER_CODE = (StartupCode.INIT_FAILED, StartupCode.ENTRY_SCRIPT_INVALID)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartupError if that cannot begin."""
    scorer = choose_scorer(settings)
    golden = read_golden(settings)
    listener = listen(settings)
    extend_path(settings)
    status = Status()
    worker = Worker(scorer, settings.scoring_timeout_ms)
    routes = Routes(settings, status, Dispatcher(worker.submit, settings.scoring_timeout_ms))
    HttpThread(routes, listener, watch_signals(), worker.stop, drain_ms=settings.drain_ms).start()
    scorer.init()
    status.raw_http = scorer.raw_http
    status.model = scorer.describe()
    status.initialised = True
    status.reason = "golden samples are being checked" if golden else None
    if golden is not None:
        status.reason = golden_verdict(golden, worker.answer)
    if status.reason is not None:
        log.error("not ready: %s", status.reason)
    worker.work()


def main() -> None:
    """Run the server; never returns."""
    _set_up_output()
    code = 0
    try:
        serve(read_settings())
    except StartupError as error:
        if error.code in _CODES_OF_USER_CODE and error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        sys.stderr.write(f"error[{error.code}]: {error}\nhint: {error.hint}\n")
        code = 1
    except BaseException:  # noqa: BLE001 - the process entry point: whatever it is, say so and end
        traceback.print_exc()
        code = 70
    _leave(code)


def _set_up_output() -> None:
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        # Lines of the user's print() must reach the log while the server lives.
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a text file here
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s - %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _leave(code: int) -> None:
    # granian's threads panic, with text on stderr, when the interpreter is torn down under them.
    atexit._run_exitfuncs()  # noqa: SLF001 - what a normal exit would have called
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
