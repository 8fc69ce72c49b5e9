"""Each test process, and each command that it starts, keeps to one core; drawn cases are counted."""

import os
import tempfile

# Set before torch is imported: a thread pool as wide as the machine in each test process slows all of them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests start some fifty commands, and most of a command's time would be compiling its imports anew. Where bytecode is
# not to be kept, it is kept outside the tree until the first test process ends; the others inherit the folder.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    _bytecode = tempfile.TemporaryDirectory(prefix="bytecode-")
    os.environ["PYTHONPYCACHEPREFIX"] = _bytecode.name


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
