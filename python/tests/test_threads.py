"""How many threads a long call has, that they are kept for the next, and what forks and ends do."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

SETUP = """
import ctypes, functools, os, signal, sys, threading, time
import numpy as np
import multistep
from multistep import Schedule, oracle
from multistep._problem import Derivatives, Kept

signal.alarm(120)  # nothing hangs
print = functools.partial(print, flush=True)  # before any fork
rng = np.random.default_rng(0)
big = rng.standard_normal((1, 8, 700, 4))  # too many rows for one thread
wide = rng.random((1, 4, 700, 64))
gradient = np.ones((1, 4, 64, 64))


def tasks():
    return len(os.listdir("/proc/self/task"))


def attend():
    return multistep.attention(big, big, big, [big], Schedule())


def everything():
    given, _ = oracle.recurrence(wide, wide[..., 0].copy(), wide, wide)
    return [attend(), multistep.accumulate(wide, wide[..., 0].copy(), wide, wide),
            multistep._core.accumulate_backward(given, wide, gradient),
            oracle.attention_backward(
                oracle.problem(big, big, big, [big], Schedule()), Derivatives(big),
                Kept(*oracle.attention(big, big, big, [big], Schedule())[3:])).q,
            Schedule(exponent=1).plan(2_000_000).max_length,
            Schedule(rule="power", backward=1).verify(20_000, progress=False).excluded_pairs,
            Schedule().verify(10**9, queries=2000, progress=False).covered,
            bool(multistep.compare({"output": attend()}, big, big, big, [big], Schedule(),
                                   rows=5000))]


def bytes_of(found):
    if isinstance(found, (list, tuple)):
        return b"".join(map(bytes_of, found))
    return np.asarray(found).tobytes()


def runtimes():  # as threadpoolctl finds them
    with open("/proc/self/maps") as maps:
        paths = {line.split()[-1] for line in maps if "libgomp" in line or "libomp" in line}
    return [ctypes.CDLL(path) for path in paths]


def set_threads(count):
    for runtime in runtimes():
        runtime.omp_set_num_threads(count)


"""


def run(code, **environment):
    """What the code prints, in a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run([sys.executable, "-c", SETUP + textwrap.dedent(code)],
                          env={**inherited, **environment}, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", (done.returncode, done.stderr)
    return done.stdout.split()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_threads_of_the_environment_are_kept(count):
    code = """
        before = tasks()
        attend()
        print(multistep._core.threads(), tasks() - before)
        for _ in range(3):
            everything()
        print(tasks() - before)
    """
    assert run(code, OMP_NUM_THREADS=str(count)) == [str(count)] * 3


def test_threads_that_the_calling_thread_was_told():
    code = """
        before = tasks()
        set_threads(3)
        everything()
        print(multistep._core.threads(), tasks() - before)

        def call():  # another thread, which has been told nothing
            print(multistep._core.threads())
            set_threads(1)
            attend()
            print(multistep._core.threads())

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        print(multistep._core.threads())
    """
    assert run(code, OMP_NUM_THREADS="2") == ["3", "3", "2", "1", "3"]


@pytest.mark.parametrize("first", ["import torch", ""])
def test_threads_of_torch(first):
    pytest.importorskip("torch")
    code = """
        import torch
        everything()
        before = tasks()
        torch.set_num_threads(1)
        everything()
        print(multistep._core.threads(), max(0, tasks() - before))

        def call():
            print(multistep._core.threads())

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

        def limited():  # by threadpoolctl: the answer of torch does not undo it
            set_threads(1)
            torch_threads = multistep._core.threads()
            print(torch_threads, multistep._core.threads())

        torch.set_num_threads(2)
        thread = threading.Thread(target=limited)
        thread.start()
        thread.join()
    """
    done = subprocess.run([sys.executable, "-c", first + "\n" + SETUP + textwrap.dedent(code)],
                          capture_output=True, text=True)
    assert done.stdout.split() == ["1", "0", "1", "1", "1"], done.stderr


def test_the_number_of_threads_does_not_change_a_bit():
    code = """
        import hashlib
        print(hashlib.sha256(bytes_of(everything())).hexdigest())
    """
    found = {run(code, OMP_NUM_THREADS=str(count))[0] for count in (1, 2, 7)}
    assert len(found) == 1


def test_calls_at_the_same_time():
    code = """
        want = bytes_of(attend())
        before = tasks()
        right = []

        def call():
            right.append(all(bytes_of(attend()) == want for _ in range(3)))

        for _ in range(3):
            threads = [threading.Thread(target=call) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        while tasks() > before + 3 * 2:  # threads that were joined, and have yet to go
            time.sleep(0.01)
        print(len(right), all(right))
    """
    assert run(code, OMP_NUM_THREADS="2") == ["12", "True"]


def test_a_forked_child_starts_anew():
    code = """
        want = bytes_of(everything())
        busy = threading.Thread(target=lambda: [everything() for _ in range(4)])

        def child():
            pid = os.fork()
            if pid == 0:
                signal.alarm(60)
                before = tasks()
                right = before == 1 and bytes_of(everything()) == want and tasks() == 1 + 3
                sys.exit(0 if right else 1)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        print(child())
        busy.start()
        print(*[child() for _ in range(5)])  # in the midst of a call
        busy.join()
        print(child(), bytes_of(everything()) == want)
    """
    # Python 3.12 warns of forks beside threads.
    assert run(code, OMP_NUM_THREADS="3", PYTHONWARNINGS="ignore") == [*"0000000", "True"]


@pytest.mark.parametrize("call", ["attend()", "Schedule(exponent=1).plan(10**8)",
                                  "multistep.attention(q, q, q, [q], Schedule())"])
def test_the_end_of_the_program_finds_daemons_in_calls(call):
    code = f"""
        q = big[:, :1, :4]

        def forever():
            while True:
                {call}

        for _ in range(3):
            threading.Thread(target=forever, daemon=True).start()
        attend()
        print("end")
    """
    for _ in range(3):
        assert run(code, OMP_NUM_THREADS="2") == ["end"]


def test_calls_while_the_program_ends():
    code = """
        import atexit
        print(len(attend()))
        """
    early = "import atexit; atexit.register(lambda: print(len(attend())))\n"
    done = subprocess.run([sys.executable, "-c", early + SETUP + textwrap.dedent(code)],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["1", "1"]), done.stderr
