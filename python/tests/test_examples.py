"""The examples, and the lines of docs/python.md and docs/relatives.md that a user copies."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "python" / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example(example):
    if example.stem == "train_layer":
        pytest.importorskip("torch")
    done = subprocess.run([sys.executable, example], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = {"verify_schedule": ["NOT COVERED", "COVERED", "reaches key 0"],
                "judge_masks": ["NOT COVERED   27225", "moba              COVERED           0",
                                "nsa, once         NOT COVERED", "2, and not fewer"],
                "judge_kernel": ["one_key_short", "not_candidates", "FAIL", "PASS", "NOT REACHED"],
                "single_precision": ["wrong 4730 (67%)", "ValueError: exponent"],
                "train_layer": ["continued 5 1 6 5 1 6 5 1 6", "as at once"]}
    for text in expected[example.stem]:
        assert text in done.stdout


def blocks_of(document):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / document).read_text(), re.DOTALL)
    assert blocks
    return blocks


@pytest.mark.parametrize("document", ["python.md", "relatives.md"])
def test_documents(document):
    pytest.importorskip("torch")
    for block in blocks_of(document):
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_documents_of_ranks(tmp_path):
    pytest.importorskip("torch")
    from ranks import run_block

    for number, block in enumerate(blocks_of("distributed.md")):
        run_block(block, 2, tmp_path / str(number))


def test_every_function_tells_its_source_or_errors():
    import multistep

    for name in multistep.__all__:
        thing = getattr(multistep, name)
        assert name == "has_cuda" or (thing.__doc__ or "").strip(), name
