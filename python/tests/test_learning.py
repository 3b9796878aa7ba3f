"""The study of whether routing learns, in miniature: its tasks are what they say, searches of two
and three steps learn from random weights, and a stopped run goes on as if it had not been."""

import json
import math
import os
import pathlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("experiments", "experiments/studies",
                                                  "tests/figures")]
from learning import measures, models, plans  # noqa: E402
from learning.tasks import TASKS  # noqa: E402
from learning.training import HELPS, Stage, Training, train  # noqa: E402
from schema import problems, schema_of  # noqa: E402

SCRIPT = ROOT / "experiments/studies/learning/run.py"
TINY = {str(run.model): run for run in plans.tiny() if run.seed == 1}


@pytest.mark.parametrize("length", [64, 512])
@pytest.mark.parametrize("name", TASKS)
def test_labels_follow_from_tokens(name, length):
    task = TASKS[name]
    pairs, queries = task.counts(length)
    batch = task.batch(length, 20, (3, length))
    assert batch.tokens.shape == (20, length) and batch.places.shape == (20, queries)
    is_key = (batch.tokens >= task.values) & (batch.tokens < task.values + task.keys)
    assert (is_key.sum(1) == pairs + queries).all()  # as fillers are none
    assert 0 <= batch.tokens.min() and batch.tokens.max() < task.tokens
    for tokens, labels, places in zip(*(one.tolist() for one in (
            batch.tokens, batch.labels, batch.places))):
        for at, label, place in zip(batch.asked.tolist(), labels, places):
            context = tokens[:length - 2 * queries]
            assert context.count(tokens[at]) == 1
            assert context.index(tokens[at]) == place - 1
            assert tokens[place] == tokens[at + 1] == label < task.values


def test_places_are_uniform():
    """Of a pair in ten tokens all nine; of two pairs in eight all that do not overlap."""
    task = replace(TASKS["needle"], queries=1)
    places = task.batch(12, 9000, 5).places.flatten()
    assert np.bincount(places).tolist()[1:] == pytest.approx([1000] * 9, abs=150)
    task = replace(task, pairs=2, every=1, queries=2)
    places = task.batch(12, 3000, 6).places.sort(1).values - 1
    assert {tuple(one) for one in places.tolist()} == {
        (first, other) for first in range(7) for other in range(first + 2, 7)}


def test_tokens_are_the_same_everywhere():
    assert TASKS["tiny"].batch(32, 1, (1, 2)).tokens[0].tolist() == [
        27, 23, 3, 26, 30, 24, 24, 30, 29, 9, 5, 31, 31, 17, 5, 25, 27, 31, 25, 27, 18, 2, 24, 30,
        23, 3, 17, 5, 9, 5, 18, 2]


def test_models_that_do_not_search():
    """What they say hangs on nothing that they do not see: a window of eight keys; and a choice
    that no token moves."""
    task = TASKS["tiny"]
    batch = task.batch(64, 2, 7)
    window = models.Transformer(TINY["window"].model, task)
    moved = batch.tokens.clone()
    moved[:, :64 - 10] = 0  # a layer's window of 8, and the token before it
    asked = batch.asked[-1:]
    torch.testing.assert_close(window(batch.tokens, asked), window(moved, asked))
    moved[:, 64 - 9] = 1
    assert (window(batch.tokens, asked) != window(moved, asked)).any()
    random = models.Transformer(TINY["random"].model, task)
    chosen = []
    for tokens in (batch.tokens, moved):
        random(tokens, asked)
        chosen.append(random.attentions[0].found[-1].spans)
    assert (chosen[0] == chosen[1]).all() and (chosen[0][0] == chosen[0][1]).all()
    assert (chosen[0][0, 0] != chosen[0][0, 1]).any()  # of two heads


def test_search_keys_are_means_of_parts():
    """Of an aligned level with four parts of 16 keys, and below it of parts of 4."""
    model = models.Model("aligned", 3, "parts", layers=1, width=32, heads=2)
    network = models.Transformer(model, TASKS["tiny"])
    layer = network.attentions[0]
    with torch.no_grad():
        network(TASKS["tiny"].batch(64, 1, 8).tokens, torch.tensor([63]))
    k = []
    layer.k.register_forward_hook(lambda _, __, out: k.append(out[0]))
    with torch.no_grad():
        network(TASKS["tiny"].batch(64, 1, 8).tokens, torch.tensor([63]))
    routing, keys, _ = layer.found
    assert layer.schedule.part_lengths(64) == (16, 4)
    for level, part in enumerate((16, 4)):
        mine = slice(8 * level, 8 * level + 8)
        for head in range(2):
            whole = k[0][:, 16 * head:][:, mine].reshape(-1, part, 8).mean(1)
            torch.testing.assert_close(keys[0, head, part - 1::part, mine], whole)
        assert (routing[level][..., mine] != 0).all()
        assert (routing[level][..., 8 - 8 * level:16 - 8 * level] == 0).all()


def test_measures_of_a_known_search():
    """Routing queries and search keys that lead to the values asked for, and then away."""
    task, model = TASKS["tiny"], TINY["even, N = 3, ema"].model
    network = models.Transformer(model, task)
    layer = network.attentions[0]
    batch = task.batch(64, 3, 9)
    with torch.no_grad():
        network(batch.tokens, batch.asked)
    kept, mass = measures.paths(layer, batch)
    spans, scores = layer.found[-1].spans, layer.found[-1].scores
    for i in range(3):
        for j, t in enumerate(batch.asked.tolist()):
            for head in range(2):
                gates = scores[i, head, t].softmax(0)
                holds = [begin <= batch.places[i, j] < end for begin, end in spans[i, head, t]]
                assert kept[i, head, j] == any(holds)
                assert mass[i, head, j] == pytest.approx(sum(
                    float(gate) for gate, held in zip(gates, holds) if held), abs=1e-6)
    found = layer.found[-1]
    for sign, expected in ((1, lambda place, count: place == 0),
                           (-1, lambda place, count: place == count - 1)):
        chosen, towards = torch.zeros(1, 2, 64, 2), torch.zeros(2, 1, 2, 64, 2)
        t, place = int(batch.asked[0]), int(batch.places[0, 0])
        for level, anchor in enumerate(layer.schedule.path(t, place)[0].anchors):
            chosen[:, :, anchor, level] = sign  # both levels may have the same anchor
            towards[level, ..., level] = 1
        layer.found = towards, chosen, found
        for level in measures.ranks(layer, batch, 1):
            ((*by_head, count),) = level
            assert len(by_head) == 2 and all(expected(place, count) for place in by_head)


@pytest.mark.parametrize("name", ["even, N = 2, ema", "even, N = 3, ema"])
def test_routing_learns(name, tmp_path):
    """Far beyond what a random choice of as many spans gets right (0.46), whatever it learns."""
    record = train(TINY[name], "cpu", tmp_path / "checkpoint", math.inf)
    assert record["solved"], record["curve"][-3:]
    (grid,) = record["grid"]
    assert grid["accuracy"] > 0.7
    (layer,) = grid["layers"]
    assert layer["found"] > 0.65


def short(**changes):
    """A run of a few steps, measured at two lengths."""
    return replace(TINY["even, N = 2, ema"], stages=(Stage(32, 4, 5), Stage(64, 4, 4)), enough=0.0,
                   further=1, lengths=(32, 64), **changes)


class After:
    """A deadline that is there when it has been looked at so often."""

    def __init__(self, looks):
        self.left = looks

    def __lt__(self, now):
        self.left -= 1
        return self.left < 0


def without_times(record):
    """What a record says that is the same each time."""
    record = json.loads(json.dumps(record))
    for place in (record, *record["stages"], *record["grid"]):
        del place["seconds"]
    return record


@pytest.mark.parametrize("help", [None, *HELPS])
def test_a_stopped_run_goes_on(help, tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "TOKENS", 0)
    monkeypatch.setattr("learning.training.MEAN", 3)
    run, checkpoint = short(help=help), tmp_path / "checkpoint"
    whole = train(run, "cpu", checkpoint, math.inf)
    assert [stage["steps"] for stage in whole["stages"]] == [3, 4] and len(whole["grid"]) == 2
    checkpoint.unlink()
    assert [stage["solved"] for stage in whole["stages"]] == [3, 3] and whole["steps"] == 6
    pieces = [train(run, "cpu", checkpoint, After(2)) for _ in range(6)]
    assert pieces.index(next(filter(None, pieces))) > 2
    assert without_times(next(filter(None, pieces))) == without_times(whole)
    if help:
        assert whole["curve"] != train(short(), "cpu", tmp_path / "other", math.inf)["curve"]


def test_a_length_that_is_not_solved_hands_on_to_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(measures, "TOKENS", 0)
    record = train(replace(short(), enough=2.0), "cpu", tmp_path / "checkpoint", math.inf)
    assert [(stage["steps"], stage["solved"]) for stage in record["stages"]] == [
        (5, None), (4, None)]
    assert not record["solved"] and record["steps"] == 9 and len(record["grid"]) == 2


def test_processes_train_as_one_does(tmp_path):
    """Several at once: the same records, in any order."""
    found = []
    for workers in ("1", "2"):
        output = tmp_path / f"{workers}.json"
        subprocess.run([sys.executable, SCRIPT, "--plan", "tiny", "--device", "cpu", "--first", "2",
                        "--workers", workers, "--output", output], check=True, capture_output=True,
                       env={**os.environ, "OMP_NUM_THREADS": "1"})
        runs = [without_times(run) for run in json.loads(output.read_text())["runs"]]
        assert [run.pop("workers") for run in runs] == [int(workers)] * 2
        found.append(sorted(runs, key=lambda run: run["digest"]))
    assert found[0] == found[1]


def test_a_run_that_diverges_says_so(tmp_path):
    run = short()
    training = Training(run, "cpu")
    with torch.no_grad():
        training.model.head.weight.fill_(math.nan)
    training.step()
    record = training.record()
    assert training.trained and record["diverged"] and not record["solved"]
    json.dumps(record, allow_nan=False)


def test_command(tmp_path):
    """Writes whole files, stops in time, and goes on where it was."""
    output = tmp_path / "learning.json"

    def command(*options):
        done = subprocess.run([sys.executable, SCRIPT, "--plan", "tiny", "--device", "cpu",
                               "--first", "1", "--output", output, "--commit", "0" * 40, *options],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "0 of 1 runs" in command("--minutes", "0")
    assert not output.exists() and len(list(tmp_path.iterdir())) == 1
    assert "1 of 1 runs" in command()
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    first = json.loads(output.read_text())
    assert problems(first, schema_of("cpu/learning.json")) == []
    assert first["command"] == ("experiments/studies/learning/run.py --plan tiny --device cpu "
                                "--first 1")
    assert first["runs"][0]["run"] == "tiny; dense, 1 layers; 64; rate 0.01; seed 1"
    assert first["runs"][0]["solved"] and first["runs"][0]["grid"][0]["accuracy"] > 0.9
    written = output.read_bytes()
    command()
    assert output.read_bytes() == written
    assert "done" in command("--list")


def test_plans():
    for name, plan in plans.PLANS.items():
        runs = plan()
        assert len({run.digest for run in runs}) == len({str(run) for run in runs}) == len(runs)
        for run in runs:
            assert run.lengths and run.task in TASKS and run.help in (None, *HELPS), name
            assert run.model.schedule.steps == run.model.steps
