"""One thread an operation, also in child processes: small operations gain nothing from more, and lose much to waiting
for each other when another process wants the cores (LOG.md, "threads of small models").
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
