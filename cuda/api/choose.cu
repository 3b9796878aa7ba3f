#include "api/choose.cuh"

#include <algorithm>
#include <cmath>

#include "api/call.cuh"
#include "group/tile_rows.cuh"

namespace multistep::cuda {
namespace {

constexpr Index kFewRows = 64;           // of a KV head: fewer do not fill a tile
constexpr Index kChunkedRows = 4096;     // of dense attention: more occupy the device
constexpr Index kLongContext = 1 << 14;  // keys: of shorter ones tiles are read in no time

/// Microseconds that decoding's kernels and the tiles take for few queries on a long context, about
/// as measured on an H100. Decoding reads every row's spans; so few tiles read the cache once, or
/// no more than every row's spans in whole key tiles.
struct FewCost {
  double pieces;
  double tiles;

  FewCost(const Shape& shape, Index slots, const ItemBounds& items) {
    constexpr double kPiecesBytes = 2.4e6;  // a microsecond
    constexpr double kTilesBytes = 1.8e6;
    const auto keys = static_cast<double>(longest_row(shape));
    const auto rows = static_cast<double>(shape.rows());
    const double row_bytes = 4 * static_cast<double>(shape.head_dim);  // of a key and its value
    const double window = std::min<double>(items.window, keys) / static_cast<double>(shape.group());
    const double attended = static_cast<double>(slots) * items.span + window;
    const double cache = static_cast<double>(shape.batch * shape.num_kv_heads) * keys * row_bytes;
    const double alone = rows * (attended + static_cast<double>(slots) * kTileKeys) * row_bytes;
    pieces = 12 + rows * (0.04 + attended * row_bytes / kPiecesBytes);
    tiles = 30 + (items.window > 0 ? 40 : 0) + std::min(cache, alone) / kTilesBytes;
  }
};

std::string why_not_slots(Index slots, Index most) {
  return slots <= most ? "" : text("top_k {}: at most {}", slots, most);
}

std::string why_not_scale(float scale) {
  return scale > 0 ? "" : text("softmax_scale {}: above 0", scale);
}

/// Decoding's kernel.
std::string why_not_pieces(const Shape& shape, Index slots, const ItemBounds& items) {
  const Index of_kv_head = shape.queries * shape.group();
  if (!shape.length && of_kv_head > kFewRows) {
    const FewCost cost(shape, slots, items);
    if (slots == 0 || longest_row(shape) < kLongContext || cost.pieces > cost.tiles) {
      return text("{} rows of a KV head: more than {}, and tiles are faster", of_kv_head, kFewRows);
    }
  }
  if (shape.keys == 0) return "no keys";
  if (shape.cu_seqlens) return "packed sequences: their kernels are those for many queries";
  const std::string why = why_not_head_dim(shape.head_dim);
  return why.empty() ? why_not_slots(slots, kMaxDecodeSlots) : why;
}

bool are_aligned(const Schedule& schedule, Index levels) {
  return std::all_of(schedule.levels.begin(), schedule.levels.begin() + levels,
                     [](const Level& level) { return level.rule == Rule::aligned; });
}

template <class... Why>
std::string first_of(const Why&... why) {
  std::string first;
  ((first = first.empty() ? why : first), ...);
  return first;
}

}  // namespace

std::string why_not_head_dim(Index head_dim) {
  const bool built = head_dim % 8 == 0 && head_dim <= kMaxHeadDim;
  return built ? "" : text("head_dim {}: multiples of 8 up to {} are built", head_dim, kMaxHeadDim);
}

std::string why_not_tiles(const Shape& shape) {
  if (shape.keys == 0) return "no keys";
  if (shape.block_table) return "block_table: tiles read no pages";
  return why_not_head_dim(shape.head_dim);
}

std::string why_not_backward_tiles(const Shape& shape, float scale) {
  return first_of(why_not_tiles(shape), why_not_scale(scale));
}

bool goes_back_on_hopper(bool hopper, Index head_dim) {
  return hopper && head_dim <= kMaxHopperBackwardHeadDim;
}

std::string why_not_fast_combine(const Shape& shape, const Combine& combine) {
  const bool attends = !combine.window_output && combine.rows.window > 0;
  return attends ? why_not_tiles(shape) : why_not_head_dim(shape.head_dim);
}

bool combines_twice(const Combine& combine) {
  return !combine.window_output && combine.rows.window > 0 && combine.slots > kMaxTileSlots;
}

KernelChoice::KernelChoice(const Shape& shape, Index slots, const ItemBounds& items, Rung rung) {
  const std::string slow = rung == Rung::plain ? "rung plain" : "";
  not_search = slots > 0 ? first_of(slow, why_not_head_dim(shape.head_dim)) : slow;
  not_pieces = first_of(slow, why_not_pieces(shape, slots, items));
  not_tiles = first_of(slow, why_not_tiles(shape));
  chunks = tiles() && slots == 0 && !shape.cu_seqlens && shape.rows() <= kChunkedRows;
}

void refuse_slow(Rung rung, const std::string& why) {
  require(rung != Rung::fast_or_refuse || why.empty(), "no fast kernel takes the call: {}", why);
}

Index chunk_queries(const Shape& shape, Index slots, Index pairs) {
  const Index of_query = shape.batch * shape.num_heads * std::max<Index>(slots, 1);
  return std::min(shape.queries, std::max<Index>(1, chunk_pairs(pairs) / of_query));
}

Index search_queries(const Shape& shape, Index top_k) {
  constexpr Index kUsual = 4;
  return chunk_queries(shape, top_k, kChunkPairs * kUsual / std::max(top_k, kUsual));
}

Index KernelChoice::queries_at_once(const Shape& shape, Index slots) const {
  return pieces() || chunks ? shape.queries : search_queries(shape, slots);
}

bool units_are_few(const Rows& rows, int top_k, bool inner, int multiprocessors) {
  // Few have a cluster each at level 1, a block each below it, which has no second turn.
  if (inner && top_k > kMaxFastTopK) return false;
  const std::int64_t units = inner ? rows.total() * top_k : HeadTile::count(rows, kSearchHeads);
  return units < static_cast<std::int64_t>(multiprocessors) * (inner ? 8 : 1);
}

bool sorts_parents(Index pairs) {
  constexpr Index kSorted = 1 << 16;  // fewer lie in the cache as they are
  return pairs >= kSorted && pairs < INT_MAX;
}

int shared_bits(const Schedule& schedule, Index m, Index keys) {
  if (m == 0 || !are_aligned(schedule, m)) return 0;
  double bits = std::log2(static_cast<double>(std::max<Index>(keys, 1)));
  for (Index i = 1; i <= m; ++i) {
    const auto left = static_cast<double>(schedule.steps - i + 1);
    bits = std::max(std::ceil(bits * (left - 1) / left - 0.5), 0.0);
  }
  return std::max(static_cast<int>(bits) - 1, 0);
}

PairOrder pair_order(const DeviceSchedule& schedule, const Rows& rows, Index slots, Index keys,
                     int multiprocessors) {
  constexpr double kTaskKeys = 640;  // walked in the time that a task takes beside
  const auto context = static_cast<double>(keys);
  const double span = schedule.tables().items_of(keys).span;
  const std::int64_t heads = static_cast<std::int64_t>(rows.batch) * rows.kv_heads;
  const std::int64_t pairs = rows.total() * slots / std::max<std::int64_t>(heads, 1);
  PairOrder best{.shared_bits = shared_bits(schedule.plan().schedule(), schedule.levels(), keys)};
  double least = HUGE_VAL;
  for (int tile_pairs = kTileRows; tile_pairs >= 1; tile_pairs /= 2) {
    const std::int64_t tasks = heads * ((pairs + 2 * tile_pairs - 1) / (2 * tile_pairs));
    const auto turns = static_cast<double>((tasks + multiprocessors - 1) / multiprocessors);
    // Either the pairs' spans overlap, or each has key tiles of its own: those between are left
    // out.
    const double of_task = std::min(2.0 * tile_pairs, static_cast<double>(pairs));
    const double apart = pairs > 0 ? context * of_task / static_cast<double>(pairs) : 0;
    const double walked = std::min({apart + span, of_task * (span + kTileKeys), context});
    const double time = turns * (kTaskKeys + walked);
    if (time >= 0.9 * least) continue;
    least = time;
    best.tile_pairs = tile_pairs;
  }
  // Of pairs that are spread evenly over the context no tile begins over four times the keys of the
  // average one.
  constexpr int kLeastCut = 16;
  const std::int64_t tiles = (pairs + best.tile_pairs - 1) / best.tile_pairs;
  if (best.tile_pairs >= kLeastCut && tiles > 4) best.far = narrow(4 * keys / tiles);
  return best;
}

bool searches_product(const Schedule& schedule, Index m, const Rows& rows, Index keys,
                      int multiprocessors) {
  constexpr std::int64_t kFewPairs = 1 << 13;  // take less time than to be sorted
  const auto top_k = static_cast<int>(schedule.top_k);
  const bool inner = m > 1;
  const std::int64_t units = rows.total() * (inner ? top_k : 1);
  if (top_k > kMaxProductTopK || rows.sequence.packed || rows.pages.table ||
      units_are_few(rows, top_k, inner, multiprocessors) ||
      (inner && (units < kFewPairs || units >= INT_MAX)) || !are_aligned(schedule, m)) {
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
