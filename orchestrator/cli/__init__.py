"""The command line: each verb a few lines; heavy things are imported where they are used."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import sys
import threading
import traceback
from typing import NoReturn

#: Exit codes (design 6).
USAGE, INTERRUPTED, ENVIRONMENT = 2, 3, 4
#: What typer turns a KeyboardInterrupt into.
_TYPER_INTERRUPTED = 130
_MACHINE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


def main() -> NoReturn:
    """Run the command line; every foreseeable error is one paragraph and its exit code, never a traceback."""
    from orchestrator.cli.app import app
    from orchestrator.errors import OrchestratorError
    from workers.errors import InputError, WorkersError

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever asks for the end, it is the same end
    try:
        code = app(standalone_mode=False) or 0
        if code == _TYPER_INTERRUPTED:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        _say("interrupted; nothing is lost, running the same command goes on.")
        code = INTERRUPTED
    except OrchestratorError as error:
        _say(str(error))
        code = error.exit_code
    except WorkersError as error:
        _say(str(error))
        code = USAGE if isinstance(error, InputError) else ENVIRONMENT
    except OSError as error:
        where = error.filename or "the machine"
        _say(f"{where}: {error.strerror or error}; check that it exists, is writable and has room.")
        code = ENVIRONMENT if error.errno in _MACHINE_ERRORS else USAGE
    except Exception as error:
        # Usage errors are of the command-line library, whichever of its forks is installed.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            code = error.exit_code
        elif type(error).__name__ == "Abort":
            code = INTERRUPTED
        else:
            traceback.print_exc()
            _say("this is a defect of roadtest, please report it with the lines above; nothing committed is lost.")
            code = ENVIRONMENT
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End now: a worker thread of an interrupted run cannot be stopped, and nobody takes what it still computes."""
    if any(thread.name.startswith("roadtest-worker") for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()  # or the interpreter looks for cycles among all that was imported before it ends: up to a second
    sys.exit(code)


def _say(message: str) -> None:
    from orchestrator.cli.output import plain

    sys.stderr.write(f"error: {plain(message)}\n")
