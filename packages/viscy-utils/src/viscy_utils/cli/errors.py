"""Errors at the command line: one short paragraph and an exit code instead of a traceback.

Exit code 2 says that the input is at fault (a config, a path, a value), 1 that anything else went wrong. With
``VISCY_DEBUG=1`` the traceback is printed as well.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from viscy_data.errors import InputError, is_input_error

__all__ = ["exit_code_of", "report_errors"]

# Files that the user names and that are, or are not, there.
_PATH_ERRORS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)


@contextmanager
def report_errors(prog: str = "viscy") -> Iterator[None]:
    """Turn an exception into one paragraph on standard error and an exit code.

    Usable as ``with report_errors():`` and as a decorator. ``SystemExit`` passes through.

    Parameters
    ----------
    prog : str, default "viscy"
        Name of the command, the first word of the message.

    Raises
    ------
    SystemExit
        With 2 for bad input, 1 for any other error, 130 after Ctrl-C.

    Examples
    --------
    >>> with report_errors("viscy"):
    ...     pass
    """
    try:
        yield
    except KeyboardInterrupt as err:
        sys.stderr.write(f"{prog}: interrupted{'; ' if str(err) else ''}{err}\n")
        raise SystemExit(130) from err
    except Exception as err:
        if os.environ.get("VISCY_DEBUG", "0") not in ("", "0"):
            traceback.print_exception(err)
        code = exit_code_of(err)
        sys.stderr.write(f"{prog}: error: {_describe(err, code)}\n")
        raise SystemExit(code) from err


def exit_code_of(error: BaseException) -> int:
    """Tell bad input (2) from any other error (1).

    Parameters
    ----------
    error : BaseException

    Returns
    -------
    int
        2 for an error about input (:func:`viscy_data.errors.is_input_error`), for files that are missing or in the way,
        and for settings that Lightning refuses; else 1.
    """
    if is_input_error(error) or isinstance(error, _PATH_ERRORS):
        return 2
    # Lightning's; not imported here, it takes seconds
    return 2 if type(error).__name__ == "MisconfigurationException" else 1


def _describe(error: Exception, code: int) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    kind = type(error).__name__
    is_told = isinstance(error, InputError | FileExistsError)  # in words of ours
    lines = [text.strip() if is_told else f"{text.strip()} ({kind})" if text.strip() else kind]
    lines += [f"  {note}" for note in getattr(error, "__notes__", [])]
    if code != 2:
        lines.append("  set VISCY_DEBUG=1 to see where it happened")
    return "\n".join(lines)
