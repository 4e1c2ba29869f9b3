"""Base models, their adapters as one flat vector, and files that hold them."""

import logging as _logging

# PEFT imports bitsandbytes where it is installed, which says on some CPUs, at every start, what could be installed too.
_logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(_logging.ERROR)
