"""Break the code in one place at a time, and see whether a test notices.

Run ``uv run python tools/mutants.py`` (all of ``mutant_list.py``) or ``uv run python tools/mutants.py sampler probe``
(groups). Each mutant is tried in a copy of its package, with its own tests only; the working tree stays as it is. It
prints the mutants that no test notices, and exits with 1 if there is one. A mutant whose text is not found exactly once
is refused: correct the list.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from mutant_list import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of plugins that come with what is imported before
PASSED, FAILED = 0, (1, 2)  # 2: what is imported is broken already
UNABLE = 70
LIMIT_SECONDS = 300


def main() -> int:
    """Try the mutants of the groups that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", help="all by default")
    parser.add_argument("--jobs", type=int, default=2, help="tests at a time")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not arguments.groups or mutant.group in arguments.groups]
    problems = [problem for mutant in chosen if (problem := misfit(mutant))]
    if problems or not chosen:
        print("\n".join(problems) or f"no such group: there are {', '.join(sorted({m.group for m in MUTANTS}))}")
        return 2
    import_slow_modules()
    tests = list(dict.fromkeys(mutant.tests for mutant in chosen))
    broken = [name for name, passed in run_all([(None, each) for each in tests], arguments.jobs) if not passed]
    if broken:
        print("these fail without any mutant:", *broken, sep="\n  ")
        return 2
    survivors = [name for name, passed in run_all([(each, each.tests) for each in chosen], arguments.jobs) if passed]
    print(f"{len(chosen)} mutants, {len(survivors)} survive{':' if survivors else ''}", *survivors, sep="\n  ")
    return 1 if survivors else 0


def misfit(mutant: Mutant) -> str | None:
    """Say what is wrong with an entry of the list."""
    path = ROOT / mutant.file
    found = path.read_text().count(mutant.old) if path.is_file() else 0
    return None if found == 1 else f"{mutant.file}: found {found} times, expected once: {mutant.old!r}"


def import_slow_modules() -> None:
    """Import what takes seconds once, before the processes divide; nothing of ours, and nothing that starts threads."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in ("pandas", "torch", "lightning.pytorch", "sklearn.linear_model", "monai.transforms"):
        __import__(name)


def run_all(jobs: Sequence[tuple[Mutant | None, tuple[str, ...]]], n_at_once: int) -> Iterator[tuple[str, bool]]:
    """Run tests, some at a time; yield of each what it is and whether they pass, in any order."""
    waiting, running = list(jobs), {}
    while waiting or running:
        while waiting and len(running) < n_at_once:
            mutant, tests = waiting.pop(0)
            folder = Path(tempfile.mkdtemp(prefix="mutant_"))
            running[start(mutant, tests, folder)] = (mutant, tests, folder, time.monotonic())
        for process in list(running):
            done, status = os.waitpid(process, os.WNOHANG)
            mutant, tests, folder, begin = running[process]
            if not done and time.monotonic() - begin < LIMIT_SECONDS:
                continue
            if not done:  # it hangs, which somebody would notice
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                status = FAILED[0] << 8
            del running[process]
            name = (
                " ".join(tests)
                if mutant is None
                else f"{mutant.file}: {mutant.old.strip()!r} -> {mutant.new.strip()!r}"
            )
            code = os.waitstatus_to_exitcode(status)
            if code not in (PASSED, *FAILED):
                raise SystemExit(f"{name}: pytest did not run, see {folder / 'output'}")
            shutil.rmtree(folder)
            print(f"{'passes' if code == PASSED else 'fails '} {name}", flush=True)
            yield name, code == PASSED
        time.sleep(0.05)


def start(mutant: Mutant | None, tests: Sequence[str], folder: Path) -> int:
    """Begin tests in a process of their own, which sees the changed package first."""
    if mutant is not None:
        source = ROOT / Path(*Path(mutant.file).parts[:3])
        shutil.copytree(source, folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
        changed = folder / "src" / (ROOT / mutant.file).relative_to(source)
        changed.write_text(changed.read_text().replace(mutant.old, mutant.new))
    process = os.fork()
    if process:
        return process
    try:
        os.chdir(ROOT)
        sys.path.insert(0, str(folder / "src"))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "src"), os.environ.get("PYTHONPATH", "")])
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        import pytest

        os._exit(int(pytest.main([*OPTIONS, f"--basetemp={folder / 'tmp'}", *tests])))
    except BaseException:  # noqa: BLE001  # whatever it is: nothing may go on in the copy of this process
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(UNABLE)


if __name__ == "__main__":
    sys.exit(main())
