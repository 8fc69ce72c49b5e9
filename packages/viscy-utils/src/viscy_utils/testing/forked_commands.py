"""The process behind :class:`viscy_utils.testing.commands.Commands`: it forks when all is imported.

Its arguments are modules to import. Reads a JSON line per job, a list of processes that run side by side, and answers
with how each has ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
from types import ModuleType
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from viscy_utils.testing.faults import kill_at


def _run(process: dict[str, Any]) -> None:
    os.setsid()
    out = os.open(process["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.chdir(process["cwd"])
    os.environ.update(process["env"])
    rank_zero_only.rank = int(os.environ.get("RANK", "0"))  # as Lightning finds it when it is imported
    if "kill_at" in process:
        kill_at(process["kill_at"], process["folder"])
    module, name = process["call"]
    sys.argv = [module.partition(".")[0], *process["argv"]]
    getattr(importlib.import_module(module), name)(**process["options"])


def run_program(code: str) -> None:
    """Run a program as ``python -c`` does, in the process of this one."""
    main = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), vars(main))  # noqa: S102 - a test's own program


def _fork(process: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _run(process)
        code = 0
    except SystemExit as err:
        code = err.code if isinstance(err.code, int) else int(err.code is not None)
    except BaseException:  # noqa: BLE001 - shown and told by the exit code
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _wait(pids: list[int], seconds: float) -> list[dict[str, Any]]:
    """Wait for all; those that are left over are killed, and their code is None."""
    begun, ended = time.monotonic(), {}
    while len(ended) < len(pids) and time.monotonic() - begun < seconds:
        for pid in set(pids) - ended.keys():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                ended[pid] = {"code": os.waitstatus_to_exitcode(status), "at": time.monotonic() - begun}
        time.sleep(0.01)
    for pid in set(pids) - ended.keys():
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        ended[pid] = {"code": None, "at": seconds}
    return [ended[pid] for pid in pids]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for preloaded in sys.argv[1:]:
        importlib.import_module(preloaded)
    _say("ready")
    for line in sys.stdin:
        job = json.loads(line)
        _say(json.dumps(_wait([_fork(process) for process in job["processes"]], job["seconds"])))
    os._exit(0)  # at once: to tear down all that was imported takes seconds
