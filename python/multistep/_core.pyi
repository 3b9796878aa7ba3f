"""The extension module. No part of the public interface."""

from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np
import numpy.typing as npt

version: str
has_cuda: bool
def cuda_status() -> str: ...
max_context: int

def threads() -> int: ...

_Level = tuple[str, str, str, str, str]
_Progress = Optional[Callable[[int, int], None]]
_Found = tuple[int, int, int, Optional[tuple[Any, ...]]]
_FoundThroughLayers = tuple[_Found, int, Optional[int]]
_Array = npt.NDArray[Any]
_Doubles = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]

def available_memory() -> int: ...
def cache_bytes(length: int, batch: int, num_kv_heads: int, head_dim: int, layers: int,
                value_bytes: int, search_keys: bool, /) -> tuple[int, int, int]: ...

class Schedule:
    steps: int
    window_index: int
    top_k: int
    levels: list[_Level]

class Plan:
    max_length: int
    schedule: Schedule
    def with_top_k(self, top_k: int, /) -> Plan: ...
    def window(self, query: int, start: int, /) -> tuple[int, int]: ...
    def level(self, query: int, start: int, chosen: Sequence[int], /
              ) -> tuple[_Integers, _Integers]: ...
    def paths(self, query: int, start: int, key: int, /
              ) -> list[list[tuple[int, int, int, int]]]: ...
    def final_spans(self, query: int, start: int, /) -> _Integers: ...
    def multiplicity(self, query: int, start: int, /) -> _Integers: ...
    def work(self, length: int, start: int, /
             ) -> Optional[tuple[int, float, int, float, Optional[float]]]: ...

def make_schedule(steps: int, levels: Sequence[_Level], window_index: int, top_k: int, /
                  ) -> Schedule: ...
def preset(name: str, steps: int, /) -> Schedule: ...
def default_level(rule: str, steps_left: int, /) -> _Level: ...
def aligned_part(nominal: int, steps_left: int, /) -> int: ...
def make_plan(schedule: Schedule, max_length: int, /) -> Plan: ...
def verify_all(schedule: Schedule, length: int, start: int, progress: _Progress, /) -> _Found: ...
def verify_sampled(schedule: Schedule, length: int, start: int, count: int, seed: int,
                   progress: _Progress, /) -> _Found: ...
def verify_spans(query: _Integers, begin: _Integers, end: _Integers, length: int, start: int, /
                 ) -> _Found: ...
def pattern_names() -> list[str]: ...
def verify_pattern(name: str, parameters: Sequence[tuple[str, int]], length: int, start: int,
                   progress: _Progress, /
                   ) -> tuple[str, _Found, int, int, int, int, int]: ...
def schedule_layers(schedule: Schedule, length: int, start: int, layers: Optional[int],
                    progress: _Progress, /) -> _FoundThroughLayers: ...
def pattern_layers(name: str, parameters: Sequence[tuple[str, int]], length: int, start: int,
                   layers: Optional[int], progress: _Progress, /) -> _FoundThroughLayers: ...
def span_layers(query: _Integers, begin: _Integers, end: _Integers, length: int, start: int,
                layers: Optional[int], progress: _Progress, /) -> _FoundThroughLayers: ...

# Structs are made empty, and their fields set by name (``_problem.filled``).

class Inputs:
    plan: Plan
    q: _Array
    k: _Array
    v: _Array
    routing_queries: list[_Array]
    search_keys: Optional[_Array]
    start: Optional[_Integers]
    length: Optional[_Integers]
    query_offset: int
    key_offset: Optional[int]
    search_scale: float
    softmax_scale: Optional[float]

def attention(inputs: Inputs, /) -> tuple[_Doubles, _Doubles, _Doubles, _Integers, _Doubles,
                                          _Integers]: ...
def attention_backward(inputs: Inputs, by_output: Optional[_Doubles], by_lse: Optional[_Doubles],
                       by_window_lse: Optional[_Doubles], by_scores: Optional[_Doubles],
                       spans: _Integers, scores: _Doubles, anchors: _Integers, /
                       ) -> tuple[_Doubles, _Doubles, _Doubles, list[_Doubles], _Doubles]: ...
def merge(outputs: _Doubles, lses: _Doubles, /) -> tuple[_Doubles, _Doubles]: ...

_LevelPaths = tuple[_Integers, _Doubles, _Integers, _Integers]

def search_level(inputs: Inputs, level: int, parents: Optional[_Integers],
                 parent_scores: Optional[_Doubles], /) -> _LevelPaths: ...
def merge_paths(spans: _Integers, scores: _Doubles, anchors: _Integers, ranks: _Integers, /
                ) -> _LevelPaths: ...
def attend_items(inputs: Inputs, spans: Optional[_Integers], /) -> tuple[_Doubles, _Doubles]: ...
def combine(spans: _Integers, scores: _Doubles, outputs: _Doubles, lses: _Doubles,
            window_output: _Doubles, window_lse: _Doubles, /) -> _Doubles: ...

class Recurrence:
    x: _Array
    a: _Array
    b: _Array
    c: _Array
    initial: Optional[_Doubles]
    start: Optional[_Integers]
    offset: int

def accumulate(recurrence: Recurrence, /) -> tuple[_Doubles, _Doubles]: ...
def accumulate_backward(recurrence: Recurrence, by_output: Optional[_Doubles],
                        by_state: Optional[_Doubles], /) -> tuple[_Doubles, ...]: ...

class Results:
    spans: Optional[_Integers]
    scores: Optional[_Doubles]
    anchors: Optional[_Integers]
    span_outputs: Optional[_Doubles]
    lse: Optional[_Doubles]
    window_output: Optional[_Doubles]
    window_lse: Optional[_Doubles]
    output: Optional[_Doubles]

class Gradients:
    output: Optional[_Doubles]
    q: Optional[_Doubles]
    k: Optional[_Doubles]
    v: Optional[_Doubles]
    routing_queries: Sequence[_Doubles]
    search_keys: Optional[_Doubles]

def judge(inputs: Inputs, rows: _Integers, storage: str, results: Results,
          gradients: Optional[Gradients], seed: int, /) -> tuple[str, str]: ...
def sample_rows(inputs: Inputs, count: Optional[int], seed: int, /) -> _Integers: ...

# With the kernels alone:

class DeviceSchedule:
    max_length: int
    def __init__(self, plan: Plan, /) -> None: ...
    def with_top_k(self, top_k: int, /) -> DeviceSchedule: ...

def device_count() -> int: ...

_Address = Optional[int]

class Call:  # stands for what they share
    dtype: str
    @property
    def workspace_size(self) -> int: ...
    def launch(self, workspace: int, size: int, stream: int, /) -> None: ...

class _WithShape(Call):
    batch: int
    heads: int
    kv_heads: int
    queries: int
    keys: int
    head_dim: int
    query_offset: int
    key_offset: int
    start: _Address
    length: _Address
    sequences: int
    cu_seqlens: _Address
    cu_seqlens_k: _Address
    block_table: _Address
    max_pages: int
    page_size: int
    schedule: DeviceSchedule
    kernels: str

class _OfAttention(_WithShape):
    q: _Address
    k: _Address
    v: _Address
    routing_queries: list[int]
    search_keys: _Address
    search_scale: float
    softmax_scale: Optional[float]
    spans: _Address
    scores: _Address
    anchors: _Address

class CudaAttention(_OfAttention):
    q_strides: tuple[int, int, int]
    k_strides: tuple[int, int, int]
    v_strides: tuple[int, int, int]
    search_keys_strides: tuple[int, int, int]
    routing_queries_strides: list[tuple[int, int, int]]
    output: _Address
    lse: _Address
    window_lse: _Address
    def plan(self, plan: Plan, chip: str, /) -> tuple[
        list[tuple[str, list[str], bool, str]], tuple[str, list[str], bool, str], int, float, float, float, float]: ...

class CudaAttentionBackward(_OfAttention):
    by_output: _Address
    by_lse: _Address
    by_window_lse: _Address
    by_scores: _Address
    by_q: _Address
    by_k: _Address
    by_v: _Address
    by_routing_queries: list[int]
    by_search_keys: _Address

class CudaSpanSearch(_WithShape):
    routing_queries: list[int]
    search_keys: _Address
    search_scale: float
    level: int
    parents: _Address
    parent_scores: _Address
    spans: _Address
    scores: _Address
    anchors: _Address
    ranks: _Address

class CudaSpanAttention(_WithShape):
    q: _Address
    k: _Address
    v: _Address
    slots: int
    spans: _Address
    softmax_scale: Optional[float]
    output: _Address
    lse: _Address

class CudaCombine(_WithShape):
    slots: int
    spans: _Address
    scores: _Address
    span_outputs: _Address
    span_lses: _Address
    window_output: _Address
    window_lse: _Address
    output: _Address

class CudaMergePaths(Call):
    shards: int
    rows: int
    top_k: int
    spans: _Address
    scores: _Address
    anchors: _Address
    ranks: _Address
    merged_spans: _Address
    merged_scores: _Address
    merged_anchors: _Address
    merged_ranks: _Address

class CudaMergeAttention(Call):
    shards: int
    rows: int
    head_dim: int
    outputs: _Address
    lses: _Address
    output: _Address
    lse: _Address

class _OfAccumulation(Call):
    batch: int
    heads: int
    length: int
    head_dim: int
    state: int
    offset: int
    start: _Address
    x: _Address
    a: _Address
    b: _Address
    c: _Address
    initial: _Address

class CudaAccumulation(_OfAccumulation):
    output: _Address
    final_state: _Address

class CudaAccumulationBackward(_OfAccumulation):
    by_output: _Address
    by_state: _Address
    by_x: _Address
    by_a: _Address
    by_b: _Address
    by_c: _Address
    by_initial: _Address
