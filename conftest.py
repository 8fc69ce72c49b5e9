"""Each test process, and each command that it starts, keeps to one core and shares compiled imports with the others."""

import os
import tempfile

# Set before torch is imported: a thread pool as wide as the machine in each test process slows all of them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests start some fifty commands, and most of a command's time would be compiling its imports anew. Where bytecode is
# not to be kept, it is kept outside the tree until the first test process ends; the others inherit the folder.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    _bytecode = tempfile.TemporaryDirectory(prefix="bytecode-")
    os.environ["PYTHONPYCACHEPREFIX"] = _bytecode.name
