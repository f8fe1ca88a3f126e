"""The command line: each verb a few lines; heavy things are imported where they are used."""

from __future__ import annotations

import errno
import sys
from typing import NoReturn

#: Exit codes (design 6).
USAGE, INTERRUPTED, ENVIRONMENT = 2, 3, 4
_MACHINE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


def main() -> NoReturn:
    """Run the command line; every foreseeable error is one paragraph and its exit code, never a traceback."""
    from orchestrator.cli.app import app
    from orchestrator.errors import OrchestratorError
    from workers.errors import InputError, WorkersError

    try:
        code = app(standalone_mode=False) or 0
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
        _say(f"{error.filename or 'the machine'}: {error.strerror or error}.")
        code = ENVIRONMENT if error.errno in _MACHINE_ERRORS else USAGE
    except Exception as error:
        # Usage errors are of the command-line library, whichever of its forks is installed.
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            if type(error).__name__ == "Abort":
                sys.exit(INTERRUPTED)
            raise
        error.show()
        code = error.exit_code
    sys.exit(code)


def _say(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
