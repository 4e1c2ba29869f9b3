"""fedft: hospitals and banks fine-tune one language model together without sharing a record."""

import os as _os

# A waiting OpenMP thread spins for milliseconds by default: beside another busy process that made a training step of a
# small model 4.8 times slower on 2 cores. Spinning this short costs 5 % on an idle machine (LAB.md). Read with torch.
_os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# numpy's OpenBLAS has threads of its own that spin after each product: beside torch's, on 2 cores, local training took
# twice as long. What numpy multiplies here is small. Read with numpy.
_os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
