#!/usr/bin/env python3
"""Breaks the installed package, one line at a time in a copy, and expects a test to notice.

Usage: mutants.py [NAME ...]    all, or those whose file or line contains a name
"""

import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile

# What takes long to load is there for every mutant, which is a fork; the package is not.
import numpy  # noqa: F401
import pytest

try:
    import torch._dynamo  # noqa: F401
    HAS_TORCH = True
except ImportError:
    HAS_TORCH = False

TESTS = pathlib.Path(__file__).resolve().parent
PACKAGE = pathlib.Path(importlib.util.find_spec("multistep").origin).parent
CAUGHT, SURVIVES = 1, 0  # what pytest returns

OF_TORCH = ("test_attention_on_ranks.py", "test_compare_gradients.py", "test_compile.py",
            "test_decoding_on_ranks.py", "test_flex.py", "test_gradients.py", "test_learning.py",
            "test_module.py", "test_pieces.py", "test_ready.py", "test_torch.py",
            "test_transforms.py")

# file, a line's part, what it becomes, the test file, or its test, that must fail
MUTANTS = [
    ("_rational.py", "if meant != Fraction(value):", "if False:", "test_schedule.py"),
    ("_rational.py", "if not low <= number <= high:", "if not low <= number:", "test_schedule.py"),
    ("schedule.py", "begin <= key < end else []", "begin < key < end else []",
     "test_schedule.py::test_paths_and_spans"),
    ("schedule.py", "return [single, *defaults[1:]]", "return [single] * len(defaults)",
     "test_schedule.py"),
    ("schedule.py", "fixed_point if first is None else None, fixed_point",
     "fixed_point, fixed_point", "test_patterns.py"),
    ("patterns.py", "key.replace(\"_\", \"-\")", "key", "test_patterns.py"),
    ("patterns.py", "(scored + attended) / found[0]", "attended / found[0]", "test_patterns.py"),
    ("reports.py", "if self.layers is not None:\n            found",
     "if False:\n            found", "test_patterns.py"),
    ("schedule.py", "first is None, checked", "True, checked", "test_schedule.py"),
    ("schedule.py", "zip(range(self.steps, 1, -1), self.rules)",
     "zip(range(self.steps + 1, 2, -1), self.rules)", "test_schedule.py"),
    ("pooling.py", "np.maximum(at // part * part, first)", "at // part * part", "test_pooling.py"),
    ("pooling.py", "np.where(older > 0, decay, 0.0)", "np.where(older > 1, decay, 0.0)",
     "test_pooling.py"),
    ("pooling.py", "integer(\"offset\", offset, 0, MAX_LENGTH) + np.arange(length)",
     "np.arange(length)", "test_pooling.py"),
    ("pooling.py", "1 / weights if", "1 / part * np.ones(older.shape) if", "test_pooling.py"),
    ("recurrences.py", "accumulate(v, r, own, q, initial=second)",
     "accumulate(v, s, own, q, initial=second)", "test_recurrences.py"),
    ("recurrences.py", "accumulate(own, r, k, q, initial=second)",
     "accumulate(own, r, k, q)", "test_recurrences.py"),
    ("recurrences.py", "accumulate(k, s, k, q, initial=first)",
     "accumulate(k, s, q, q, initial=first)", "test_recurrences.py"),
    ("recurrences.py", "output = (R * (A @ (I * A).swapaxes(-1, -2))) @ v",
     "output = (R * (A @ A.swapaxes(-1, -2))) @ v", "test_recurrences.py"),
    ("recurrences.py", "(R * A) @ ((I * A) @ v)", "R * A @ ((R * A) @ v)", "test_recurrences.py"),
    ("recurrences.py", "+ number(\"epsilon\", epsilon))", ")", "test_recurrences.py"),
    ("recurrences.py", "_check_levels(levels, offset + length)", "_check_levels(levels, length)",
     "test_recurrences.py"),
    ("recurrences.py", "at = offset + np.arange(length)", "at = np.arange(length)",
     "test_recurrences.py"),
    ("recurrences.py", "older = ~newer if level else newer", "older = ~newer | newer",
     "test_recurrences.py"),
    ("recurrences.py", "only(part > 0, a)", "only(part >= 0, a)", "test_recurrences.py"),
    ("recurrences.py", "* only(newer, read)", "* read", "test_recurrences.py"),
    ("recurrences.py", "np.frexp(at[:, None] ^ at)[1]", "np.frexp(abs(at[:, None] - at))[1]",
     "test_recurrences.py"),
    ("recurrences.py", "decays[..., t, None] * mask", "decays[..., t - 1, None] * mask",
     "test_recurrences.py"),
    ("recurrences.py", "if not 0 <= value <= 1:", "if False:", "test_recurrences.py"),
    ("recurrences.py", "(wrong := decays[(decays < 0) | (decays > 1)])",
     "(wrong := decays[decays > 1])", "test_recurrences.py"),
    ("recurrences.py", "name == \"k\" and found != shape", "False", "test_recurrences.py"),
    ("recurrences.py", "if not least <= levels", "if not least - 1 <= levels",
     "test_recurrences.py"),
    ("recurrences.py", "xp.float64 if like.dtype == xp.float64 else xp.float32", "xp.float32",
     "test_recurrences.py"),
    ("reports.py", "count if count < 2**63", "count if count < 2**65", "test_schedule.py"),
    ("_plot.py", '"pdf.fonttype": 42', '"pdf.fonttype": 3',
     "test_schedule.py::test_plots_embed_true_type_fonts"),
    ("_memory.py", "sum(cache(1, 1))", "sum(cache(1, batch))", "test_schedule.py::test_memory"),
    ("_memory.py", '"bfloat16": 2', '"bfloat16": 4', "test_schedule.py::test_memory"),
    ("_arrays.py", 'np.require(self.array, self.wide, ["C", "A"])', "self.array",
     "test_arguments.py"),
    ("_arrays.py", "bits <<= np.uint32(16)", "bits <<= np.uint32(15)", "test_attention.py"),
    ("oracle.py", "{host.storage}: {storage} like q", "{host.storage}", "test_arguments.py"),
    ("oracle.py", "int(arrays[\"length\"].max())", "int(arrays[\"length\"][0])",
     "test_attention.py"),
    ("oracle.py", "return Attended(*_core.attention(problem(*given).inputs))",
     "found = _core.attention(problem(*given).inputs)\n"
     "    return Attended(found[0], found[2], *found[2:])", "test_attention.py::test_attention"),
    ("oracle.py", "used = spans[..., 1:] > spans[..., :1]", "used = spans[..., 1:] >= 0",
     "test_packed.py"),
    ("oracle.py", "map(slice, bounds[:-1], bounds[1:])", "map(slice, bounds[:-2], bounds[1:])",
     "test_packed.py"),
    ("oracle.py", "if begin > end:", "if False:", "test_packed.py"),
    ("oracle.py", "if bounds[0] or bounds[-1] > queries:", "if bounds[0]:", "test_packed.py"),
    ("oracle.py", "level[:, :, rows] = array", "level[:, :, rows] = 2 * array",
     "test_gradients.py"),
    ("_problem.py", "if sizes.batch != 1:", "if False:", "test_packed.py"),
    ("_problem.py", "if given.query_offset:", "if False:", "test_packed.py"),
    ("torch/module.py", "a = torch.where(begins, 0, a)", "pass",
     "test_module.py::test_packed_sequences_are_as_each_alone"),
    ("oracle.py", "dq, dk + dsearch, dv", "dq, dk, dv", "test_torch.py::test_gradients"),
    ("functions.py", "return _attend(given, dtype, True)", "return _attend(given, dtype, True)[0]",
     "test_attention.py"),
    ("_problem.py", "if name not in _OPTIONS:", "if False:", "test_arguments.py"),
    ("judging/gradients.py", "(copied(array) for array in (given.q", "(array for array in (given.q",
     "test_compare.py"),
    ("judging/gradients.py", "x.detach().requires_grad_() for", "x.detach() for",
     "test_compare_gradients.py"),
    ("judging/gradients.py", "found[3:] or None", "found[:2:-1] or None",
     "test_compare_gradients.py"),
    ("judging/gradients.py", "_autograd(called, by_output)", "_autograd(called, 2 * by_output)",
     "test_compare_gradients.py"),
    ("judging/gradients.py", "if array.shape != shape:", "if False:",
     "test_compare_gradients.py::test_what_is_refused"),
    ("judging/comparison.py", "report.get(\"keys\", 0)", "0", "test_compare_gradients.py"),
    ("judging/candidates.py", "room, shift + below, value.strides)", "room, shift + below)",
     "test_compare.py"),
    ("judging/candidates.py", "torch.as_strided(room, here.shape, here.stride(), shift)",
     "torch.as_strided(room, here.shape, here.contiguous().stride(), shift)", "test_compare.py"),
    ("judging/comparison.py", "total if rows == \"all\"", "1 if rows == \"all\"",
     "test_compare.py"),
    ("judging/comparison.py", "length=to_host(length), ", "length=None, ", "test_compare.py"),
    ("judging/probing.py", "self.unequal |= {", "set() | {",
     "test_probe.py::test_a_fault_in_one_sequence_of_a_batch_is_seen"),
    ("judging/probing.py", "(np.arange(batch) + turn) % plants", "np.arange(batch) % plants",
     "test_probe.py::test_a_fault_in_one_sequence_of_a_batch_is_seen"),
    ("judging/plants.py", "PLANTS = (_nearest, _newer,", "PLANTS = (_nearest, _newest,",
     "test_probe.py"),
    ("judging/probing.py", "if query < key}", "if query < 0}",
     "test_probe.py::test_a_kernel_that_sees_the_future"),
    ("judging/plants.py", "_REST = 2.0**-5", "_REST = 0",
     "test_probe.py::test_a_key_that_counts_in_the_denominator_alone_is_seen"),
    ("judging/plants.py", "_SEEN = 2 * _REST", "_SEEN = _REST / 32",
     "test_probe.py::test_a_kernel_that_forgets_the_oldest_key"),
    ("judging/plants.py", "1 - 2 * (np.arange", "1 - 0 * (np.arange",
     "test_probe.py::test_wrong_heads_and_missing_dimensions_are_seen"),
    ("judging/plants.py", "(output - self.resting)", "(output - _REST)",
     "test_probe.py::test_a_key_that_counts_in_the_denominator_alone_is_seen"),
    ("judging/plants.py", "moved.min(axis=-1)", "moved.max(axis=-1)",
     "test_probe.py::test_wrong_heads_and_missing_dimensions_are_seen"),
    ("judging/plants.py", "> _SEEN).all(axis=1)", "> _SEEN).any(axis=1)",
     "test_probe.py::test_wrong_heads_and_missing_dimensions_are_seen"),
    ("judging/plants.py", "> _STILL).any(axis=1)", "> _STILL).all(axis=1)",
     "test_probe.py::test_a_leak_in_one_head_alone_is_seen"),
    ("judging/plants.py", "np.where(np.isfinite(output), output, np.nan)", "output",
     "test_probe.py::test_what_is_not_finite_is_not_reached"),
    ("judging/plants.py", "own = m if m < _ATTEND else m + 1", "own = 0",
     "test_probe.py::test_paths_of_more_levels_are_led_exactly"),
    ("schedule.py", "if not len(columns[0]):", "if False:",
     "test_schedule.py::test_small_refusals"),
    ("torch/positions.py", "value = integer(name, value, 0, high)", "value = int(value)",
     "test_torch.py::test_positions_are_checked_before_they_are_tensors"),
    ("authors.py", "np.where(none, 0, last + 1)", "np.where(none, 0, last)",
     "test_probe.py::test_authors_names"),
    ("torch/autograd.py", "found._replace(search_keys=None) if searched is None else found",
     "found._replace(search_keys=None)", "test_torch.py::test_gradients"),
    ("torch/autograd.py", "Derivatives(by_output, by_lse, by_window_lse, by_scores)",
     "Derivatives(by_output, by_lse, None, by_scores)",
     "test_torch.py::test_gradients_of_all_that_is_found"),
    ("torch/autograd.py", "Kept(found.spans, found.scores, found.anchors",
     "Kept(found.spans, 0 * found.scores, found.anchors", "test_gradients.py"),
    ("torch/autograd.py", "if not details:", "if False:", "test_gradients.py"),
    ("torch/autograd.py", "details or will_go_back(operands)", "details",
     "test_transforms.py::test_a_gradient_of_vmap"),
    ("torch/autograd.py", "if not torch.is_grad_enabled():", "if False:", "test_gradients.py"),
    ("torch/autograd.py", "given.initial is not None else found", "True else found",
     "test_torch.py::test_gradients_of_accumulate"),
    ("oracle.py", "_doubles(by.by_lse)", "None",
     "test_torch.py::test_gradients_of_all_that_is_found"),
    ("torch/__init__.py", "torch.where(shares == 0, 0, outputs)", "outputs", "test_attention.py"),
    ("torch/__init__.py", "torch.where(given.isposinf(), 0, given - largest)", "(given - largest)",
     "test_attention.py"),
    ("torch/__init__.py", "check_parts(outputs.shape, lses.shape)", "pass", "test_attention.py"),
    ("torch/__init__.py", "torch.where(largest.isneginf(), 0, largest)", "largest",
     "test_torch.py::test_gradients_of_merge"),
    ("torch/operators.py", "_empty(given, False, torch.int64)", "_empty(given, False, torch.int32)",
     "test_torch.py"),
    ("torch/operators.py", "of = schedule_of(schedule, None)", "of = schedule_of(schedule, top_k)",
     "test_compile.py"),
    ("torch/autograd.py", "_register(\"attention\", _attention_gradient, "
     "_keep_for_attention, _mapped_attention)", "",
     "test_compile.py::test_inputs_that_require_grad"),
    ("torch/autograd.py", "argument.movedim(mapped, 0)", "argument.transpose(mapped, 0)",
     "test_transforms.py::test_vmap"),
    ("torch/operators.py", "_read(operands[_BACKWARD:])", "_read(operands[_BACKWARD:])"
     "._replace(length=None)", "test_transforms.py"),
    ("torch/autograd.py", "raise NotImplementedError(\"multistep: no gradients of gradients\")",
     "return None", "test_transforms.py::test_what_is_not_supported_says_so_in_one_line"),
    ("torch/positions.py", "positions.clamp(0, MAX_POSITION)", "positions",
     "test_torch.py::test_positions_are_clamped_before_they_are_narrowed"),
    ("torch/tables.py", "if schedule.top_k != 1:", "if False:",
     "test_torch.py::test_prepared_tables_serve_every_top_k"),
    ("torch/tables.py", "raise RuntimeError(f\"multistep: {reason}\")", "pass",
     "test_torch.py::test_refused"),
    ("torch/kernels.py", "in_wide_values(tensor).contiguous().view(tensor.dtype)", "tensor",
     "test_torch.py::test_arrays_are_read_where_they_lie"),
    ("torch/kernels.py", "tensor.clone() if tensor.data_ptr() % 16 else tensor", "tensor",
     "test_torch.py::test_the_kernels_get_what_was_given"),
    ("torch/kernels.py", "positions.on_device(\"length\", given.length, given.q)", "given.length",
     "test_torch.py::test_the_kernels_get_what_was_given"),
    ("torch/kernels.py", "positions.on_device(\"start\", given.start, x)", "given.start",
     "test_torch.py::test_the_walk_gets_what_was_given"),
    ("torch/kernels.py", "given.a.float() if given.a.dtype == x.dtype else given.a", "given.a",
     "test_torch.py::test_the_walk_gets_what_was_given"),
    ("torch/kernels.py", "and tensor.shape != shape:", "and False:",
     "test_torch.py::test_the_gradient_kernels_get_what_was_given"),
    ("torch/kernels.py", "f\"by_{name}\": value", "f\"by_{name[:1]}\": value",
     "test_torch.py::test_the_gradient_kernels_get_what_was_given"),
    ("torch/kernels.py", "if schedule.steps == 1:", "if False:",
     "test_torch.py::test_the_gradient_kernels_get_what_was_given"),
    ("torch/kernels.py", "one.zero_()", "pass", "test_torch.py::test_gradients_without_queries"),
    # Calls past the operator
    ("torch/kernels.py", "copy.copy(self.call)", "type(self.call)()", "test_ready.py"),
    ("torch/kernels.py", "return ready if _in_place(given, fields) else None", "return ready",
     "test_ready.py"),
    ("torch/kernels.py", "ready if in_place and _in_place(given, fields) else None",
     "ready if _in_place(given, fields) else None", "test_ready.py"),
    ("torch/kernels.py", "ready if in_place and _in_place(given, fields) else None",
     "ready if in_place else None", "test_ready.py"),
    ("torch/kernels.py", "given.routing_queries, **_positions(given)}", "given.routing_queries}",
     "test_ready.py"),
    ("torch/kernels.py", "| _found(by, at, given.schedule) | _by(results))", "| _by(results))",
     "test_ready.py"),
    ("torch/ready.py", "one.shape, one.stride(), one.dtype", "one.shape, one.dtype",
     "test_ready.py"),
    ("torch/ready.py", "one.stride(), one.dtype, one.device", "one.stride(), one.device",
     "test_ready.py"),
    ("torch/ready.py", "one.device, one.data_ptr() % 16)", "one.device)", "test_ready.py"),
    ("torch/ready.py", "key += (kind, one)", "key += (one,)", "test_ready.py"),
    ("torch/ready.py", "key.append(one.text)", "pass", "test_ready.py"),
    ("torch/ready.py", "= [call]", "= []", "test_ready.py"),
    ("torch/ready.py", "not in plain", "in ()", "test_ready.py"),
    ("torch/calls.py", "if not (goes_back and given.length is not None):", "if True:",
     "test_ready.py"),
    ("torch/calls.py", "if key and goes_back:", "if False:", "test_ready.py"),
    ("torch/calls.py", "\"attend\" if details or goes_back else", "\"attend\" if details else",
     "test_ready.py"),
    ("torch/calls.py", "block_table is None and not torch.compiler.is_compiling():",
     "block_table is None:", "test_ready.py::test_calls_that_are_kept_compile_nothing_again"),
    ("torch/autograd.py", "None if torch.is_grad_enabled() else ready.key_of(", "ready.key_of(",
     "test_ready.py"),
    ("torch/autograd.py", "        found = find()\n", "        found = ctx.found = find()\n",
     "test_ready.py::test_nothing_is_kept_longer_than_the_output"),
    ("torch/autograd.py", "schedule=_operators.schedule_of(given.schedule.text, given.top_k))",
     "schedule=given.schedule)", "test_ready.py"),
    ("torch/autograd.py", "else results._replace(search_keys=None)", "else results",
     "test_ready.py"),
    ("torch/autograd.py", "key is None:", "True:", "test_ready.py"),
    ("torch/ready.py", "torch._C._len_torch_function_stack() or ", "", "test_ready.py"),
    ("torch/ready.py", "or torch._C._len_torch_dispatch_stack()", "", "test_ready.py"),
    ("torch/ready.py", "or torch._C._get_tracing_state()", "", "test_ready.py"),
    ("torch/ready.py", "or torch.autograd.profiler._is_profiler_enabled", "", "test_ready.py"),
    ("torch/ready.py", "or torch.is_autocast_enabled(\"cuda\")", "", "test_ready.py"),
    ("torch/ready.py", "forward_ad._current_level >= 0", "False", "test_ready.py"),
    ("torch/ready.py", "_calls.clear()\n    _calls[key]", "pass\n    _calls[key]",
     "test_ready.py"),
    ("torch/operators.py", "from_numpy(array).to(given.q.dtype)",
     "from_numpy(array).to(torch.float64)",
     "test_torch.py::test_the_gradient_kernels_get_what_was_given"),
    ("torch/calls.py", "tensor.to(torch.get_autocast_dtype(kind)) if narrow", "tensor if narrow",
     "test_gradients.py"),
    ("torch/calls.py", "tensor.is_floating_point() and tensor.dtype != torch.float64",
     "tensor.is_floating_point()", "test_gradients.py"),
    ("torch/calls.py", "c=_autocast(given.c)", "c=given.c", "test_gradients.py"),
    ("torch/module.py", "b = a.squeeze(-1), (1 - a) * b", "b = a.squeeze(-1), b",
     "test_module.py"),
    ("torch/module.py", "keys = None if keys is None else turn(keys)", "pass", "test_module.py"),
    ("torch/module.py", "self.search_scale, offset,", "self.search_scale, 0,", "test_module.py"),
    ("torch/module.py", "_Rotation(x, offset,", "_Rotation(x, 0,", "test_module.py"),
    ("torch/module.py", "None if cache is None else cache.state, start,", "None, start,",
     "test_module.py"),
    ("torch/module.py", "other * cos + one * sin", "other * cos - one * sin", "test_module.py"),
    ("torch/module.py", "self.head_dim**-0.5 if search_scale", "1.0 if search_scale",
     "test_module.py"),
    ("torch/module.py", "if last > self.k.shape[2]:", "if False:", "test_module.py"),
    ("torch/module.py", "and torch.is_grad_enabled():", "and False:", "test_module.py"),
    ("torch/calls.py", "_unpack_dual(tensor).tangent is not None", "False",
     "test_transforms.py::test_what_is_not_supported_says_so_in_one_line"),
    ("torch/calls.py", "\"functorch transforms\" in str(error)", "False",
     "test_transforms.py::test_what_is_not_supported_says_so_in_one_line"),
    # Masks of FlexAttention
    ("torch/flex.py", "(key < every[b, h, query, slot, 1])", "(key <= every[b, h, query, slot, 1])",
     "test_flex.py"),
    ("torch/flex.py", "(every[b, h, query, slot, 0] <= key)", "(every[b, h, query, slot, 0] < key)",
     "test_flex.py"),
    ("torch/flex.py", "held = holds(slots)  #", "held = holds(0)  #", "test_flex.py"),
    ("torch/flex.py", "for slot in range(slots):", "for slot in range(1):", "test_flex.py"),
    ("torch/flex.py", "torch.maximum(ends - window, oldest)", "ends - window", "test_flex.py"),
    ("torch/flex.py", "ends = first + torch", "ends = 0 * first + torch", "test_flex.py"),
    ("torch/flex.py", "schedule.window(longest - 1) if", "schedule.window(0) if", "test_flex.py"),
    ("torch/flex.py", "mask = span_mask(spans, schedule, query_offset=query_offset, start=start)",
     "mask = span_mask(spans, schedule, query_offset=query_offset)", "test_flex.py"),
    ("torch/flex.py", "    positions.require_one_each(name, value, batch)\n", "", "test_flex.py"),
    ("torch/flex.py", "if spans.dim() != 5 or spans.shape[-1] != 2:", "if spans.dim() != 5:",
     "test_flex.py"),
    # A search that gets no gradient does not learn
    ("torch/autograd.py",
     "gradients.update(_by_operator(_derivatives(*by), *_kept(ctx))._asdict())",
     "found = _by_operator(_derivatives(*by), *_kept(ctx))\n"
     "    gradients.update(found._replace(routing_queries=[0 * one for one in found.routing_queries])"
     "._asdict())", "test_learning.py::test_routing_learns"),
    # Shards of a context
    ("_stages.py", "key_offset=place.key_offset, **converted", "key_offset=0, **converted",
     "test_pieces.py"),
    ("_stages.py", "positions(\"start\", place.start, batch, MAX_LENGTH)", "None",
     "test_pieces.py"),
    ("torch/stages.py", "best.ranks.clamp(min=0)", "(0 * best.ranks)", "test_pieces.py"),
    ("torch/stages.py", "torch.where(anchors < 0, -1, above)", "above", "test_decoding_on_ranks.py"),
    ("distributed/pieces.py", "if (parents is None) != (level == 1):", "if False:",
     "test_pieces.py"),
    ("distributed/pieces.py", "source = (at - first).clamp(0, count - 1)",
     "source = torch.arange(count)", "test_pieces.py"),
    ("distributed/pieces.py", "torch.where(owned, new_by_row[sequence, source], "
     "by_row[sequence, at])", "new_by_row[sequence, source]", "test_pieces.py"),
    ("distributed/exchange.py", "lambda: self._named(what, work.wait), result, tensor)",
     "lambda: self._named(what, work.wait), result.flip(0), tensor)", "test_decoding_on_ranks.py"),
    ("distributed/exchange.py", "source = rank if self.group is None else "
     "dist.get_global_rank(self.group, rank)", "source = rank", "test_decoding_on_ranks.py"),
    ("distributed/exchange.py", "here = [one.wait() for one in coming]",
     "here = [one.wait() for one in coming]; vars(self).setdefault('held', []).append(here)",
     "test_attention_on_ranks.py"),
    ("distributed/passing.py", "found if self.best is None else", "found if True else",
     "test_attention_on_ranks.py"),
    ("distributed/passing.py", "zip(self.items, items)] or items", "zip([], items)] or items",
     "test_attention_on_ranks.py"),
    ("distributed/passing.py", "Shard(rows, begin - keys.start)", "Shard(rows, begin)",
     "test_attention_on_ranks.py"),
    ("distributed/passing.py", "if piece.nobodys else given.start", "if False else given.start",
     "test_attention_on_ranks.py"),
    ("distributed/passing.py", "yield Shard(slice(0, 0), 0)", "pass",
     "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "    @once_differentiable\n", "", "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "    require_kernels(given.kernels, given.q)\n", "",
     "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "torch.where(used, found.spans + by, found.spans)",
     "found.spans + by * used", "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "if in_turn and autograd", "if False and autograd",
     "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "return {\"in_turn\": in_turn, **", "return {**",
     "test_attention_on_ranks.py"),
    ("distributed/exchange.py", "f\"multistep: {what} on rank {self.rank}", "f\"multistep",
     "test_decoding_on_ranks.py"),
    ("distributed/exchange.py", "group=self.group, async_op=True", "async_op=True",
     "test_decoding_on_ranks.py"),
    ("distributed/exchange.py", "for part in received[1:]:", "for part in received[1:].flip(0):",
     "test_attention_on_ranks.py"),
    ("distributed/exchange.py", "        raise failure\n", "        pass\n",
     "test_decoding_on_ranks.py"),
    ("distributed/exchange.py", "if row_there[i] != rows[0][i]:", "if False:",
     "test_decoding_on_ranks.py"),
    ("distributed/exchange.py", "if row_there[1:3] != rows[0][1:3]:", "if False:",
     "test_decoding_on_ranks.py"),
    ("distributed/decoding.py", "if shard[\"key_offset\"] != end:", "if False:",
     "test_decoding_on_ranks.py"),
    ("distributed/decoding.py", "integer(\"length\", length, 0, end)", "pass",
     "test_decoding_on_ranks.py"),
    ("distributed/exchange.py", "if on_host or asked:", "if False:", "test_attention_on_ranks.py"),
    ("distributed/exchange.py", "if on_host or asked:", "if asked:", "test_decoding_on_ranks.py"),
    ("distributed/__init__.py", "layout is not None and not isinstance(layout, Layout):", "False:",
     "test_attention_on_ranks.py"),
    ("distributed/decoding.py", "if autograd.will_go_back(tensors):", "if False:",
     "test_decoding_on_ranks.py"),
    ("distributed/decoding.py", "unpack(lists.wait(), found)", "unpack(lists.wait()[:1], found)",
     "test_decoding_on_ranks.py"),
    ("distributed/decoding.py", "unpack(parts, sent)", "unpack(parts[-2:], sent)",
     "test_decoding_on_ranks.py"),
    ("distributed/exchange.py", "at += stages.padded(like.nbytes)", "at += like.nbytes",
     "test_pieces.py"),
    ("torch/stages.py", "at += padded(one.nbytes)", "at += one.nbytes", "test_pieces.py"),
    ("torch/stages.py", "if at != storage.nbytes():", "if False:", "test_pieces.py"),
    ("torch/stages.py", "or one.storage_offset() * one.element_size() != at", "", "test_pieces.py"),
    ("torch/stages.py", "or not one.is_contiguous()", "", "test_pieces.py"),
    ("distributed/decoding.py", "given.k if given.search_keys is None else given.search_keys",
     "given.k", "test_decoding_on_ranks.py"),
    ("distributed/layout.py", "parts[-1 - r]", "parts[ranks + r]", "test_pieces.py"),
    ("distributed/layout.py", "sorted(runs, key=lambda run: run[0])", "runs", "test_pieces.py"),
    ("distributed/layout.py", "for one in parts] if after else list(parts)", "for one in parts]",
     "test_pieces.py"),
    ("distributed/layout.py", "return together.index_select(", "return together or self.index_select(",
     "test_pieces.py"),
    ("torch/kernels.py", "and tensor.data_ptr() % 16 == 0 and all(step", "and all(step",
     "test_pieces.py"),
    ("torch/kernels.py", "if not whole or torch.is_grad_enabled() and tensor.requires_grad:",
     "if not whole:", "test_pieces.py"),
    ("distributed/layout.py", "if len(wrong):", "if False:", "test_pieces.py"),
    ("distributed/sharded.py", "given.pop(0)[1] if of_all", "0 * given.pop(0)[1] if of_all",
     "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "given[0][0] == slice(0, layout.length)", "True",
     "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "total[array, :, :, keys] += one", "total[array, :, :, keys] = one",
     "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "dtype=wide)", "dtype=like.dtype)", "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "piece.keys.start) if details", "0) if details",
     "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "if piece.nobodys else given.start", "if False else given.start",
     "test_attention_on_ranks.py"),
    ("distributed/layout.py", "yield Piece(rows, first - begin,", "yield Piece(rows, 0,",
     "test_attention_on_ranks.py"),
    ("distributed/layout.py", "yield Piece(slice(0, 0), 0, slice(0, 0))", "pass",
     "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "\"requires_grad\": back", "\"requires_grad\": 0",
     "test_attention_on_ranks.py"),
    ("distributed/sharded.py", "if bounds and bounds[-1] > layout.length:", "if False:",
     "test_attention_on_ranks.py"),
]


def break_copy(folder, file, line, change):
    copy = pathlib.Path(folder) / "multistep"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text()
    if text.count(line) != 1:
        sys.exit(f"mutants: {file} has {text.count(line)} times {line!r}, not once")
    (copy / file).write_text(text.replace(line, change))


def begin_tests(folder, test):
    """The process that runs the tests of the copy, and its output's file."""
    output = pathlib.Path(folder) / "output"
    process = os.fork()
    if process:
        return process
    with open(output, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(PYTHONPATH=folder, OMP_WAIT_POLICY="passive")  # of processes of the tests
    sys.path.insert(0, folder)
    os._exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", f"{TESTS}/{test}",
                          "-k", "not leaks"]))


def main():
    chosen = [m for m in MUTANTS if (HAS_TORCH or m[3].partition("::")[0] not in OF_TORCH)
              and (len(sys.argv) == 1 or any(name in m[0] + m[1] for name in sys.argv[1:]))]
    left, running = 0, {}

    def end_one():
        nonlocal left
        process, status = os.wait()
        (file, line, change, test), folder = running.pop(process)
        code = os.waitstatus_to_exitcode(status)
        if code not in (CAUGHT, SURVIVES):
            sys.exit(f"mutants: {test} did not run:\n"
                     + (pathlib.Path(folder.name) / "output").read_text())
        folder.cleanup()
        left += code == SURVIVES
        print(f"{'SURVIVES' if code == SURVIVES else 'caught  '}  {file}: {line} -> {change}",
              flush=True)

    for mutant in chosen:
        if len(running) == os.cpu_count():
            end_one()
        folder = tempfile.TemporaryDirectory()
        break_copy(folder.name, *mutant[:3])
        running[begin_tests(folder.name, mutant[3])] = mutant, folder
    while running:
        end_one()
    print(f"{len(chosen) - left} of {len(chosen)} mutants caught")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
