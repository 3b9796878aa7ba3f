"""The multistep program as its users meet it: output, exit codes, messages. What its tests share;
each is called with the program, and then with unittest's arguments."""

import json
import os
import resource
import subprocess
import sys
import unittest

PROGRAM = ""


def run(*arguments, stdin=None, threads=None, memory=None):
    """The program's end; `memory` limits its address space, in bytes."""
    environment = dict(os.environ)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)

    def limit():
        if memory:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    done = subprocess.run([PROGRAM, *map(str, arguments)], input=stdin, text=True,
                          capture_output=True, env=environment, timeout=300, preexec_fn=limit)
    if memory and "ReserveShadowMemoryRange failed" in done.stderr:
        raise unittest.SkipTest("the address sanitizer takes more addresses for itself")
    return done


class Case(unittest.TestCase):
    def answer(self, *arguments, code=0, **options):
        """Standard output of a run that ends with `code` and complains about nothing."""
        done = run(*arguments, **options)
        self.assertEqual((done.returncode, done.stderr), (code, ""))
        return done.stdout

    def json(self, *arguments, **options):
        return json.loads(self.answer(*arguments, "--json", **options))

    def refuses(self, arguments, message, **options):
        """Exit 2, nothing on standard output, one line on standard error."""
        done = run(*arguments, **options)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertEqual(done.stderr, f"multistep {arguments[0]}: {message}\n")


def main():
    global PROGRAM
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main()
