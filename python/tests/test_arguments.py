"""Every function on every kind of array there is: a result or one clear line, never a crash."""

import gc
import inspect
import os
import re
import resource
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import multistep
from multistep import Schedule
from multistep._problem import filled
from test_attention import arrays

S = Schedule()


def attend(q, k, v, routing, **options):
    return multistep.attention(q, k, v, routing, S, **options)


def walk(seed=0, length=20):
    rng = np.random.default_rng(seed)
    x, b, c = (rng.standard_normal((1, 2, length, width)) for width in (4, 3, 3))
    return x, rng.random((1, 2, length)), b, c


def one_line(error):
    assert "\n" not in str(error.value) and len(str(error.value)) < 400, str(error.value)


def layouts(x):
    """The same values, laid out in other ways."""
    yield "fortran", np.asfortranarray(x)
    yield "transposed", np.swapaxes(np.ascontiguousarray(np.swapaxes(x, -1, -2)), -1, -2)
    yield "strided", np.repeat(x, 2, axis=-1)[..., ::2]
    yield "reversed", np.ascontiguousarray(x[..., ::-1])[..., ::-1]
    yield "big-endian", x.astype(x.dtype.newbyteorder(">"))
    room = np.zeros(x.nbytes + 1, np.uint8)[1:].view()
    unaligned = room[: x.nbytes].view(x.dtype).reshape(x.shape) if x.nbytes else x
    unaligned[...] = x
    yield "unaligned", unaligned
    frozen = x.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen


def test_layouts_of_attention():
    q, k, v, routing = arrays(S)
    want = attend(q, k, v, routing)
    forms = [layouts(x) for x in (q, k, v, routing[0])]
    for (name, a), (_, b), (_, c), (_, d) in zip(*forms):
        assert np.array_equal(attend(a, b, c, [d]), want), name
    spread = np.broadcast_to(k[:, :, :1], k.shape)
    assert np.array_equal(attend(q, spread, v, routing), attend(q, spread.copy(), v, routing))


def test_layouts_of_everything_else():
    x, a, b, c = walk()
    want = multistep.accumulate(x, a, b, c)
    for forms in zip(*(layouts(array) for array in (x, a, b, c))):
        found = multistep.accumulate(*(array for _, array in forms))
        assert all(np.array_equal(f, w) for f, w in zip(found, want)), forms[0][0]
    spans = np.array([[5, 0, 3], [5, 3, 6], [2, 0, 3]])
    for dtype in (np.int64, np.int32, np.uint8, np.uint64, ">i4"):
        for table in (spans.astype(dtype), np.asfortranarray(spans.astype(dtype))):
            assert multistep.verify_spans(*table.T, 6)
    q, k, v, routing = arrays(S)
    output = attend(q, k, v, routing)
    for _, form in layouts(output):
        assert multistep.compare(form, q, k, v, routing, S)


def test_lists_are_copied_and_memory_is_shared():
    q, k, v, routing = arrays(S, queries=4)
    assert np.array_equal(attend(q.tolist(), k.tolist(), v.tolist(), [routing[0].tolist()]),
                          attend(q, k, v, routing))
    given = multistep.oracle.problem(q, k, v, routing, S)
    assert np.shares_memory(given.arrays["q"], q) and given.arrays["k"] is not None
    assert given.arrays["k"].ctypes.data == k.ctypes.data
    output = attend(q, k, v, routing)
    assert output.flags.c_contiguous and output.flags.writeable


class Exporter:
    """Nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class OnDevice(Exporter):
    def __dlpack_device__(self):
        return (2, 0)  # CUDA


def test_dlpack():
    q, k, v, routing = arrays(S)
    want = attend(q, k, v, routing)
    assert np.array_equal(attend(*(Exporter(x) for x in (q, k, v)), [Exporter(routing[0])]), want)
    with pytest.raises((TypeError, ImportError, RuntimeError, ValueError, BufferError)) as error:
        attend(OnDevice(q), OnDevice(k), OnDevice(v), [OnDevice(routing[0])])
    one_line(error)
    with pytest.raises(TypeError, match="device"):
        multistep.verify_spans(OnDevice(np.arange(3)), np.arange(3), np.arange(3) + 1, 4)


def test_wrong_dtypes():
    q, k, v, routing = arrays(S)
    for dtype in (np.int32, np.complex128, bool, object, "U4", "datetime64[s]", np.longdouble):
        with pytest.raises(TypeError, match="^[qk] of dtype|^k of dtype") as error:
            attend(q.astype(dtype), k, v, routing)
        one_line(error)
    with pytest.raises(TypeError, match="k of dtype float32: float64 like q"):
        attend(q, k.astype(np.float32), v, routing)
    with pytest.raises(TypeError, match="dtype int32"):
        attend(q, k, v, routing, dtype=np.int32)
    with pytest.raises(TypeError, match="query of dtype float64: integers"):
        multistep.verify_spans([0.5], [0], [1], 3)
    with pytest.raises(TypeError, match="masked"):
        attend(np.ma.masked_array(q), k, v, routing)
    x, a, b, c = walk()
    with pytest.raises(TypeError, match="b of dtype"):
        multistep.accumulate(x, a, b.astype(np.int64), c)


@pytest.mark.parametrize("bad", [None, "text", b"bytes", {}, object(), 3, [[1, 2], [3]], [None],
                                 lambda: 0, {1, 2}])
def test_things_that_are_no_arrays(bad):
    q, k, v, routing = arrays(S)
    for place in range(4):
        arguments = [q, k, v, routing]
        arguments[place] = bad if place < 3 else [bad]
        with pytest.raises((TypeError, ValueError)) as error:
            attend(*arguments)
        one_line(error)
    for options in ({"start": bad}, {"search_keys": bad}, {"softmax_scale": bad},
                    {"query_offset": bad}, {"top_k": bad}):
        if bad is None or bad == 3:  # good values of these
            continue
        with pytest.raises((TypeError, ValueError)) as error:
            attend(q, k, v, routing, **options)
        one_line(error)
    with pytest.raises((TypeError, ValueError)):
        multistep.verify_spans(bad, [0], [1], 4)
    with pytest.raises((TypeError, ValueError)):
        multistep.accumulate(bad, *walk()[1:])
    with pytest.raises((TypeError, ValueError)):
        multistep.compare(bad if not callable(bad) else 7, q, k, v, routing, S)


def test_wrong_shapes():
    q, k, v, routing = arrays(S, batch=2, heads=4, kv_heads=2)
    for arguments, message in (
            ((q[0], k, v, routing), "q of shape"), ((q, k[..., None], v, routing), "k of shape"),
            ((q, k, v[:, :, 1:], routing), "v of shape"), ((q, k[:1], v, routing), "k of shape"),
            ((q, k, v, [routing[0][:, :1]]), r"routing_queries\[0\] of shape"),
            ((q, k, v, []), "routing_queries 0"), ((q, k, v, routing * 2), "routing_queries 2"),
            ((q[:, :3], k, v, [routing[0][:, :3]]), "num_kv_heads 2: divides num_heads 3"),
            ((q[..., :0], k[..., :0], v[..., :0], [routing[0][..., :0]]), "head_dim 0"),
            ((q[:0], k[:0], v[:0], [routing[0][:0]]), "batch 0"),
            ((q, k[:, :, :10], v[:, :, :10], routing), "query_offset 0")):
        with pytest.raises(ValueError, match=message) as error:
            attend(*arguments)
        one_line(error)
    for options, message in (({"query_offset": 1}, "query_offset 1"),
                             ({"query_offset": -1}, "query_offset -1"),
                             ({"start": -1}, "start -1"), ({"start": [0]}, "start of shape"),
                             ({"start": [0, -3]}, "start -3"), ({"start": 2**50}, "start"),
                             ({"top_k": 0}, "top_k 0"), ({"softmax_scale": np.nan}, "softmax"),
                             ({"search_scale": np.inf}, "search_scale"),
                             ({"search_keys": k[:1]}, "search_keys of shape")):
        with pytest.raises(ValueError, match=message) as error:
            attend(q, k, v, routing, **options)
        one_line(error)
    for length in (-1, 31, [30], [30, 99], [-1, 30]):
        with pytest.raises(ValueError, match="length"):
            multistep.decode(q, k, v, routing, S, length=length)
    with pytest.raises(TypeError, match="schedule"):
        multistep.attention(q, k, v, routing, "released")
    x, a, b, c = walk()
    for arguments in ((x[0], a, b, c), (x, a[:, :, 1:], b, c), (x, a, b, c[..., :2]),
                      (x[..., :0], a, b, c), (x, a + 2, b, c)):
        with pytest.raises(ValueError) as error:
            multistep.accumulate(*arguments)
        one_line(error)


def test_names_that_are_not_known():
    q, k, v, routing = arrays(S)
    calls = {"attention": {}, "attend": {}, "decode": {"length": 30}}
    for name, more in calls.items():
        for bad in ("scale", "length" if name == "attention" else "window"):
            with pytest.raises(TypeError, match=rf"{name}\(\) got an unexpected .* '{bad}'"):
                getattr(multistep, name)(q, k, v, routing, S, **more, **{bad: 1})
    with pytest.raises(TypeError, match="'query_offset'"):
        multistep.decode(q, k, v, routing, S, length=30, query_offset=1)
    with pytest.raises(TypeError, match="'scale'"):
        multistep.compare(q, q, k, v, routing, S, scale=1)
    with pytest.raises(TypeError, match="length None"):
        multistep.decode(q, k, v, routing, S, length=None)
    with pytest.raises(TypeError, match="length"):
        multistep.decode(q, k, v, routing, S)
    for name in (*calls, "compare"):
        known = inspect.signature(getattr(multistep, name)).parameters
        assert known["search_scale"].default == 1 and known["start"].default is None
        assert not any(one.kind is one.VAR_KEYWORD for one in known.values())


def test_empty():
    q, k, v, routing = arrays(S)
    nothing = multistep.attend(q[:, :, :0], k, v, [routing[0][:, :, :0]], S)
    assert nothing.output.shape == (1, 2, 0, 8) and nothing.spans.shape == (1, 2, 0, 2, 2)
    assert attend(q[:, :, :0], k[:, :, :0], v[:, :, :0], [routing[0][:, :, :0]]).size == 0
    x, a, b, c = walk(length=0)
    r, state = multistep.accumulate(x, a, b, c)
    assert r.shape == (1, 2, 0, 4) and not state.any()
    with pytest.raises(ValueError, match="none to compare"):
        multistep.compare(nothing.output, q[:, :, :0], k, v, [routing[0][:, :, :0]], S)


def test_claims_of_huge_sizes():
    """Arrays of a few bytes that claim 2^50 elements are refused before they are copied."""
    def huge(*shape, dtype=np.float64):
        return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))

    for length in (2**34, 2**45, 2**55):
        claims = huge(1, 1, length, 8)
        with pytest.raises((MemoryError, ValueError)) as error:
            attend(claims, claims, claims, [claims])
        one_line(error)
        q, k, v, routing = arrays(S)
        with pytest.raises((MemoryError, ValueError)):
            attend(q, huge(1, 1, length, 8), huge(1, 1, length, 8), routing)
        with pytest.raises((MemoryError, ValueError)):
            multistep.verify_spans(*[huge(length, dtype=np.int32)] * 3, 10)
        with pytest.raises((MemoryError, ValueError)):
            multistep.accumulate(claims, huge(1, 1, length), claims, claims)
    deep = Schedule(steps=64, top_k=64)
    wide = huge(1, 2**20, 2**10, 1)
    with pytest.raises((MemoryError, ValueError)):
        multistep.attention(wide, wide, wide, [wide] * 63, deep)
    with pytest.raises((MemoryError, ValueError)):
        Schedule().multiplicity(2**47)


def test_the_core_alone_checks_what_it_is_given():
    core = multistep._core
    q, k, v, routing = arrays(S)
    plan = S.plan(30)
    names = ("plan", "q", "k", "v", "routing_queries", "search_keys", "start", "length",
             "query_offset", "search_scale", "softmax_scale")
    for arguments in ((plan, q, k, v, [], None, None, None, 0, 1.0, None),
                      (plan, q, k[:, :, :5].copy(), v, routing, None, None, None, 0, 1.0, None),
                      (plan, q, k, v, routing, None, np.zeros(3, np.int64), None, 0, 1.0, None),
                      (plan, q, k, v, routing, None, None, np.full(3, 5), 0, 1.0, None),
                      (plan, q, k, v, routing, None, None, np.full(len(q), 31), 0, 1.0, None),
                      (plan, q, k, v, routing, None, None, np.full(len(q), -1), 0, 1.0, None),
                      (plan, q, k, v, routing, None, None, None, 5, 1.0, None),
                      (plan, q.astype(np.float32), k, v, routing, None, None, None, 0, 1.0, None),
                      (plan, q, k, v, routing, None, None, None, -1, 1.0, None)):
        with pytest.raises(ValueError):
            core.attention(filled(core.Inputs(), **dict(zip(names, arguments))))
    with pytest.raises(ValueError):
        core.attention(core.Inputs())
    for name, bad in (("q", np.asfortranarray(q)), ("q", q.astype(">f8")),
                      ("start", [0]), ("plan", None), ("query_offset", 0.5), ("length", 5)):
        with pytest.raises(TypeError):
            setattr(core.Inputs(), name, bad)
    with pytest.raises(AttributeError):
        core.Inputs().query = q


def test_no_leaks():
    q, k, v, routing = arrays(S, queries=64, d=32)

    def round_of_calls():
        multistep.attend(q, k, v, routing, S)
        attend(np.asfortranarray(q), k, v, routing)
        multistep.accumulate(*walk())
        S.verify(500, progress=False)
        S.final_spans(1000)
        multistep.compare(q, q, k, v, routing, S, rows=4)
        for bad in (q[0], None):
            try:
                attend(bad, k, v, routing)
            except (TypeError, ValueError):
                pass

    for _ in range(20):
        round_of_calls()
    tracemalloc.start()
    gc.collect()  # which also empties the interpreter's lists of free tuples
    before = tracemalloc.get_traced_memory()[0]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        round_of_calls()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000, f"{grown} bytes of Python's memory"
    # One lost output a round would be 100 * 32 KiB.
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss
    assert more < 2_500, f"{more} KiB of memory"


def test_scales_are_numbers_and_dtypes_are_checked_first():
    x = np.ones((1, 1, 5, 4))
    for bad in ("0.5", True, np.bool_(True)):
        for name in ("softmax_scale", "search_scale"):
            with pytest.raises(TypeError, match=f"{name} .*: a number"):
                multistep.attention(x, x, x, [x], multistep.Schedule(), **{name: bad})
    with pytest.raises(TypeError, match="dtype int32"):  # not the array, which would be next
        multistep.attention("q", x, x, [x], multistep.Schedule(), dtype="int32")


def test_memory_counts_limits_of_the_process():
    """A limited process gets a MemoryError that tells the sizes, before anything is made."""
    program = """
import multistep
from multistep._arrays import memory_bytes
assert memory_bytes() < 2 << 30, memory_bytes()
try:
    multistep.Schedule(exponent=1).plan(2**27 - 1)
except MemoryError as error:
    print(error)
"""
    limit = (2 << 30, 2 << 30)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
                          env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    assert done.stderr == ""
    assert re.fullmatch(r"length 134217727: its \S+ stripes: takes 2 GiB, \S+ GiB are there\n",
                        done.stdout), done.stdout
