"""The study of the loss curve, in a few steps: what is written, and that runs begin alike."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "experiments/studies/training_curve.py"
sys.path.insert(0, str(ROOT / "tests/figures"))
from schema import problems, schema_of  # noqa: E402


def curve(folder, *options):
    output = folder / "curve.json"
    done = subprocess.run([sys.executable, SCRIPT, "--device", "cpu", "--output", output, *options],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == [output.name]
    return json.loads(output.read_text())


def test_curve(tmp_path):
    pytest.importorskip("torch")
    found = curve(tmp_path, "--steps", "2", "--commit", "0" * 40)
    assert found["command"] == "experiments/studies/training_curve.py --device cpu --steps 2"
    assert problems(found, schema_of("cpu/training_curve.json")) == []
    runs = found["runs"]
    assert [run["run"] for run in runs] == ["oracle", *["control"] * 4, "fault"]
    first, second = zip(*(run["losses"] for run in runs))
    # The same start and batch, in bf16 and from starts that are moved; the fault shows later.
    assert max(abs(loss / first[0] - 1) for loss in first) < 2**-9
    assert len(set(first)) == len(first) - 1 and first[0] == first[-1]
    assert second[0] != second[-1]
    # The committed curve began with these weights; every machine draws the same.
    committed = json.loads((ROOT / "results/cpu/training_curve.json").read_text())
    assert found["digests"]["weights"] == committed["digests"]["weights"]
    assert found["digests"]["tokens"] != committed["digests"]["tokens"]  # of fewer steps
    assert runs[0]["losses"][0] == pytest.approx(committed["runs"][0]["losses"][0], rel=1e-9)
