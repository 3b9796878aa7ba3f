#!/usr/bin/env python3
"""Runs every command that README.md shows with its output, and compares the two; its C++ must be
that of the consumer project, which another test builds and runs. Commands for a GPU stand in
indented blocks, which are not run.

Usage: readme_test.py PROGRAM            compare
       readme_test.py PROGRAM --write    write the outputs and the C++ into README.md
Seconds and checksums are not compared: the first differ from run to run, the second between
mathematical libraries.
"""

import difflib
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
CONSUMERS = [ROOT / "tests/package/consumer" / name for name in ("main.cpp", "gpu.cpp")]  # in README's order


def session(program, block):
    """The commands of a console block, each with what it prints now."""
    lines = []
    for command in re.findall(r"^\$ (multistep .*)$", block, re.MULTILINE):
        arguments = shlex.split(command)[1:]
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        lines.append(f"$ {command}\n{done.stdout}{done.stderr}".rstrip())
    return "\n\n".join(lines) + "\n"


def comparable(text):
    return re.sub(r"\d+\.\d\d s\b|checksum [0-9a-f]{16}", "...", text)


def main():
    text = README.read_text()
    fresh = re.sub(r"(?<=```console\n).*?(?=```)", lambda found: session(sys.argv[1], found[0]),
                   text, flags=re.DOTALL)
    sources = iter(CONSUMERS)
    fresh, count = re.subn(r"(?<=```cpp\n).*?(?=```)", lambda _: next(sources).read_text(), fresh,
                           flags=re.DOTALL)
    if count != len(CONSUMERS):
        sys.exit(f"README.md: {count} blocks of C++, not {len(CONSUMERS)}")
    commands = fresh.count("\n$ multistep ")
    if "--write" in sys.argv:
        README.write_text(fresh)
    elif comparable(fresh) != comparable(text):
        difference = difflib.unified_diff(text.splitlines(), fresh.splitlines(), "README.md",
                                          "what comes out", lineterm="")
        print("\n".join(difference))
        return 1
    print(f"{commands} commands of README.md, and its C++")
    return 0 if commands else 1


if __name__ == "__main__":
    sys.exit(main())
