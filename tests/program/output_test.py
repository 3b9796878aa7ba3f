#!/usr/bin/env python3
"""Where the output of the program goes, and how it ends.

Usage: output_test.py PROGRAM [unittest arguments]
"""

import json
import os
import pathlib
import resource
import subprocess
import tempfile

import program
from program import Case


class Output(Case):
    VERIFY = ("verify", "--length", 9, "--json")

    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def refuses_place(self, path, reason, *arguments):
        self.refuses([*(arguments or self.VERIFY), "--output", str(path)],
                     f"--output {path}: a file that can be written ({reason})", stdin="")

    def entries(self):
        return sorted(entry.name for entry in self.folder.iterdir())

    def test_files_are_whole_or_absent(self):
        path = self.folder / "report.json"
        self.answer(*self.VERIFY, "--output", path)
        self.assertIs(json.loads(path.read_text())["covered"], True)
        self.assertEqual(self.entries(), [path.name])
        long = self.folder / ("x" * 255)
        self.answer(*self.VERIFY, "--output", long)
        self.assertIs(json.loads(long.read_text())["covered"], True)

    def test_a_place_that_cannot_be_written_is_refused_before_the_work(self):
        """It would take a day."""
        work = ("verify", "--length", "1000000000000", "--rule", "power", "--backward", 1)
        self.refuses_place("/no/such/folder/x", "No such file or directory", *work)
        self.refuses_place(self.folder, "Is a directory", *work)
        self.refuses_place(f"{self.folder}/x/", "No such file or directory", *work)
        self.refuses_place(self.folder / ("x" * 256), "File name too long", *work)
        self.refuses_place("/dev/fd/77", "Bad file descriptor", *work)
        self.refuses_place("/proc/self/fd/0", "Bad file descriptor", *work)
        loop = self.folder / "loop"
        loop.symlink_to(loop)
        self.refuses_place(loop, "Too many levels of symbolic links", *work)
        self.assertEqual(self.entries(), ["loop"])
        done = subprocess.run(f"exec '{program.PROGRAM}' {' '.join(map(str, work))} >&-", shell=True,
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (2, "multistep verify: standard output: "
                                                          "cannot be written (Bad file descriptor)\n"))

    def test_a_file_past_the_limit_of_files(self):
        path = self.folder / "report.json"
        done = subprocess.run([program.PROGRAM, *map(str, self.VERIFY), "--output", path],
                              capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(
                                  resource.RLIMIT_FSIZE, (64, 64)))
        self.assertEqual((done.returncode, done.stderr),
                         (2, f"multistep verify: --output {path}: a file that can be written "
                             "(File too large)\n"))
        self.assertEqual(self.entries(), [])

    def test_options_without_their_values(self):
        for option in ("--output", "--spans", "--length", "--seed"):
            self.refuses(["verify", "--length", "9", f"{option}=", "--json"], f"{option} '': a value")
        for command, option in (("scale", "--configs"), ("audit", "--exponents"), ("map", "--length"),
                                ("needles", "--commit"), ("attend", "--dtype"), ("bench", "--lengths")):
            self.refuses([command, f"{option}=", "--json"], f"{option} '': a value")
        done = subprocess.run([program.PROGRAM, "verify", "--length", "9", "--output", "--json"],
                              cwd=self.folder, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (2, "", "multistep verify: --output '--json': a value\n"))
        self.assertEqual(self.entries(), [])

    def test_links_are_followed_and_devices_written(self):
        file, link, device = (self.folder / name for name in ("file", "link", "device"))
        file.write_text("old")
        file.chmod(0o640)
        link.symlink_to("file")
        self.answer(*self.VERIFY, "--output", link)
        self.assertTrue(link.is_symlink())
        self.assertEqual(file.stat().st_mode & 0o777, 0o640)
        self.assertIs(json.loads(file.read_text())["covered"], True)
        device.symlink_to("/dev/full")
        self.refuses_place(device, "No space left on device")
        self.assertTrue(pathlib.Path("/dev/full").is_char_device())

    def test_a_link_to_no_file_yet_is_followed(self):
        dangling, nowhere = self.folder / "dangling", self.folder / "nowhere"
        (self.folder / "inner").mkdir()
        dangling.symlink_to("inner/new")
        self.answer(*self.VERIFY, "--output", dangling)
        self.assertTrue(dangling.is_symlink())
        self.assertIs(json.loads((self.folder / "inner/new").read_text())["covered"], True)
        nowhere.symlink_to(self.folder / "absent/new")
        self.refuses_place(nowhere, "No such file or directory")
        self.assertTrue(nowhere.is_symlink())

    def test_streams_take_the_text_as_it_comes(self):
        for name in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
            done = subprocess.run([program.PROGRAM, "verify", "--length", "9", "--json", "--output", name],
                                  cwd=self.folder, capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIs(json.loads(done.stdout)["covered"], True)
        self.assertEqual(self.entries(), [])
        reader, pipe = os.pipe()  # as >(cat) makes one
        done = subprocess.run([program.PROGRAM, *map(str, self.VERIFY), "--output", f"/dev/fd/{pipe}"],
                              pass_fds=[pipe], capture_output=True, text=True)
        os.close(pipe)
        with open(reader) as read:
            self.assertIs(json.loads(read.read())["covered"], True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_standard_output_that_is_a_file_is_added_to(self):
        shared = self.folder / "shared"
        command = f"(echo first; '{program.PROGRAM}' verify --length 9 --output /dev/stdout; echo last)"
        subprocess.run(f"{command} > {shared}", shell=True, check=True)
        lines = shared.read_text().splitlines()
        self.assertEqual((lines[0], lines[1][:8], lines[-1]), ("first", "schedule", "last"))

    def test_a_closed_standard_error_is_no_place_for_files(self):
        """The next file that is opened would become it, and take messages and results alike."""
        path = self.folder / "report"
        subprocess.run(f"exec '{program.PROGRAM}' needles --lengths 8 --depths 1 --noise 0 --rule power "
                       f"--backward 1 --forward 1 --top-k 1 --json --output {path} 2>&-", shell=True)
        self.assertIs(json.loads(path.read_text())["perfect"], False)

    def test_progress_shows_on_a_terminal_and_is_gone_before_the_result(self):
        reader, terminal = os.openpty()
        with subprocess.Popen([program.PROGRAM, "scale", "--steps", "2", "--lengths", "8Gi,16Gi,32Gi,64Gi"],
                              stdout=terminal, stderr=terminal) as process:
            os.close(terminal)
            shown = b""
            try:
                while chunk := os.read(reader, 1 << 16):
                    shown += chunk
            except OSError:  # the terminal's other end is closed
                pass
        os.close(reader)
        self.assertEqual(process.returncode, 0)
        bar, _, result = shown.decode().rpartition("\033[K")
        self.assertIn("scale [", bar)
        self.assertTrue(result.startswith("all queries of a sequence"))

    def test_a_full_disk_is_an_error(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run([program.PROGRAM, "verify", "--length", "9"], stdout=full,
                                  stderr=subprocess.PIPE, text=True)
        self.assertEqual((done.returncode, done.stderr),
                         (2, "multistep verify: standard output: cannot be written (No space left on "
                             "device)\n"))


if __name__ == "__main__":
    program.main()
