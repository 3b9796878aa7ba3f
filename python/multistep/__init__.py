"""Superlinear multi-step attention: exact schedules, a checker, an oracle and kernels.

>>> import multistep
>>> multistep.Schedule(steps=3).verify(10_000).covered
True

``Schedule`` and ``verify_spans`` answer which keys a query can reach, ``memory`` what a shape
takes; ``attention``, ``decode`` and ``accumulate`` compute, by the oracle or on the GPU;
``compare`` and ``probe`` judge anybody's kernel; ``from_authors`` and ``to_authors`` convert names.
``multistep.torch`` has the same as PyTorch operators. Intervals are half-open, positions count
from 0.
"""

from . import _core
from ._memory import Memory, memory
from .authors import from_authors, to_authors
from .comparison import Comparison, Stage, compare
from .functions import accumulate, attention, decode
from .oracle import Attended
from .probing import ProbeReport, probe
from .reports import Exclusion, Report, Work
from .schedule import Path, Schedule, verify_spans

__version__: str = _core.version
has_cuda: bool = _core.has_cuda
"""Are the kernels built in?"""

__all__ = [
    "Attended", "Comparison", "Exclusion", "Memory", "Path", "ProbeReport", "Report", "Schedule",
    "Stage", "Work", "accumulate", "attention", "compare", "decode", "from_authors", "has_cuda",
    "memory", "probe", "to_authors", "verify_spans",
]
