#include "api/check.cuh"
#include "api/stages.cuh"
#include "device/softmax.cuh"
#include "device/storage.cuh"

/// Merging what the shards of a context found, and tracing paths back through the levels.
namespace multistep::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;

/// One thread a row: top_k times the best path of any shard that has not been taken. Each shard's
/// list is in order: its first path behind the last one taken is its best.
__global__ void merge_rows(MergePathsArgs args) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= args.rows) return;
  const auto at = [&](std::int64_t shard, std::int64_t slot) {
    return (shard * args.rows + row) * args.top_k + slot;
  };
  Path last{};  // the one taken before: the next is the best of those behind it
  bool any = false;
  for (std::int64_t slot = 0; slot < args.top_k; ++slot) {
    Path best{};
    std::int64_t from = -1;
    for (std::int64_t shard = 0; shard < args.shards; ++shard) {
      for (std::int64_t s = 0; s < args.top_k; ++s) {
        const std::int64_t i = at(shard, s);
        if (args.spans[i].end <= args.spans[i].begin) continue;  // no path
        const Path path{args.scores[i], args.anchors[i],
                        args.parent_ranks ? args.parent_ranks[i] : 0};
        if (any && !better(last, path)) continue;
        if (from < 0 || better(path, best)) {
          best = path;
          from = i;
        }
        break;
      }
    }
    const std::int64_t to = row * args.top_k + slot;
    args.merged_spans[to] = from < 0 ? DeviceSpan{0, 0} : args.spans[from];
    args.merged_scores[to] = from < 0 ? -kInfinity : best.score;
    args.merged_anchors[to] = from < 0 ? -1 : best.anchor;
    if (args.merged_parent_ranks) args.merged_parent_ranks[to] = from < 0 ? -1 : best.rank;
    if (from < 0) continue;
    last = best;
    any = true;
  }
}

__device__ float to_float(float value) { return value; }

/// One warp a row, of parts in storage type Part.
template <class Part, class T>
__global__ void merge_outputs(MergeAttentionArgs args) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (row >= args.rows) return;
  const int lane = threadIdx.x % 32;
  const auto lse = [&](std::int64_t s) { return args.lses[s * args.rows + row]; };
  Softmax<BaseE> all;
  for (std::int64_t s = lane; s < args.shards; s += 32) all.max = fmaxf(all.max, lse(s));
  for (int offset = 16; offset > 0; offset /= 2) {
    all.max = fmaxf(all.max, __shfl_xor_sync(kFullWarp, all.max, offset));
  }
  constexpr int kMost = kMaxHeadDim / 32;  // of head_dim, a lane's
  float value[kMost] = {};
  for (std::int64_t first = 0; first < args.shards; first += 32) {
    const bool here = first + lane < args.shards;
    const float weight = here ? all.weight_of_part(lse(first + lane)) : 0;
    const auto count = static_cast<int>(min(args.shards - first, std::int64_t{32}));
#pragma unroll 8
    for (int s = 0; s < count; ++s) {
      const float part = __shfl_sync(kFullWarp, weight, s);
      all.sum += part;
      const std::int64_t at = ((first + s) * args.rows + row) * args.head_dim;
#pragma unroll
      for (int i = 0; i < kMost; ++i) {
        // What weighs nothing may not have been written.
        if (part == 0 || lane + 32 * i >= args.head_dim) continue;
        value[i] = fmaf(part, to_float(static_cast<const Part*>(args.outputs)[at + lane + 32 * i]),
                        value[i]);
      }
    }
  }
  const bool none = all.sum == 0;
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    if (lane + 32 * i >= args.head_dim) continue;
    static_cast<T*>(args.output)[row * args.head_dim + lane + 32 * i] =
        from_float<T>(none ? 0 : value[i] / all.sum);
  }
  if (args.lse && lane == 0) args.lse[row] = all.log_sum_exp();
}

/// One thread a slot: the anchors of its path, from the last level to the first.
__global__ void trace_slots(TracePaths trace) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= trace.rows.total() * trace.top_k) return;
  const std::int64_t row = trace.rows.at(i / trace.top_k).index;
  const std::int64_t rows = static_cast<std::int64_t>(trace.rows.batch) * trace.rows.heads *
                            trace.rows.queries;  // of the arrays
  std::int64_t slot = i % trace.top_k;
  const std::int64_t path = row * trace.top_k + slot;
  for (int m = trace.levels - 1; m >= 0; --m) {
    const std::int64_t at = (m * rows + row) * trace.top_k + slot;
    const bool used = slot >= 0;
    trace.paths[path * trace.levels + m] = used ? trace.anchors[at] : -1;
    if (used) slot = trace.ranks[at];
  }
}

__global__ void fill_slots(DeviceSpan* spans, float* scores, float* lses, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  if (spans) spans[i] = {0, 0};
  if (scores) scores[i] = -kInfinity;
  if (lses) lses[i] = -kInfinity;
}

__global__ void place_values(Rows rows, int slots, const float* chunk, float* all) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows.total() * slots) return;
  all[rows.at(i / slots).index * slots + i % slots] = chunk[i];
}

}  // namespace

void no_paths(DeviceSpan* spans, float* scores, float* lses, std::int64_t count, Stream stream) {
  if (count == 0 || (!spans && !scores && !lses)) return;
  fill_slots<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(spans, scores, lses, count);
  check_launch("fill_slots");
}

void place_rows(const Rows& rows, int slots, const float* chunk, float* all, Stream stream) {
  const std::int64_t count = rows.total() * slots;
  if (count == 0) return;
  place_values<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(rows, slots, chunk, all);
  check_launch("place_values");
}

void merge_paths(const MergePathsArgs& args, Stream stream) {
  require_within("shards", args.shards, 1, 1 << 20);
  require_within("rows", args.rows, 0, Index{1} << 32);
  require_within("top_k", args.top_k, 1, 64);
  require_pointer(args.spans, "spans", args.rows);
  require_pointer(args.scores, "scores", args.rows);
  require_pointer(args.anchors, "anchors", args.rows);
  require_pointer(args.merged_spans, "merged_spans", args.rows);
  require_pointer(args.merged_scores, "merged_scores", args.rows);
  require_pointer(args.merged_anchors, "merged_anchors", args.rows);
  require_pointer(args.parent_ranks, "parent_ranks", 0);
  require_pointer(args.merged_parent_ranks, "merged_parent_ranks", 0);
  if (args.rows == 0) return;
  merge_rows<<<blocks_for(args.rows, kThreads), kThreads, 0, stream>>>(args);
  check_launch("merge_rows");
}

void merge_attention(const MergeAttentionArgs& args, Stream stream) {
  require_within("shards", args.shards, 1, 1 << 20);
  require_within("rows", args.rows, 0, Index{1} << 32);
  require_within("head_dim", args.head_dim, 1, kMaxHeadDim);
  require_dtype(args.dtype);
  require_pointer(args.outputs, "outputs", args.rows);
  require_pointer(args.lses, "lses", args.rows);
  require_pointer(args.output, "output", args.rows);
  require_pointer(args.lse, "lse", args.rows);
  if (args.rows == 0) return;
  const unsigned blocks = blocks_for(args.rows, kWarps);
  switch (args.dtype) {
    case Dtype::bf16:
      merge_outputs<bf16, bf16><<<blocks, kThreads, 0, stream>>>(args);
      break;
    case Dtype::fp16:
      merge_outputs<fp16, fp16><<<blocks, kThreads, 0, stream>>>(args);
      break;
  }
  check_launch("merge_outputs");
}

void merge_chunks(const Combine& combine, int chunks, const float* outputs, const float* lses,
                  Stream stream) {
  MergeAttentionArgs args;
  args.shards = chunks;
  args.rows = combine.rows.total();
  args.head_dim = combine.rows.head_dim;
  args.outputs = outputs;
  args.lses = lses;
  args.output = combine.output;
  args.lse = combine.window_lse_out;
  if (args.rows == 0) return;
  const auto merge =
      combine.dtype == Dtype::bf16 ? merge_outputs<float, bf16> : merge_outputs<float, fp16>;
  merge<<<blocks_for(args.rows, kWarps), kThreads, 0, stream>>>(args);
  check_launch("merge_outputs");
}

void trace_paths(const TracePaths& trace, Stream stream) {
  const std::int64_t count = trace.rows.total() * trace.top_k;
  if (count == 0) return;
  trace_slots<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(trace);
  check_launch("trace_slots");
}

}  // namespace multistep::cuda
