"""Judging anybody's kernel: ``compare`` by the oracle, ``probe`` by what it does alone (SPEC 8)."""

from .comparison import compare
from .probing import probe
from .reports import Comparison, ProbeReport, Stage

__all__ = ["Comparison", "ProbeReport", "Stage", "compare", "probe"]
