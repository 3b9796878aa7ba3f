"""Judging anybody's kernel: ``compare`` by the oracle, ``probe`` by what it does alone (SPEC 8)."""

from .comparison import Comparison, Stage, compare
from .probing import ProbeReport, probe

__all__ = ["Comparison", "ProbeReport", "Stage", "compare", "probe"]
