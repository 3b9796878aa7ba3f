#!/usr/bin/env python3
"""cmake/Cuda.cmake with programs that stand in for nvcc: where it is looked for, and what is said of
one that cannot build the kernels. Nothing is built."""

import os
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]

PROJECT = f"""cmake_minimum_required(VERSION 3.24)
project(stranger LANGUAGES NONE)
include({ROOT}/cmake/Cuda.cmake)
message(STATUS "kernels: ${{MULTISTEP_CUDA}}, reason: ${{MULTISTEP_NO_CUDA_REASON}}.")
"""

# Tells its version; compiles as `compiles` says.
NVCC = """#!/bin/sh
case "$*" in
  --version) echo "nvcc: NVIDIA (R) Cuda compiler driver"
    echo "Cuda compilation tools, release {version}, V{version}.40" ;;
  *) {compiles} ;;
esac
"""
UNSUPPORTED = ("host_config.h:132:2: error: #error -- unsupported GNU version! gcc versions later "
               "than 13 are not supported; use the nvcc flag \\\"-x\\\" $HOME")
FAILS = f"echo 'nvcc warning : old' >&2; echo \"{UNSUPPORTED}\" >&2; echo more >&2; exit 1"


class Nvcc(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "CMakeLists.txt").write_text(PROJECT)

    def nvcc(self, name, version, compiles="exit 0"):
        """A compiler at <folder>/<name>/bin/nvcc."""
        program = self.folder / name / "bin" / "nvcc"
        program.parent.mkdir(parents=True)
        program.write_text(NVCC.format(version=version, compiles=compiles))
        program.chmod(0o755)
        return program

    def configure(self, *options, path="/usr/bin:/bin", **environment):
        """How configuring ended, and all that it said, on one line."""
        cmake = os.environ.get("CMAKE_COMMAND", "cmake")
        done = subprocess.run([cmake, "-S", self.folder, "-B", self.folder / "build", *options],
                              capture_output=True, text=True, timeout=600,
                              env={"PATH": path, **{k: str(v) for k, v in environment.items()}})
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    def refused(self, why, *options, **environment):
        code, said = self.configure("-DMULTISTEP_CUDA=AUTO", *options, **environment)
        self.assertEqual(code, 0, said)
        self.assertIn(f"No CUDA kernels are built: {why}", said)
        self.assertIn(f"kernels: OFF, reason: {why}.", said)
        cache = (self.folder / "build" / "CMakeCache.txt").read_text()
        self.assertIn(f"\nMULTISTEP_NO_CUDA_REASON:INTERNAL={why}\n", cache)
        code, said = self.configure("-DMULTISTEP_CUDA=ON", *options, **environment)
        self.assertNotEqual(code, 0, said)
        self.assertIn(f"MULTISTEP_CUDA=ON: {why}", said)

    def test_too_old(self):
        old = self.nvcc("old", "12.4")
        self.refused(f"{old} is of CUDA 12.4: 12.5 or later is needed", CUDACXX=old)

    def test_does_not_compile(self):
        broken = self.nvcc("broken", "13.0", FAILS)
        why = (f"{broken} does not compile: host_config.h:132:2: error: error -- unsupported GNU "
               "version! gcc versions later than 13 are not supported use the nvcc flag '-x'")
        self.refused(why, CUDACXX=broken)

    def test_dies_without_a_word(self):
        silent = self.nvcc("silent", "13.0", "exit 3")
        self.refused(f"{silent} does not compile: ended with 3", CUDACXX=silent)

    def test_is_no_nvcc(self):
        stranger = self.nvcc("stranger", "13.0")
        stranger.write_text("#!/bin/sh\necho what?\n")
        self.refused(f"{stranger} does not tell its version: what?", CUDACXX=stranger)
        self.refused("/nowhere/nvcc does not tell its version: No such file or directory",
                     CUDACXX="/nowhere/nvcc")

    def test_places(self):
        """In this order; the first decides, be there better ones behind it."""
        places = {name: self.nvcc(name, version) for name, version in (
            ("named", "9.1"), ("path", "9.2"), ("home", "9.3"), ("cuda_path", "9.4"))}
        path = f"{places['path'].parent}:/usr/bin:/bin"
        homes = {"CUDA_HOME": self.folder / "home", "CUDA_PATH": self.folder / "cuda_path"}

        def chosen(name, **environment):
            version = {"named": "9.1", "path": "9.2", "home": "9.3", "cuda_path": "9.4"}[name]
            self.refused(f"{places[name]} is of CUDA {version}: 12.5 or later is needed",
                         **environment)

        chosen("named", path=path, CUDACXX=places["named"], **homes)
        chosen("path", path=path, **homes)
        chosen("home", **homes)
        chosen("cuda_path", CUDA_PATH=homes["CUDA_PATH"])

    def test_none(self):
        if pathlib.Path("/usr/local/cuda/bin/nvcc").exists() or pathlib.Path("/usr/bin/nvcc").exists():
            self.skipTest("there is an nvcc")
        self.refused("nvcc is not on PATH, nor named by CUDACXX, nor in CUDA_HOME, CUDA_PATH or "
                     "/usr/local/cuda")

    def test_not_wanted(self):
        good = self.nvcc("good", "13.0")
        code, said = self.configure("-DMULTISTEP_CUDA=OFF", CUDACXX=good)
        self.assertEqual(code, 0, said)
        self.assertIn("kernels: OFF, reason: MULTISTEP_CUDA=OFF.", said)
        self.assertNotIn("No CUDA kernels", said)

    def test_no_such_choice(self):
        code, said = self.configure("-DMULTISTEP_CUDA=maybe")
        self.assertEqual(code, 1, said)
        self.assertIn("MULTISTEP_CUDA=MAYBE: AUTO, ON or OFF", said)
        code, said = self.configure("-DMULTISTEP_CUDA=off")
        self.assertEqual(code, 0, said)
        self.assertIn("kernels: OFF, reason: MULTISTEP_CUDA=OFF.", said)

    def test_flags_are_those_that_cmake_takes(self):
        """From the environment until they are in the cache, and then from there."""
        once = self.nvcc("once", "13.0", 'test "$(echo "$*" | grep -o -- -some | wc -l)" = 1')
        for options in (), ("-DCMAKE_CUDA_FLAGS=-some",):
            _, said = self.configure(*options, CUDACXX=once, CUDAFLAGS="-some")
            self.assertNotIn("No CUDA kernels", said)
            self.assertIn("(enable_language)", said)

    def test_asks_anew(self):
        """A build folder from before nvcc was mended is no obstacle."""
        broken = self.nvcc("broken", "13.0", FAILS)
        code, said = self.configure(CUDACXX=broken)
        self.assertEqual(code, 0, said)
        self.assertIn("kernels: OFF", said)
        broken.write_text(NVCC.format(version="13.0", compiles="exit 0"))
        _, said = self.configure(CUDACXX=broken)
        self.assertNotIn("No CUDA kernels", said)
        self.assertIn("(enable_language)", said)  # which looks for more than a stand-in has


if __name__ == "__main__":
    unittest.main()
