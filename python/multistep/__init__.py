"""Superlinear multi-step attention: exact schedules, a checker, an oracle and kernels.

>>> import multistep
>>> multistep.Schedule(steps=3).verify(10_000).covered
True

``Schedule``, ``verify_spans`` and ``verify_pattern`` answer which keys a query can reach,
``memory`` what a shape takes, ``plan`` which kernels it gets; ``attention``, ``decode``, ``attend``
(which tells what was found on the way), ``merge`` and ``accumulate`` compute, by the oracle or on
the GPU; ``compare`` and ``probe`` judge anybody's kernel; ``part_pooling`` makes search keys that
are means of parts; ``from_authors`` and ``to_authors`` convert names. ``multistep.torch`` has the
same as PyTorch operators, ``multistep.distributed`` attention over a context on several devices,
``multistep.recurrences`` those of other attentions. Intervals are half-open, positions count from 0.

Long calls leave the interpreter to other threads and end within a second of Ctrl-C. They have as
many threads as the OpenMP runtime tells the calling thread (``OMP_NUM_THREADS``, threadpoolctl),
and no more than ``torch.get_num_threads()`` where PyTorch is loaded; results do not depend on it.
The threads are kept for the next call. Calls at the same time have each their own; a forked child
starts anew. (PyTorch brings an OpenMP runtime along. Where that one serves this package too, as it
does where both are called ``libgomp.so.1``, ``torch.set_num_threads`` reaches the calling thread
alone; its answer counts in every thread and with either runtime.)
"""

from . import _core
from ._memory import Memory, memory
from ._plan import Plan, StagePlan, plan
from ._problem import Attended
from .authors import from_authors, to_authors
from .functions import accumulate, attend, attention, decode, merge
from .judging import Comparison, ProbeReport, Stage, compare, probe
from .patterns import pattern_names, verify_pattern
from .pooling import Pooling, part_pooling
from .reports import Exclusion, Layers, PatternWork, Report, Work
from .schedule import Path, Schedule, verify_spans

__version__: str = _core.version
has_cuda: bool = _core.has_cuda
"""Are the kernels built in? ``cuda_status()`` says why not, and whether they can be used."""


def cuda_status() -> str:
    """"ready" where the kernels can be used on the current device. Otherwise why not: built without
    CUDA, no driver, no device, or no kernels for its chip."""
    return _core.cuda_status() or "ready"


__all__ = [
    "Attended", "Comparison", "Exclusion", "Layers", "Memory", "Path", "PatternWork", "Plan",
    "Pooling", "ProbeReport", "Report", "Schedule", "Stage", "StagePlan", "Work", "accumulate",
    "attend", "attention", "compare", "cuda_status", "decode", "from_authors", "has_cuda", "memory",
    "merge", "part_pooling", "pattern_names", "plan", "probe", "to_authors", "verify_pattern",
    "verify_spans",
]
