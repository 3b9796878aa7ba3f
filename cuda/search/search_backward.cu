#include <cub/device/device_radix_sort.cuh>

#include "api/check.cuh"
#include "attend/backward_row.cuh"

/// Derivatives of path scores: by the routing queries a gather, by the search keys a sum over runs
/// of (query row, slot) entries that were sorted by anchor. The sort is stable and a run's parts
/// are added in order.
namespace multistep::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kRunEntries = 128;  // that a warp sums

/// Consecutive values of a row, as many as one load brings: lane l of a warp has values kValues l,
/// ... and those 32 kValues further.
template <class T, int kValues>
struct RowSum {
  static constexpr int kSteps = kMaxHeadDim / (32 * kValues) > 0 ? kMaxHeadDim / (32 * kValues) : 1;
  float value[kSteps][kValues] = {};

  template <class Visit>
  __device__ void for_each(int head_dim, Visit&& visit) {
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int d = kValues * (static_cast<int>(threadIdx.x % 32) + 32 * i);
      if (d < head_dim) visit(value[i], d);
    }
  }
  __device__ void add(float weight, const T* row, int head_dim) {
    for_each(head_dim, [&](float(&sum)[kValues], int d) {
      struct alignas(kValues * sizeof(T)) Values {
        T x[kValues];
      };
      const Values values = *reinterpret_cast<const Values*>(row + d);
#pragma unroll
      for (int e = 0; e < kValues; ++e) sum[e] = fmaf(weight, to_float(values.x[e]), sum[e]);
    });
  }
  __device__ void add(const float* part, int head_dim) {
    for_each(head_dim, [&](float(&sum)[kValues], int d) {
#pragma unroll
      for (int e = 0; e < kValues; ++e) sum[e] += part[d + e];
    });
  }
  template <class To>
  __device__ void store(To* to, int head_dim) {
    for_each(head_dim, [&](float(&sum)[kValues], int d) {
      struct alignas(kValues * sizeof(To)) Values {
        To x[kValues];
      } values;
#pragma unroll
      for (int e = 0; e < kValues; ++e) {
        if constexpr (std::is_same_v<To, float>) {
          values.x[e] = sum[e];
        } else {
          values.x[e] = from_float<To>(sum[e]);
        }
      }
      *reinterpret_cast<Values*>(to + d) = values;
    });
  }
};

using AnchorKey = std::uint64_t;  // row of [batch, kv_heads, keys]; their number: no anchor

struct Level {
  SearchGradients search;
  std::int32_t level;
  const void* routing;
  void* routing_gradient;

  /// The anchor of a row's slot as a row of the arrays; -1: none.
  __device__ std::int64_t held(const Rows::Row& row, int slot) const {
    const std::int64_t at = row.index * search.top_k + slot;
    const std::int32_t anchor = search.anchors[at * search.levels + level];
    const std::int64_t held = anchor - search.rows.key_offset;
    return anchor >= 0 && held >= 0 && held < search.rows.keys ? held : -1;
  }
};

/// A warp a row.
template <class T, int kValues>
__global__ void routing_gradients(Level level) {
  const SearchGradients& search = level.search;
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (r >= search.rows.total()) return;
  const int d = search.rows.head_dim;
  const Rows::Row row = search.rows.at(r);
  RowSum<T, kValues> sum;
#pragma unroll 4
  for (int s = 0; s < search.top_k; ++s) {
    const std::int64_t held = level.held(row, s);
    if (held < 0) continue;
    sum.add(search.scale * search.by_score[r * search.top_k + s],
            static_cast<const T*>(search.search_keys) + (row.kv_row + held) * d, d);
  }
  sum.store(static_cast<T*>(level.routing_gradient) + row.index * d, d);
}

__global__ void make_entries(Level level, std::int64_t count, AnchorKey* keys,
                             std::int32_t* entries) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const Rows& rows = level.search.rows;
  const Rows::Row row = rows.at(i / level.search.top_k);
  const std::int64_t held = level.held(row, static_cast<int>(i % level.search.top_k));
  const std::int64_t none = static_cast<std::int64_t>(rows.batch) * rows.kv_heads * rows.keys;
  keys[i] = static_cast<AnchorKey>(held < 0 ? none : row.kv_row + held);
  entries[i] = static_cast<std::int32_t>(i);
}

/// Sorted entries, and where the sums of runs go that a warp does not see whole: [warps, 2,
/// head_dim], of the run that it finds begun, and of the one that it leaves unfinished.
struct Runs {
  const AnchorKey* key;
  const std::int32_t* entry;
  std::int64_t count;
  AnchorKey none;
  float* parts;

  __device__ float* part(std::int64_t warp, int which, int head_dim) const {
    return parts + (2 * warp + which) * head_dim;
  }
  __device__ bool same(std::int64_t i, std::int64_t j) const {
    return i >= 0 && j < count && key[i] == key[j];
  }
};

template <class T, int kValues>
__global__ void sum_runs(Level level, Runs runs) {
  const SearchGradients& search = level.search;
  const int d = search.rows.head_dim;
  const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const std::int64_t begin = warp * kRunEntries;
  const std::int64_t end = min(begin + kRunEntries, runs.count);
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (begin >= runs.count) return;
  RowSum<T, kValues> sum;
  bool begun = runs.same(begin - 1, begin);  // by the warp before
  for (std::int64_t first = begin; first < end; first += 32) {
    // A lane looks up one entry.
    const std::int64_t at = first + lane;
    std::int64_t row = 0;
    float weight = 0;
    AnchorKey key = runs.none;
    bool ends = false;  // the run, with this entry
    if (at < end) {
      const std::int32_t entry = runs.entry[at];
      key = runs.key[at];
      ends = !runs.same(at, at + 1);
      row = search.rows.at(entry / search.top_k).index;
      weight = search.scale * search.by_score[entry];
    }
    const auto here = static_cast<int>(min(end - first, std::int64_t{32}));
#pragma unroll 4
    for (int i = 0; i < here; ++i) {
      const AnchorKey of_run = __shfl_sync(kFullWarp, key, i);
      const std::int64_t from = __shfl_sync(kFullWarp, row, i);
      const float w = __shfl_sync(kFullWarp, weight, i);
      const bool done = __shfl_sync(kFullWarp, static_cast<int>(ends), i) != 0;
      if (of_run == runs.none) return;  // so are all that follow
      sum.add(w, static_cast<const T*>(level.routing) + from * d, d);
      if (!done) continue;
      if (begun) {
        sum.store(runs.part(warp, 0, d), d);
      } else {
        float* const to = search.search_key_sums + static_cast<std::int64_t>(of_run) * d;
        sum.add(to, d);
        sum.store(to, d);
      }
      begun = false;
      sum = {};
    }
  }
  if (runs.same(end - 1, end)) sum.store(runs.part(warp, begun ? 0 : 1, d), d);
}

/// The warp in whose entries a run begins that it does not end adds up the run's parts.
__global__ void join_runs(Level level, Runs runs) {
  const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const std::int64_t begin = warp * kRunEntries;
  const std::int64_t end = begin + kRunEntries;
  if (end >= runs.count || !runs.same(end - 1, end)) return;
  const AnchorKey key = runs.key[end];
  if (key == runs.none || (runs.same(begin - 1, begin) && runs.key[begin] == key)) return;
  std::int64_t low = end;  // the run's end: past the last entry with its key
  std::int64_t high = runs.count;
  while (low < high) {
    const std::int64_t middle = (low + high) / 2;
    runs.key[middle] == key ? low = middle + 1 : high = middle;
  }
  std::int64_t past = (low - 1) / kRunEntries + 1;  // warps
  if (faulty(level.search.rows.fault, Fault::anchor_run_cut)) --past;
  const int d = level.search.rows.head_dim;
  RowSum<float, 1> sum;
  sum.add(runs.part(warp, 1, d), d);
#pragma unroll 8
  for (std::int64_t other = warp + 1; other < past; ++other) sum.add(runs.part(other, 0, d), d);
  float* const to = level.search.search_key_sums + static_cast<std::int64_t>(key) * d;
  sum.add(to, d);
  sum.store(to, d);
}

template <class T>
__global__ void convert(const float* sums, std::int64_t count, T* gradient) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) gradient[i] = from_float<T>(sums[i]);
}

struct Layout {
  std::int64_t count;
  AnchorKey none;
  int bits = 0;
  AnchorKey* keys[2];
  std::int32_t* entries[2];
  float* parts;
  char* sort_space;
  std::size_t sort_bytes = 0;
  std::size_t used;

  Layout(const Rows& rows, int top_k, Arena arena) {
    count = rows.total() * top_k;
    require(count < INT_MAX, "{} pairs of a row and a slot: below {}", count, INT_MAX);
    none = static_cast<AnchorKey>(rows.batch) * static_cast<AnchorKey>(rows.kv_heads) *
           static_cast<AnchorKey>(rows.keys);
    while ((AnchorKey{1} << bits) <= none) ++bits;
    for (int i = 0; i < 2; ++i) {
      keys[i] = arena.take<AnchorKey>(count);
      entries[i] = arena.take<std::int32_t>(count);
    }
    parts = arena.take<float>((count + kRunEntries - 1) / kRunEntries * 2 * rows.head_dim);
    cub::DoubleBuffer<AnchorKey> key_buffer(keys[0], keys[1]);
    cub::DoubleBuffer<std::int32_t> entry_buffer(entries[0], entries[1]);
    check(cub::DeviceRadixSort::SortPairs(nullptr, sort_bytes, key_buffer, entry_buffer,
                                          static_cast<int>(count), 0, bits),
          "DeviceRadixSort");
    sort_space = arena.take<char>(static_cast<Index>(sort_bytes));
    used = arena.used();
  }
};

template <class T, int kValues>
void sum_level(const Level& level, const Layout& layout, Stream stream) {
  const SearchGradients& search = level.search;
  if (level.routing_gradient) {
    routing_gradients<T, kValues>
        <<<blocks_for(search.rows.total() * 32, kThreads), kThreads, 0, stream>>>(level);
    check_launch("routing_gradients");
  }
  if (!search.search_key_sums) return;
  make_entries<<<blocks_for(layout.count, kThreads), kThreads, 0, stream>>>(
      level, layout.count, layout.keys[0], layout.entries[0]);
  check_launch("make_entries");
  cub::DoubleBuffer<AnchorKey> keys(layout.keys[0], layout.keys[1]);
  cub::DoubleBuffer<std::int32_t> entries(layout.entries[0], layout.entries[1]);
  std::size_t bytes = layout.sort_bytes;
  check(cub::DeviceRadixSort::SortPairs(layout.sort_space, bytes, keys, entries,
                                        static_cast<int>(layout.count), 0, layout.bits, stream),
        "DeviceRadixSort");
  const Runs runs{keys.Current(), entries.Current(), layout.count, layout.none, layout.parts};
  const unsigned blocks = blocks_for((layout.count + kRunEntries - 1) / kRunEntries * 32, kThreads);
  sum_runs<T, kValues><<<blocks, kThreads, 0, stream>>>(level, runs);
  check_launch("sum_runs");
  join_runs<<<blocks, kThreads, 0, stream>>>(level, runs);
  check_launch("join_runs");
}

}  // namespace

std::size_t search_gradients_bytes(const Rows& rows, int top_k) {
  return Layout(rows, top_k, Arena()).used;
}

void search_gradients(const SearchGradients& search, void* workspace, Stream stream) {
  if (search.rows.total() == 0 || search.top_k == 0) return;
  const Layout layout(search.rows, search.top_k, Arena(workspace));
  for (std::int32_t m = 0; m < search.levels; ++m) {
    const Level level{search, m, search.routing[m], search.routing_gradients[m]};
    const bool wide = search.rows.head_dim % 4 == 0;
    if (search.dtype == Dtype::bf16) {
      wide ? sum_level<bf16, 4>(level, layout, stream) : sum_level<bf16, 1>(level, layout, stream);
    } else {
      wide ? sum_level<fp16, 4>(level, layout, stream) : sum_level<fp16, 1>(level, layout, stream);
    }
  }
}

void store_sums(const float* sums, std::int64_t count, Dtype dtype, void* gradient, Stream stream) {
  if (count == 0 || !gradient) return;
  dtype == Dtype::bf16 ? convert<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(
                             sums, count, static_cast<bf16*>(gradient))
                       : convert<<<blocks_for(count, kThreads), kThreads, 0, stream>>>(
                             sums, count, static_cast<fp16*>(gradient));
  check_launch("store_sums");
}

}  // namespace multistep::cuda
