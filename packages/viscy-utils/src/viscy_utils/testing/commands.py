"""Commands of an application in forks of one process: dozens of kills for the price of one import of torch.

Needs forks, so not on Windows.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Commands"]

_SERVER = "viscy_utils.testing.forked_commands"


class Commands:
    """Runs commands in a folder.

    Parameters
    ----------
    prog : str or None
        The application, whose module ``<prog>.cli`` has a ``main``; None for functions and programs alone.
    folder : Path
        In which they run.
    preloaded : sequence of str, optional
        Modules to import before the forks.
    search : Path, optional
        A folder of further modules.
    """

    def __init__(
        self, prog: str | None, folder: Path, preloaded: Sequence[str] = (), search: Path | None = None
    ) -> None:
        self.prog, self.folder = prog, folder
        places = [str(search)] if search is not None else []
        path = os.pathsep.join([*places, *filter(None, [os.environ.get("PYTHONPATH")])])
        imported = [*([f"{prog}.cli"] if prog else []), *preloaded]
        self._server = subprocess.Popen(
            [sys.executable, "-m", _SERVER, *imported],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
        )
        if self._server.stdout.readline() != "ready\n":
            raise RuntimeError("the process that runs the commands has not begun")

    def run(
        self,
        *args: str,
        call: tuple[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        ranks: int = 1,
        seconds: float = 60.0,
        faults: Sequence[Mapping[str, Any]] = (),
    ) -> list[dict[str, Any]]:
        """Run a command, or a function, on some ranks.

        Parameters
        ----------
        *args
            Of the command.
        call : (str, str), optional
            Module and name of a function to call in place of the command.
        options : mapping, optional
            Its arguments.
        ranks : int, default 1
        seconds : float, default 60
            After which it is killed.
        faults : sequence of mapping, optional
            ``kill_at`` and ``folder`` of :func:`viscy_utils.testing.faults.kill_at` for the first ranks.

        Returns
        -------
        list of dict
            How each has ended: ``code``, None for those that were left over, and ``at``, in seconds.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        parallel = [f"--trainer.devices={ranks}", "--trainer.strategy=ddp"] if ranks > 1 and call is None else []
        shared = {"cwd": str(self.folder), "call": call or (f"{self.prog}.cli", "main"), "options": dict(options or {})}
        processes = []
        for rank in range(ranks):
            env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks), "RANK": str(rank)}
            env |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
            env |= {"TORCHELASTIC_RUN_ID": "test"}
            out = self.folder / f"out{rank}"
            out.unlink(missing_ok=True)
            own = {"argv": [*args, *parallel], "out": str(out), "env": env if ranks > 1 else {}}
            processes.append({**shared, **own, **(faults[rank] if rank < len(faults) else {})})
        self._server.stdin.write(json.dumps({"processes": processes, "seconds": seconds}) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def codes(self, *args: str, **options: Any) -> list[int | None]:
        """Run, and return the exit codes alone."""
        return [ended["code"] for ended in self.run(*args, **options)]

    def run_program(self, code: str, folder: Path, seconds: float = 120.0) -> str | None:
        """Run a program in a folder; returns what it has written if it fails, None if it does not."""
        self.folder = folder
        [ended] = self.run(call=(_SERVER, "run_program"), options={"code": code}, seconds=seconds)
        return None if ended["code"] == 0 else f"{ended}\n{self.said()}"

    def said(self, rank: int = 0) -> str:
        """Return what a rank of the last command has written."""
        return (self.folder / f"out{rank}").read_text()

    def close(self) -> None:
        """End the process."""
        self._server.stdin.close()
        self._server.wait(timeout=30)
        self._server.stdout.close()
