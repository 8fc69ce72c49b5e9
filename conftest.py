"""Each test process, and each command that it starts, keeps to one core; files go with the run; cases are counted."""

import os
import tempfile
from multiprocessing.util import get_temp_dir

import pytest

# Set before torch is imported: a thread pool as wide as the machine in each test process slows all of them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_LONGEST = 70  # of a folder for temporary files: paths of sockets, 32 longer, have to stay below 104 bytes


@pytest.fixture(scope="session", autouse=True)
def _files_go_with_the_run(tmp_path_factory):
    """Have temporary files of examples, workers and commands where pytest removes them, also after it was killed."""
    get_temp_dir()  # multiprocessing removes its own, and has to find it when this process ends
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("files"))
        if len(folder) <= _LONGEST:
            patch.setenv("TMPDIR", folder)
            patch.setattr(tempfile, "tempdir", folder)
        # Tests start some fifty commands, and most of a command's time would be compiling its imports anew. Where
        # bytecode is not to be kept, it is kept there, for all processes of xdist, whose folders lie in one.
        if os.environ.get("PYTHONDONTWRITEBYTECODE"):
            base = tmp_path_factory.getbasetemp()
            shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
            patch.delenv("PYTHONDONTWRITEBYTECODE")
            patch.setenv("PYTHONPYCACHEPREFIX", str(shared / "bytecode"))
        yield


def pytest_addoption(parser):
    """Let a run say how many drawn cases it has to try, so that they cannot become fewer unnoticed."""
    parser.addoption("--least-cases", type=int, default=0, help="fail where fewer drawn cases (`-m fuzz`) were tried")


def _n_cases(config):
    """Count the drawn cases of the tests that have passed; None in the processes of xdist, which do not know of all."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput"):
        return None
    return sum(dict(report.user_properties).get("cases", 0) for report in reporter.stats.get("passed", ()))


def pytest_terminal_summary(terminalreporter, config):
    """Say how many cases were drawn."""
    if n_cases := _n_cases(config):
        terminalreporter.write_line(f"{n_cases} drawn cases")


def pytest_sessionfinish(session):
    """Fail where they are too few."""
    n_cases, least = _n_cases(session.config), session.config.getoption("least_cases")
    if n_cases is not None and n_cases < least:
        session.config.get_terminal_writer().line(f"\n{n_cases} drawn cases, expected at least {least}", red=True)
        session.exitstatus = 1
