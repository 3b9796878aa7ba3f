#!/usr/bin/env python3
"""`multistep attend`, and what a shape takes: `memory` and `plan`.

Usage: attend_test.py PROGRAM [unittest arguments]
"""

import json

import program
from program import Case, run


class Attend(Case):
    def test_threads_do_not_change_a_bit(self):
        arguments = ("attend", "--length", 600, "--heads", 4, "--kv-heads", 2, "--steps", 3,
                     "--window-index", 1)
        sums = {self.json(*arguments, threads=threads)["checksum"] for threads in (1, 2, 5)}
        self.assertEqual(len(sums), 1)
        self.assertNotEqual(sums, {self.json(*arguments, "--seed", 2)["checksum"]})

    def test_one_step_is_dense(self):
        result = self.json("attend", "--length", 100, "--steps", 1, "--head-dim", 8)
        self.assertEqual(result["work"], {"anchors_scored": 0, "keys_attended": 5050,
                                          "share_of_dense": 1})

    def test_aligned_parts(self):
        # All are kept. Parts of 1, 2, 4 keys up to 2, 8, 32 keys of context.
        result = self.json("attend", "--length", 30, "--preset", "aligned", "--top-k", 64,
                           "--head-dim", 8)
        part = [1 if n <= 2 else 2 if n <= 8 else 4 for n in range(1, 31)]
        self.assertEqual(result["work"], {
            "anchors_scored": sum(-(-n // s) for n, s in enumerate(part, 1)),
            "keys_attended": 465, "share_of_dense": result["work"]["share_of_dense"]})

    def test_the_share_of_dense_counts_eligible_keys(self):
        result = self.json("attend", "--length", 100, "--start", 90, "--steps", 1, "--head-dim", 2)
        self.assertEqual(result["work"], {"anchors_scored": 0, "keys_attended": 55,
                                          "share_of_dense": 1})

    def test_bad_options(self):
        self.refuses(["attend", "--length", "9", "--heads", "3", "--kv-heads", "2"],
                     "--kv-heads 2: a divisor of --heads 3")
        self.refuses(["attend", "--length", "9", "--dtype", "half"], "--dtype half: float or double")
        done = run("attend", "--length", "64Gi")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^multistep attend: --length 68719476736: the arrays take "
                                      r"\S+ GiB, at most \S+ GiB fit this machine\n$")


class Memory(Case):
    """`memory`, whose scratch is that of the kernels on the device, or null with a reason."""

    def test_the_authors_model_keeps_6_kib_a_token(self):
        arguments = ("memory", "--length", "10M", "--heads", 2, "--kv-heads", 2, "--layers", 6)
        result = self.json(*arguments)
        self.assertEqual(result["bytes_per_token"], 6 * 1024)
        self.assertEqual([result[name] for name in ("keys", "values", "search_keys")],
                         [30_720_000_000, 30_720_000_000, 0])
        self.assertEqual(result["scratch"] is None, result["scratch_reason"] is not None)
        text = self.answer(*arguments)
        self.assertIn("a token      6144 bytes, 6.00 KiB\n", text)
        self.assertIn("search keys  the keys\n", text)
        own = self.json(*arguments, "--search-keys", "--batch", 3, "--dtype", "double")
        self.assertEqual(own["search_keys"], 12 * 30_720_000_000)
        self.assertEqual(own["bytes_per_token"], 6 * 6 * 1024)
        self.assertIn("scratch      not known: ", self.answer(*arguments, "--dtype", "double"))

    def test_bytes_that_64_bits_do_not_hold(self):
        result = self.json("memory", "--length", 2**48, "--kv-heads", 32, "--layers", 1024)
        self.assertEqual(result["keys"], str(2**48 * 32 * 128 * 1024 * 2))
        self.assertEqual(result["bytes_per_token"], 2 * 32 * 128 * 1024 * 2)

    def test_bad_options(self):
        self.refuses(["memory", "--length", "9", "--dtype", "int8"],
                     "--dtype int8: bf16, fp16, float or double")
        self.refuses(["memory", "--length", "9", "--kv-heads", "5"],
                     "--kv-heads 5: a divisor of --heads 32")
        self.refuses(["memory", "--length", "9", "--queries", "10"],
                     "--queries 10: an integer in [1, 9]")


class Plan(Case):
    """`plan`, of a chip that need not be there."""

    def plan(self, *options, chip="h100", **expected):
        arguments = ("plan", "--chip", chip, *options)
        done = run(*arguments, "--json")
        if "built without CUDA" in done.stderr:
            self.skipTest("built without CUDA")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        result = json.loads(done.stdout)
        stages = {stage["stage"]: stage for stage in result["stages"]}
        self.assertEqual({name: stage["kernels"] for name, stage in stages.items()}, expected)
        self.assertEqual(result["fast"], all(stage["fast"] for stage in stages.values()))
        for stage in stages.values():
            self.assertEqual(stage["fast"], stage["why"] == "")
        return {name: stage["why"] for name, stage in stages.items()}

    def test_fast(self):
        pieces = {"attend": ["decode_pieces"], "combine": ["decode_pieces"]}
        tiles = {"attend": ["sort_pairs", "attend_tiles"], "combine": ["combine_row_pieces"]}
        self.plan("--length", "1Mi", "--steps", 4, search=["search_few"], **pieces)
        self.plan("--length", "1Mi", "--steps", 5, search=["search_few"] * 2, **pieces)
        self.plan("--length", "1Mi", "--steps", 1, attend=["attend_tiles"], combine=["merge_outputs"])
        self.plan("--length", "1Mi", "--steps", 1, "--queries", 129, combine=["attend_tiles"])
        chunk = ("--length", "1Mi", "--queries", "4Ki")
        self.plan(*chunk, "--steps", 3,
                  search=["search_shared", "order_pairs", "search_parents", "choose_rows"], **tiles)
        aligned = ("--preset", "aligned", "--steps", 3)
        self.plan(*chunk, *aligned,
                  search=["search_parts", "order_pairs", "search_parts", "choose_rows"], **tiles)
        self.plan("--length", "1Mi", "--queries", 320, *aligned,  # too few for the parents
                  search=["search_parts", "search_parents", "choose_rows"], **tiles)
        self.plan(*chunk, "--steps", 3, "--rule", "tight,aligned",
                  search=["search_shared", "order_pairs", "search_parents", "choose_rows"], **tiles)
        self.plan(*chunk, "--steps", 1, combine=["attend_tiles"])
        self.plan(*chunk, "--steps", 2, "--window-index", 4, search=["search_shared"],
                  attend=tiles["attend"], combine=["attend_tiles"])

    def test_where_rows_of_a_kv_head_are_more_than_64(self):
        heads = ("--heads", 32, "--kv-heads", 2)
        pieces = {"attend": ["decode_pieces"], "combine": ["decode_pieces"]}
        tiles = {"attend": ["sort_pairs", "attend_tiles"], "combine": ["attend_tiles"]}
        short = (*heads, "--length", "8Ki", "--preset", "released")
        self.plan(*short, "--queries", 4, search=["search_few"], **pieces)
        self.plan(*short, "--queries", 5, search=["search_few"], **tiles)
        # The longer the context, the more queries read less of it alone than tiles do.
        for length, last in ("64Ki", 9), ("1Mi", 20):
            long = (*heads, "--length", length, "--preset", "paper", "--window-index", 31)
            self.plan(*long, "--queries", last, search=["search_few"], **pieces)
            self.plan(*long, "--queries", 2 * last, search=["search_few"], **tiles)

    def test_why_not(self):
        shape = ("--length", "64Ki", "--preset", "released")
        why = "head_dim 100: multiples of 8 up to 256 are built"
        for queries in (1, 4096):
            found = self.plan(*shape, "--head-dim", 100, "--queries", queries,
                              search=["search_level"], attend=["span_attention"],
                              combine=["combine_rows"])
            self.assertEqual(found, dict.fromkeys(("search", "attend", "combine"), why))

    def test_more_paths_than_a_list_has(self):
        tiles = {"attend": ["sort_pairs", "attend_tiles"],
                 "combine": ["attend_tiles", "combine_row_pieces"]}
        pieces = {"attend": ["decode_pieces"], "combine": ["decode_pieces"]}
        for queries, top_k, level_1, sort, attended in (
                (1, 31, "search_few", [], pieces), (1, 32, "search_few", [], tiles),
                (4096, 17, "search_shared", ["order_pairs"], tiles)):
            many = ("--length", "64Ki", "--window-index", 4, "--top-k", top_k, "--queries", queries)
            self.plan(*many, search=[level_1], **attended)
            self.plan(*many, "--steps", 3, **attended,
                      search=[level_1, *sort, "search_parents", "choose_many"])

    def test_other_chips(self):
        # Where Hopper's instructions are not there, other tiles.
        shape = ("--length", "64Ki", "--preset", "released")
        tiles = "attend_warp_tiles"
        self.plan(*shape, "--queries", 4096, chip="a100", search=["search_shared"],
                  attend=["sort_pairs", tiles], combine=[tiles])
        self.plan("--length", "64Ki", "--steps", 1, "--queries", 4096, chip="a100",
                  combine=[tiles])
        # Without clusters a group of 16 heads searches level 1 and the levels below it apart.
        self.plan("--length", "1Mi", "--steps", 4, chip="a100", search=["search_few"] * 2,
                  attend=["decode_pieces"], combine=["decode_pieces"])

    def test_the_backward_pass(self):
        if "built without CUDA" in run("plan", "--length", 9).stderr:
            self.skipTest("built without CUDA")
        hopper, warps, plain = (["backward_queries", "backward_keys"],
                                ["backward_warp_queries", "backward_warp_keys"],
                                ["query_gradients", "key_gradients"])
        for chip, head_dim, kernels in (("h100", 128, hopper), ("h100", 136, warps),
                                        ("a100", 128, warps), ("a100", 256, warps),
                                        ("h100", 100, plain), ("a100", 100, plain)):
            found = self.json("plan", "--length", "4Ki", "--queries", "4Ki", "--chip", chip,
                              "--head-dim", head_dim)["backward"]
            self.assertEqual((found["kernels"], found["fast"]), (kernels, kernels != plain))

    def test_the_text(self):
        if "built without CUDA" in run("plan", "--length", 9).stderr:
            self.skipTest("built without CUDA")
        text = self.answer("plan", "--length", "1Mi", "--head-dim", 100, "--chip", "h100")
        self.assertIn("search       search_level (no faster one: head_dim 100: multiples of 8 up to "
                      "256 are built)\n", text)
        self.assertRegex(text, r"work         a row scores \d+\.\d anchors and attends to ")
        self.refuses(["plan", "--length", "9", "--chip", "tpu"], "--chip tpu: h100 or a100")
        self.refuses(["plan", "--length", "9", "--preset", "released", "--steps", "1"],
                     "--steps 1: preset released has 2 steps")
        self.refuses(["plan", "--length", "9", "--dtype", "float"], "--dtype float: bf16 or fp16")
        self.refuses(["plan", "--length", "9", "--head-dim", "512"],
                     "head_dim 512: an integer in [1, 256]")


class MemoryOfTheProcess(Case):
    """What does not fit the process is refused before it is asked for."""

    def refuses_size(self, *arguments, what):
        done = run(*arguments, memory=1 << 30)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, fr"^multistep {arguments[0]}: {what} take \d+\.\d\d GiB, at "
                                      r"most 0\.\d\d GiB fit this machine\n$")

    def test_arrays(self):
        self.refuses_size("attend", "--length", "1Mi", what="--length 1048576: the arrays")

    def test_stripes(self):
        self.refuses_size("verify", "--length", "134M", "--exponent", 1,
                          what="--length 134000000: its stripes")
        self.refuses_size("needles", "--lengths", "134M", "--exponent", 1, "--noise", 1,
                          what="--lengths 134000000: its stripes")

    def test_checkers(self):
        done = run("verify", "--length", 2**48, "--queries", "1M", "--preset", "paper", threads=64,
                   memory=2 << 30)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^multistep verify: --length 281474976710656: 64 checkers "
                                      r"take 16\.00 GiB, at most \S+ GiB fit this machine\n$")

    def test_maps(self):
        self.answer("map", "--length", 64, "--json", memory=1 << 30)
        done = run("map", "--length", 4096, "--steps", 2, "--json", memory=1 << 30)
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertRegex(done.stderr, r"^multistep map: --length 4096: the map takes \S+ GiB, ")


if __name__ == "__main__":
    program.main()
