"""The report of compare on right kernels, broken ones and near-ties."""

import dataclasses
import json
import re

import definitions
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import problems
from test_attention import arrays

import multistep
from multistep import Schedule

S = Schedule(steps=2, window_index=2)


def run(q, k, v, routing, schedule=S, **options):
    """A kernel that hands in every stage, from the definitions."""
    output, kept = definitions.attention(q, k, v, routing, schedule, **options)
    K, rows = schedule.top_k, q.shape[:3]
    spans = np.zeros((*rows, K, 2), np.int64)
    scores = np.full((*rows, K), -np.inf)
    anchors = np.full((*rows, K, schedule.steps - 1), -1, np.int64)
    outputs = np.zeros((*rows, K, q.shape[3]))
    lse = np.full((*rows, K), -np.inf)
    window_output, window_lse = np.zeros(q.shape), np.full(rows, -np.inf)
    for at, paths in kept.items():
        b, h, i = at
        g = h // (q.shape[1] // k.shape[1])
        wb, we = definitions.window(schedule, options.get("query_offset", 0) + i, 0)

        def attend(first, past, output, lse, at):
            if first >= past:
                return
            logits = q.shape[3] ** -0.5 * (k[b, g, first:past].astype(float)
                                           @ q[at[:3]].astype(float))
            output[at] = definitions.softmax(logits) @ v[b, g, first:past]
            lse[at] = np.logaddexp.reduce(logits)

        attend(wb, we, window_output, window_lse, at)
        for slot, (score, chain, begin, end) in enumerate(paths):
            spans[(*at, slot)], scores[(*at, slot)] = (begin, end), score
            anchors[(*at, slot)] = chain
            attend(begin, end if we <= wb else min(end, wb), outputs, lse, (*at, slot))
    return {"spans": spans, "scores": scores, "anchors": anchors, "span_outputs": outputs,
            "lse": lse, "window_output": window_output, "window_lse": window_lse,
            "output": output}


@pytest.fixture(scope="module")
def problem():
    q, k, v, routing = arrays(S, batch=2, heads=4, kv_heads=2, queries=60, seed=3)
    f32 = [x.astype(np.float32) for x in (q, k, v, routing[0])]
    return (*f32[:3], f32[3:])


@pytest.fixture(scope="module")
def right(problem):
    return run(*problem)


def test_right_results_pass_in_every_stage(problem, right):
    report = multistep.compare(right, *problem, S)
    assert report and report.passed and report.verdict == "PASS, 480 of 480 rows looked at"
    assert [stage.name for stage in report.stages] == [
        "search", "span attention", "span lse", "window attention", "window lse", "combination",
        "output"]
    assert not report.not_supplied and report.rows == report.rows_of == 480
    assert repr(report).endswith("rows looked at") and "end to end" in repr(report)
    found = json.loads(report.to_json())
    assert found["pass"] and found["stages"][0]["histogram"]["0"] == 480


def test_any_form_of_results(problem, right):
    @dataclasses.dataclass
    class Results:
        output: np.ndarray
        spans: np.ndarray

    for results in (right["output"], {"output": right["output"]},
                    Results(right["output"], right["spans"]),
                    lambda q, k, v, routing: right["output"].astype(np.float32),
                    multistep.attend(*problem, S)):
        report = multistep.compare(results, *problem, S)
        assert report and "output" in [stage.name for stage in report.stages]


def test_what_is_not_supplied_is_said_and_does_not_pass(problem, right):
    report = multistep.compare({"output": right["output"]}, *problem, S)
    assert set(report.not_supplied) == {"search", "span attention", "span lse", "window attention",
                                        "window lse", "combination"}
    assert re.search("search +not supplied", repr(report))
    with pytest.raises(KeyError, match="search"):
        report.stage("search")
    for nothing in ({}, {"output": None}, object()):
        with pytest.raises(ValueError, match="hands in none of"):
            multistep.compare(nothing, *problem, S)
    for lonely in ("scores", "lse", "span_outputs", "anchors"):
        with pytest.raises(ValueError, match="cannot be judged without spans"):
            multistep.compare({lonely: right[lonely]}, *problem, S)
    with pytest.raises(ValueError, match="'out'"):
        multistep.compare({"out": right["output"]}, *problem, S)
    with pytest.raises(ValueError, match="spans of shape"):
        multistep.compare({"spans": right["spans"][..., :1, :]}, *problem, S)


def broken(right, name, change):
    results = {key: value.copy() for key, value in right.items()}
    results[name] = change(results[name])
    return results


ROW = (1, 2, 40)  # batch, head, query of the one wrong row


def at_row(values):
    def change(array):
        array[ROW] = values(array[ROW])
        return array
    return change


FAULTS = {  # stage that must fail: what is done to one row
    "output off": ("output", at_row(lambda x: x + 1e-3), "output"),
    "output nan": ("output", at_row(lambda x: x * np.nan), "output"),
    "output of another row": ("output", at_row(lambda x: x[::-1]), "output"),
    "span shifted": ("spans", at_row(lambda x: x - 1), "search"),
    "span dropped": ("spans", at_row(lambda x: np.array([x[0], [0, 0]])), "search"),
    "span doubled": ("spans", at_row(lambda x: x[[0, 0]]), "search"),
    "span of the future": ("spans", at_row(lambda x: x + 19), "search"),
    "span whole": ("spans", at_row(lambda x: np.array([[0, 41], x[1]])), "search"),
    "scores swapped": ("scores", at_row(lambda x: x[::-1]), "search"),
    "score off": ("scores", at_row(lambda x: x + [1e-3, 0]), "search"),
    "score nan": ("scores", at_row(lambda x: x * np.nan), "search"),
    "span output off": ("span_outputs", at_row(lambda x: x + 1e-3), "span attention"),
    "lse off": ("lse", at_row(lambda x: x + 1e-3), "span lse"),
    "lse infinite": ("lse", at_row(lambda x: x + np.inf), "span lse"),
    "window off": ("window_output", at_row(lambda x: x + 1e-3), "window attention"),
    "window lse off": ("window_lse", at_row(lambda x: x + 1e-3), "window lse"),
}


def test_no_keys_at_all():
    q, none = np.zeros((1, 1, 1, 8), np.float32), np.zeros((1, 1, 0, 8), np.float32)
    for rows in ("auto", "all", 1, [0]):
        assert multistep.compare(q, q, none, none, [q], S, length=0, rows=rows)
        assert not multistep.compare(q + 1, q, none, none, [q], S, length=0, rows=rows)


@pytest.mark.parametrize("fault", FAULTS)
def test_one_wrong_row_is_found_and_named(problem, right, fault):
    name, change, stage = FAULTS[fault]
    results = broken(right, name, change)
    if name == "spans":
        del results["anchors"]
    report = multistep.compare(results, *problem, S)
    assert not report and report.verdict.startswith("FAIL"), f"\n{report}"
    failed = report.stage(stage)
    assert not failed.passed
    worst = failed.worst
    assert (worst["batch"], worst["head"], worst["query"]) == ROW
    assert "FAIL" in repr(report) and "query 40 head 2 batch 1" in repr(report)


def test_the_one_wrong_value_is_named(problem, right):
    wrong = broken(right, "output", lambda x: x)
    wrong["output"][(*ROW, 5)] += 1
    wrong["span_outputs"][(*ROW, 1, 3)] += 1
    wrong["lse"][(*ROW, 1)] += 1
    report = multistep.compare(wrong, *problem, S)
    row = dict(zip(("batch", "head", "query"), ROW))
    assert report.stage("output").worst == {**row, "dim": 5}
    assert report.stage("span attention").worst == {**row, "slot": 1, "dim": 3}
    assert report.stage("span lse").worst == {**row, "slot": 1}
    shifted = multistep.compare({"output": wrong["output"]}, *problem, S)
    assert shifted.stage("output").worst == {**row, "dim": 5}


def test_a_search_that_takes_the_second_best(problem):
    worse = run(*problem, S.with_top_k(3))
    for name in ("spans", "scores", "anchors"):
        worse[name] = worse[name][:, :, :, [0, 2]]
    report = multistep.compare({name: worse[name] for name in ("spans", "scores", "anchors")},
                               *problem, S)
    assert not report.stage("search") and report.stage("search").fields["wrong"]["regretted"] > 100
    # Told without scores too.
    assert not multistep.compare({"spans": worse["spans"]}, *problem, S)


def test_spans_without_scores_are_judged_in_any_order(problem, right):
    turned = {"spans": right["spans"][:, :, :, ::-1].copy(), "output": right["output"]}
    empty = turned["spans"][..., 0, 1] == 0
    turned["spans"][empty] = right["spans"][empty]
    report = multistep.compare(turned, *problem, S)
    assert report.stage("search") and report.stage("output")
    assert not multistep.compare({**turned, "scores": right["scores"]}, *problem, S)


def test_near_ties_may_fall_either_way():
    q, k, v, routing = arrays(S, heads=1, queries=60)
    k[..., 0] = 0
    routing[0][...] = 0
    routing[0][..., 0] = 1e-3  # every score is 0: any anchors are as good
    q, k, v, routing = (x.astype(np.float32) for x in (q, k, v, routing[0]))
    chosen = run(q, k, v, [routing])
    other = {name: array.copy() for name, array in chosen.items()}
    level = definitions.cut(S, 1, 0, 60)
    other["spans"][0, 0, 59] = [level[2][1:], level[4][1:]]
    for results in (chosen, other):
        report = multistep.compare({"spans": results["spans"], "scores": results["scores"]},
                                   q, k, v, [routing], S)
        assert report, f"\n{report}"
    # The output alone tells nothing where the selection is open, and that is said.
    report = multistep.compare(chosen["output"], q, k, v, [routing], S)
    assert report.undecided > 30 and "hangs on rounding" in repr(report)


def test_all_rows_undecided_is_no_pass():
    q, k, v, routing = (np.ones((1, 1, 40, 4), np.float32) for _ in range(4))
    s = Schedule()
    output = multistep.attention(q, k, v, [routing], s)
    report = multistep.compare(output, q, k, v, [routing], s, rows=[39])
    assert not report and report.verdict.startswith("NOTHING JUDGED") and report.undecided == 1


def test_an_item_has_no_keys_of_the_window(problem, right):
    """SPEC 4: what joins the window to every span on its own is another cut."""
    joined = {name: array.copy() for name, array in right.items()}
    own, window = right["lse"], right["window_lse"][..., None]
    joined["lse"] = np.where(right["spans"][..., 1] > 0, np.logaddexp(own, window), own)
    report = multistep.compare(joined, *problem, S)
    assert not report and not report.stage("span lse").passed
    assert report.stage("span attention") and report.stage("output")


def test_lengths_of_sequences(problem):
    q, k, v, routing = problem
    lengths = np.array([60, 33])
    found = multistep.attend(q[:, :, :5], k, v, [routing[0][:, :, :5]], S, length=lengths)
    arguments = (q[:, :, :5], k, v, [routing[0][:, :, :5]], S)
    report = multistep.compare(found, *arguments, length=lengths)
    assert report and report.rows == 40, f"\n{report}"
    bad = found._replace(output=found.output.copy())
    bad.output[1, 3, 4] += 1e-3
    report = multistep.compare(bad, *arguments, length=lengths)
    assert report.stage("output").worst["query"] == 32 and not report
    assert not multistep.compare(found, *arguments, length=lengths - 1)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_candidate_gets_the_strides_of_its_arguments(problem, kind):
    """Kernels that walk memory by strides of their own fail on what they will get."""
    q, k, v, routing = problem

    def strided(x):  # [batch, length, heads, dim], with room behind every row
        room = np.full((x.shape[0], x.shape[2], x.shape[1], x.shape[3] + 3), np.nan, x.dtype)
        room[..., : x.shape[3]] = x.transpose(0, 2, 1, 3)
        if kind == "torch":
            torch = pytest.importorskip("torch")
            return torch.from_numpy(room)[..., : x.shape[3]].permute(0, 2, 1, 3)
        return room[..., : x.shape[3]].transpose(0, 2, 1, 3)

    arguments = [strided(x) for x in (q, k, v)] + [[strided(routing[0])]]

    def strides(x):
        return x.stride() if kind == "torch" else tuple(n // x.itemsize for n in x.strides)

    def right(q, k, v, routing):
        for got, given_ in zip((q, k, v, *routing), (*arguments[:3], *arguments[3])):
            assert strides(got) == strides(given_) and got.shape == given_.shape
        q, k, v, *routing = (np.asarray(x) for x in (q, k, v, *routing))
        return multistep.attention(q, k, v, routing, S)

    def blind(q, k, v, routing):
        """Takes memory as it lies for [batch, heads, length, dim]."""
        dense = [np.lib.stride_tricks.as_strided(
            np.asarray(x), x.shape, np.empty(x.shape, np.float32).strides) for x in (q, k, v)]
        return multistep.attention(*dense, [np.asarray(routing[0])], S)

    assert multistep.compare(right, *arguments, S)
    assert not multistep.compare(blind, *arguments, S)


def test_rows_by_themselves(problem, right):
    assert multistep.compare(right, *problem, S).rows == 480  # of so few all are looked at
    q, k, v, routing = (np.ones((1, 1, 3000, 4), np.float32) for _ in range(4))
    output = np.ones(q.shape)
    report = multistep.compare({"output": output}, q, k, v, [routing], S, rows=7)
    assert report.rows == 7 and "7 of 3000 rows looked at" in repr(report)


def test_an_infinite_or_too_large_value_outside_the_sample_fails(problem, right):
    for value in (np.inf, -np.inf, 1e6):
        bad = broken(right, "output", at_row(lambda x, value=value: x * 0 + value))
        report = multistep.compare(bad, *problem, S, rows=[3])
        assert not report and "of all rows" in repr(report), value
    for name in ("lse", "window_lse"):
        bad = broken(right, name, at_row(lambda x: x * np.nan))
        assert not multistep.compare(bad, *problem, S, rows=[3])


def test_a_nan_key_is_expected_where_it_can_be_seen_alone(problem):
    q, k, v, routing = (x if isinstance(x, list) else x.copy() for x in problem)
    v[0, 0, 25] = np.nan
    found = multistep.attend(q, k, v, routing, S)
    assert np.isnan(found.output).any()
    assert multistep.compare(found, q, k, v, routing, S)
    other = found._replace(output=found.output.copy())
    other.output[1, 0, 30] = np.nan  # of another sequence
    assert not multistep.compare(other, q, k, v, routing, S)
    assert not multistep.compare(other, q, k, v, routing, S, rows=[0])


@pytest.mark.parametrize("name", ["q", "k", "routing"])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_infinite_logits_and_scores_are_judged_as_their_limit(problem, name):
    q, k, v, routing = (x.copy() for x in (*problem[:3], problem[3][0]))
    {"q": q, "k": k, "routing": routing}[name][0, 0, 25, 3] = np.inf
    given = q, k, v, [routing]
    found = multistep.attend(*given, S)
    assert np.isfinite(found.output).all() and multistep.compare(found, *given, S)
    assert not multistep.compare(run(*given), *given, S)  # which subtracts infinities
    q[0, 0, 25] = np.inf  # of both signs in its logits
    found = multistep.attend(*given, S)
    anything = np.where(np.isnan(found.output), 7, found.output)
    assert (anything[0, 0, 25] == 7).all()
    assert multistep.compare(found._replace(output=anything), *given, S)


@settings(deadline=None, max_examples=30)
@given(problems())
def test_the_oracle_passes(problem):
    schedule, (q, k, v, routing), options = problem
    found = multistep.attend(q, k, v, routing, schedule, **options)
    report = multistep.compare(found, q, k, v, routing, schedule, **options)
    assert report, f"\n{report}"
    if np.isfinite(found.output).all() and np.abs(found.output).max() > 0:
        wrong = found._replace(output=found.output + np.abs(found.output).max())
        assert not multistep.compare(wrong, q, k, v, routing, schedule, **options)


def test_rows(problem, right):
    for rows, judged in [(50, 50), ("all", 480), ("auto", 480), (7, 7), ([3, 479, 3], 2)]:
        report = multistep.compare(right, *problem, S, rows=rows)
        assert (report.rows, report.rows_of) == (judged, 480)
    bad = broken(right, "output", at_row(lambda x: x + 1))
    row = (ROW[0] * 4 + ROW[1]) * 60 + ROW[2]
    assert not multistep.compare(bad, *problem, S, rows=[row])
    assert multistep.compare(bad, *problem, S, rows=[row - 1, row + 1])
    for rows in ([480], [-1], 0, "some"):
        with pytest.raises(ValueError, match="rows"):
            multistep.compare(right, *problem, S, rows=rows)


def test_a_nan_outside_the_sample_fails(problem, right):
    bad = broken(right, "output", at_row(lambda x: x * np.nan))
    report = multistep.compare(bad, *problem, S, rows=[3])
    assert not report and report.stage("output").fields["not_finite_in_all_rows"] == 8
    assert "8 values of all rows" in repr(report)


def loud():
    """float32 arrays where one row's path scores are 10^4 times the others'."""
    rng = np.random.default_rng(0)
    q, k, v, r = (rng.standard_normal(shape, np.float32) for shape in
                  ((2, 4, 64, 64), (2, 2, 64, 64), (2, 2, 64, 64), (2, 4, 64, 64)))
    r[0, 0, 63] *= 1e4
    return q, k, v, [r]


def test_one_loud_row_lends_the_others_nothing():
    q, k, v, routing = loud()
    report = multistep.compare(np.zeros(q.shape), q, k, v, routing, S)
    assert report.verdict.startswith("FAIL"), f"\n{report}"
    spans = multistep.attend(q, k, v, routing, S)
    near = spans.output.astype(np.float32)
    near[1] *= np.float32(1.001)
    for told in ({}, {"spans": spans.spans}):
        assert multistep.compare({"output": spans.output.astype(np.float32), **told}, q, k, v,
                                 routing, S)
        assert not multistep.compare({"output": near, **told}, q, k, v, routing, S)


def test_gates_that_rounding_decides_are_undecided():
    q, k, v, routing = loud()
    routing[0][...] = 0
    routing[0][..., 0] = 1e6
    k[..., 0] = 1  # path scores of 10^6 that differ by what float32 cannot see
    found = multistep.attend(q, k, v, routing, S)
    report = multistep.compare({"spans": found.spans, "output": found.output}, q, k, v, routing, S)
    assert report.undecided > report.rows / 2 and report.verdict.startswith("TOO FEW JUDGED")
    assert not report and "spans and scores" in repr(report)
    assert multistep.compare(found, q, k, v, routing, S).verdict.startswith("PASS")


def test_scores_that_are_off_by_rounding_pass_where_they_are_not_told(problem):
    q, k, v, routing = problem
    for scale in (1, 100, 3000):
        right = run(q, k, v, routing, search_scale=scale)
        spans, scores = right["spans"], right["scores"]
        share = 1 / (1 + np.exp(right["window_lse"][..., None] - right["lse"]))[..., None]
        outputs = share * right["span_outputs"] + (1 - share) * right["window_output"][..., None, :]
        used = np.isfinite(scores)
        sizes = np.abs(routing[0]).sum(-1, keepdims=True) * np.abs(k).max() * scale
        moved = np.where(used, scores, 0) + 2.0**-24 * sizes * np.array([1, -1])
        gates = np.exp(np.where(used, moved - np.where(used, moved, -np.inf).max(
            -1, keepdims=True, initial=-1e300), -np.inf))
        total = gates.sum(-1, keepdims=True)
        mixed = ((gates / np.where(total, total, 1))[..., None] * outputs).sum(-2)
        output = np.where(used.any(-1, keepdims=True), mixed, right["output"])
        report = multistep.compare({"spans": spans, "output": output}, q, k, v, routing, S,
                                   search_scale=scale)
        assert report.stage("output"), f"{scale}\n{report}"
        assert report.undecided < 240
        output[1, 1] *= 1.1
        assert not multistep.compare({"spans": spans, "output": output}, q, k, v, routing, S,
                                     search_scale=scale)


def test_a_candidate_that_writes_to_its_inputs():
    torch = pytest.importorskip("torch")

    def cheats(q, k, v, routing):
        v[...] = 0
        return q * 0

    def scales(q, k, v, routing):
        want = multistep.attention(q, k, v, routing, S)
        for x in (q, k, *routing):
            x *= 3
        return want

    arrays_ = loud()
    tensors = [torch.from_numpy(x.copy()) for x in arrays_[:3]]
    tensors.append([torch.from_numpy(arrays_[3][0].copy())])
    for given_ in (arrays_, tensors):
        before = given_[2] + 0
        assert not multistep.compare(cheats, *given_, S)
        assert multistep.compare(scales, *given_, S)
        assert (given_[2] == before).all()


def test_more_than_half_undecided_is_no_pass():
    q, k, v, routing = (np.ones((1, 1, 40, 4), np.float32) for _ in range(4))
    s = Schedule()
    output = multistep.attention(q, k, v, [routing], s)
    report = multistep.compare(output, q, k, v, [routing], s)
    assert 20 < report.undecided < 40 and not report and report.verdict.startswith("TOO FEW JUDGED")
    output[0, 0, 0] = 9
    assert multistep.compare(output, q, k, v, [routing], s).verdict.startswith("FAIL")


@pytest.mark.parametrize("name, stage", [("scores", "search"), ("lse", "span lse")])
def test_nan_outside_the_sample_in_scores_and_log_sum_exps(problem, right, name, stage):
    bad = broken(right, name, at_row(lambda x: x * np.nan))
    report = multistep.compare(bad, *problem, S, rows=[3])
    assert not report and report.stage(stage).fields["not_finite_in_all_rows"] == 2
    assert multistep.compare(right, *problem, S, rows=[3])  # -inf is no NaN


@pytest.mark.parametrize("storage", ["bfloat16", "float16", "float32"])
def test_an_outlier_hides_no_wrong_sequence(storage):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(ml_dtypes, storage, storage))
    q, k, v, routing = (x if isinstance(x, list) else x.astype(dtype) for x in loud())
    routing = [routing[0].astype(dtype)]
    routing[0][0, 0, 63] = 1
    v[0] *= np.asarray(1e4, dtype)
    found = multistep.attend(q, k, v, routing, S)
    good = found._replace(output=found.output.astype(dtype))
    assert multistep.compare(good, q, k, v, routing, S)
    good.output[1] *= np.asarray(1.1, dtype)
    report = multistep.compare(good, q, k, v, routing, S)
    assert not report and "heads are off" in repr(report), f"\n{report}"


@settings(deadline=None, max_examples=60)
@given(problems(), st.sampled_from(["bfloat16", "float16", "float32"]))
def test_rounded_results_of_the_oracle_pass(problem, storage):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(ml_dtypes, storage, storage))
    schedule, (q, k, v, routing), options = problem
    q, k, v = (np.asarray(x).astype(dtype) for x in (q, k, v))
    routing = [np.asarray(x).astype(dtype) for x in routing]
    if options.get("search_keys") is not None:
        options = {**options, "search_keys": np.asarray(options["search_keys"]).astype(dtype)}
    output = multistep.attention(q, k, v, routing, schedule, **options).astype(dtype)
    report = multistep.compare({"output": output}, q, k, v, routing, schedule, **options)
    assert not report.verdict.startswith("FAIL"), f"\n{report}"


def test_messages(problem, right):
    with pytest.raises(ValueError, match="seed -1"):
        multistep.compare(right, *problem, S, rows=2, seed=-1)
