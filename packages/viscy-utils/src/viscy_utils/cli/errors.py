"""Errors at the command line: one short paragraph and an exit code instead of a traceback.

Exit code 2 says that the input is at fault (a config, a path, a value), 1 that anything else went wrong. With
``VISCY_DEBUG=1`` the traceback is printed as well.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from viscy_data.errors import InputError, is_input_error
from viscy_data.files import missing_path

__all__ = ["BAD_INPUT", "exit_code_of", "report_errors"]

BAD_INPUT, FAULT, OF_SIGNAL = 2, 1, 128
"""Exit codes; the number of a signal is added to the last."""

# Files that the user names and that are, or are not, there.
_PATH_ERRORS = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
_FOUND = {
    errno.ENOENT: "no such file",
    errno.EEXIST: "a file where a folder is to be",
    errno.ENOTDIR: "a file where a folder is to be",
    errno.EISDIR: "a folder where a file is to be",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "a file system that is read-only",
}
_MOST_CHARACTERS = 600


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
        With 2 for bad input, 1 for any other error; after a signal 128 and its number: 130 after Ctrl-C, 143 after
        SIGTERM.

    Examples
    --------
    >>> with report_errors("viscy"):
    ...     pass
    """
    try:
        yield
    except KeyboardInterrupt as err:
        sys.stderr.write(f"{prog}: interrupted{'; ' if str(err) else ''}{err}\n")
        raise SystemExit(OF_SIGNAL + getattr(err, "signal", signal.SIGINT)) from err
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
    is_of_path = isinstance(error, _PATH_ERRORS) or (isinstance(error, OSError) and error.errno == errno.EROFS)
    if is_input_error(error) or is_of_path:
        return BAD_INPUT
    # Lightning's; not imported here, it takes seconds
    return BAD_INPUT if type(error).__name__ == "MisconfigurationException" else FAULT


def _describe(error: Exception, code: int) -> str:
    if isinstance(error, InputError):
        lines = [str(error)]
    elif isinstance(error, OSError) and error.filename is not None and error.errno in _FOUND:
        lines = [str(_of_system(error))]
    else:
        text = (str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)).strip()
        text = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} ..."  # a library's lists of names
        kind = type(error).__name__
        is_told = isinstance(error, FileExistsError)  # in words of ours
        lines = [text if is_told else f"{text} ({kind})" if text else kind]
    lines += [f"  {note}" for note in getattr(error, "__notes__", [])]
    if code != BAD_INPUT:
        lines.append("  set VISCY_DEBUG=1 to see where it happened")
    return "\n".join(lines)


def _of_system(error: OSError) -> InputError:
    """Word what the operating system says of a file."""
    if error.errno == errno.ENOENT:
        return missing_path(error.filename, fix="check the path")
    fix = "name a place that you may write to" if error.errno == errno.EROFS else "name another path"
    return InputError(str(error.filename), found=_FOUND[error.errno], fix=fix)
