"""What the tests share. Tests that find no GPU, or no PyTorch, are skipped, counted and printed."""

import pytest

try:
    import torch

    HAS_GPU = torch.cuda.is_available()
except ImportError:
    HAS_GPU = False


def pytest_collection_modifyitems(items):
    import multistep

    reason = None if HAS_GPU and multistep.has_cuda else (
        "no GPU" if multistep.has_cuda else "built without CUDA")
    for item in items:
        if reason and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter):
    skipped = [report for report in terminalreporter.stats.get("skipped", [])
               if "gpu" in getattr(report, "keywords", {})]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} GPU tests of the Python package skipped")
