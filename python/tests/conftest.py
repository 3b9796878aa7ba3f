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


@pytest.fixture(scope="session", params=[3, 1, 2, 4, 5, 8])
def ranks(request):
    """Groups of so many ranks, one after the other."""
    yield from group_of(request.param)


@pytest.fixture(scope="session")
def three():
    yield from group_of(3)


def group_of(world):
    from ranks import Ranks

    group = Ranks(world)
    yield group
    group.close()
