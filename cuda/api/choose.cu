#include "api/choose.cuh"

#include <algorithm>
#include <cmath>

#include "api/call.cuh"

namespace multistep::cuda {
namespace {

constexpr Index kFastTopK = kMaxTileSlots;
constexpr Index kFewRows = 64;  // of a KV head: fewer do not fill a tile

std::string why_not_head_dim(Index head_dim) {
  return head_dim == 64 || head_dim == 128 ? ""
                                           : text("head_dim {}: 64 and 128 are built", head_dim);
}

std::string why_not_slots(Index slots) {
  return slots <= kFastTopK ? "" : text("top_k {}: at most {}", slots, kFastTopK);
}

std::string why_not_scale(float scale) {
  return scale > 0 ? "" : text("softmax_scale {}: above 0", scale);
}

/// Decoding's kernel.
std::string why_not_pieces(const Shape& shape, Index slots) {
  const Index of_kv_head = shape.queries * shape.group();
  if (!shape.length && of_kv_head > kFewRows) {
    return text("{} rows of a KV head: at most {}", of_kv_head, kFewRows);
  }
  if (shape.keys == 0) return "no keys";
  if (shape.cu_seqlens) return "packed sequences: their kernels are those for many queries";
  const std::string why = why_not_head_dim(shape.head_dim);
  return why.empty() ? why_not_slots(slots) : why;
}

template <class... Why>
std::string first_of(const Why&... why) {
  std::string first;
  ((first = first.empty() ? why : first), ...);
  return first;
}

}  // namespace

std::string why_not_fast_search(Index head_dim, Index top_k) {
  return first_of(why_not_head_dim(head_dim), why_not_slots(top_k));
}

std::string why_not_tiles(const Shape& shape, float scale, bool hopper) {
  if (!hopper) return "the chip: tiles are built for Hopper";
  if (shape.keys == 0) return "no keys";
  return first_of(why_not_head_dim(shape.head_dim), why_not_scale(scale));
}

std::string why_not_fast_combine(const Shape& shape, const Combine& combine, bool hopper) {
  if (combine.window_output) return "window_output: its kernel attends to the window itself";
  const std::string why = first_of(why_not_head_dim(shape.head_dim), why_not_slots(combine.slots));
  if (!why.empty() || combine.rows.window == 0) return why;
  return why_not_tiles(shape, combine.scale, hopper);
}

KernelChoice::KernelChoice(const Shape& shape, Index slots, float scale, Rung rung, bool hopper) {
  if (rung == Rung::plain) slow = "rung plain";
  if (slow.empty() && slots > 0) slow = why_not_fast_search(shape.head_dim, slots);
  if (slow.empty()) slow = why_not_scale(scale);
  not_pieces = slow.empty() ? why_not_pieces(shape, slots) : slow;
  not_tiles = slow.empty() ? why_not_tiles(shape, scale, hopper) : slow;
}

void refuse_slow(Rung rung, const std::string& why) {
  require(rung != Rung::fast_or_refuse || why.empty(), "no fast kernel takes the call: {}", why);
}

Index chunk_queries(const Shape& shape, Index slots, Index pairs) {
  const Index of_query = shape.batch * shape.num_heads * std::max<Index>(slots, 1);
  return std::min(shape.queries, std::max<Index>(1, chunk_pairs(pairs) / of_query));
}

bool units_are_few(const Rows& rows, int top_k, bool inner, int multiprocessors) {
  constexpr int kBusyWarps = 8;  // of a multiprocessor
  const std::int64_t units = inner ? rows.total() * top_k : HeadTile<kSearchHeads>::count(rows);
  return units < static_cast<std::int64_t>(multiprocessors) * kBusyWarps;
}

bool sorts_parents(Index pairs) {
  constexpr Index kSorted = 1 << 16;  // fewer lie in the cache as they are
  return pairs >= kSorted && pairs < INT_MAX;
}

namespace {

bool are_aligned(const Schedule& schedule, Index levels) {
  return std::all_of(schedule.levels.begin(), schedule.levels.begin() + levels,
                     [](const Level& level) { return level.rule == Rule::aligned; });
}

}  // namespace

int shared_bits(const Schedule& schedule, Index m, Index keys) {
  if (m == 0 || !are_aligned(schedule, m)) return 0;
  double bits = std::log2(static_cast<double>(std::max<Index>(keys, 1)));
  for (Index i = 1; i <= m; ++i) {
    const auto left = static_cast<double>(schedule.steps - i + 1);
    bits = std::max(std::ceil(bits * (left - 1) / left - 0.5), 0.0);
  }
  return std::max(static_cast<int>(bits) - 1, 0);
}

bool searches_product(const Schedule& schedule, Index m, const Rows& rows, Index keys,
                      int multiprocessors) {
  const auto top_k = static_cast<int>(schedule.top_k);
  const bool inner = m > 1;
  const std::int64_t units = rows.total() * (inner ? top_k : 1);
  if (rows.sequence.packed || units_are_few(rows, top_k, inner, multiprocessors) ||
      (inner && !sorts_parents(units)) || !are_aligned(schedule, m)) {
    return false;
  }
  // A level's parts, and with them the parents below, are more by the N-th root than those above.
  const double parents = std::pow(static_cast<double>(std::max<Index>(keys, 1)),
                                  static_cast<double>(m - 1) / static_cast<double>(schedule.steps));
  const std::int64_t heads = static_cast<std::int64_t>(rows.batch) * rows.kv_heads;
  return static_cast<double>(units) >= kProductRows * parents * static_cast<double>(heads);
}

int levels_at_once(const Rows& rows, int top_k, bool inner, int count, const Chip& chip) {
  const auto few = [&](bool below) {
    return units_are_few(rows, top_k, below, chip.multiprocessors);
  };
  if (!few(inner)) return 1;
  // Below level 1 each head has a block.
  if (!inner && chip.cluster < std::min(rows.group(), kSearchHeads)) return 1;
  int result = 1;
  while (result < std::min(count, kLevelsAtOnce) && few(true)) ++result;
  return result;
}

}  // namespace multistep::cuda
