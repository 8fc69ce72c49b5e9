"""Each test process keeps to one core, and so do the commands that it starts."""

import os

# Set before torch is imported: a thread pool as wide as the machine in each test process slows all of them down.
os.environ.setdefault("OMP_NUM_THREADS", "1")
