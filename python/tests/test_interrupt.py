"""Long work lets other threads run, and Ctrl-C ends it, all of it, within a second."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import multistep
from multistep import Schedule

LONG = {
    "verify": "Schedule(rule='power', backward='19/10', forward=0).verify(10**9)",
    "sampled": "Schedule.preset('released').verify(2**47, queries=2**23)",
    "pattern": "multistep.verify_pattern('log-sparse', 2**40)",
    "layers": "multistep.verify_pattern('window', 2**16, window=16, layers='closure')",
    "tables": "Schedule(exponent='16/10').plan(2**43)",
    "attention": "multistep.attention(big, big, big, [big], Schedule(top_k=64))",
    "dense": "multistep.attention(big, big, big, [], Schedule(1))",
    "one query": "Schedule(steps=3, rule='power', backward='19/10').verify(2**40, queries=1)",
    "accumulate": "multistep.accumulate(wide, wide[..., 0].copy(), wide, wide)",
    "accumulate gradients": "multistep._core.accumulate_backward(oracle.recurrence(wide, "
                            "wide[..., 0].copy(), wide, wide)[0], wide, np.zeros((1, 8, 1024, "
                            "1024)))",
    "compare": "multistep.compare(big, big, big, big, [big], Schedule(top_k=16), rows='all')",
    "gradients": "oracle.attention_backward(oracle.problem(few, few, few, [few], "
                 "Schedule(top_k=1)), Derivatives(few), newest)",
    "final_spans": "[Schedule(steps=3).final_spans(t) for t in range(10**7)]",
}


def seconds_to_stop(code):
    """What each of two threads has of the processor from the signal on: a busy machine gives less
    at a time, and no more in all."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "2"})
    watchdog = threading.Timer(120, process.kill)  # then the lines below do not come
    watchdog.start()
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.7)
        with open(f"/proc/{process.pid}/stat") as stat:
            ticks = sum(map(int, stat.read().rsplit(")")[-1].split()[11:13]))
        process.send_signal(signal.SIGINT)
        word, spent = process.stdout.readline().split()
        assert word == "interrupted"
        assert process.stdout.readline() == "idle\n"
        return (float(spent) - ticks / os.sysconf("SC_CLK_TCK")) / 2
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("name", LONG)
def test_keyboard_interrupt(name):
    """SIGINT, as the terminal sends it, in the middle of the work."""
    code = textwrap.dedent(f"""
        import multistep, numpy as np, signal, sys, time
        from multistep import Schedule, oracle
        from multistep._problem import Derivatives, Kept
        # A shell's background jobs inherit that SIGINT is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        big = np.random.default_rng(0).random((1, 8, 60_000, 64))
        wide = big.reshape(1, 8, -1, 1024)  # a larger state
        few = big[:, :2]
        keys = np.tile(np.arange(60_000), (1, 2, 1))[..., None]  # spans as long as Schedule()'s
        newest = Kept(np.stack([np.maximum(keys - 479, 0), keys + 1], -1), 0.0 * keys,
                           keys[..., None])
        print("ready", flush=True)
        try:
            while True:  # work of several seconds here, perhaps of less elsewhere
                {LONG[name]}
        except KeyboardInterrupt:
            print("interrupted", time.process_time(), flush=True)
        time.sleep(0.1)  # threads that have just ended look out for more for a while
        began = time.process_time()
        time.sleep(0.4)
        print("idle" if time.process_time() - began < 0.1 else "still at work", flush=True)
    """)
    assert seconds_to_stop(code) < 1


def test_other_threads_run():
    big = np.random.default_rng(0).random((1, 2, 40_000, 64))
    done = threading.Event()
    ticks = []

    def tick():
        while not done.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.005)

    ticker = threading.Thread(target=tick)
    ticker.start()
    began = time.monotonic()
    multistep.attention(big, big, big, [big], Schedule(top_k=8))
    took = time.monotonic() - began
    done.set()
    ticker.join()
    during = [t for t in ticks if began <= t <= began + took]
    assert len(during) > 2, f"of {took:.2f} s"  # and none where the call holds them up


def test_two_threads_get_the_same_as_one():
    rng = np.random.default_rng(0)
    q, k, v, r = rng.standard_normal((4, 1, 2, 500, 16))
    want = multistep.attention(q, k, v, [r], Schedule())
    found = [None] * 4

    def work(i):
        found[i] = multistep.attention(q, k, v, [r], Schedule())
        assert Schedule(steps=3).verify(3000 + i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(one, want) for one in found)


def test_what_progress_raises_comes_through():
    calls = []

    def show(done, total):
        calls.append((done, total))
        raise RuntimeError("enough")

    slow = Schedule(rule="power", backward="19/10", forward=0)
    with pytest.raises(RuntimeError, match="enough"):
        multistep._core.verify_all(slow.plan(10**8).schedule, 10**8, 0, show)
    assert len(calls) == 1
