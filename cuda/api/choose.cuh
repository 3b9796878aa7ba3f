#pragma once

#include "api/stages.cuh"
#include "multistep/cuda/plan.hpp"

/// Which kernel takes a call: the one table. Functions named why_not say in one line why a kernel
/// does not, and nothing where it does.
namespace multistep::cuda {

/// Any fast kernel, and all that the search asks.
std::string why_not_head_dim(Index head_dim);
/// Attention of many rows, spans or windows, by tiles.
std::string why_not_tiles(const Shape& shape);
std::string why_not_backward_tiles(const Shape& shape, float scale);
/// Whether its passes over keys are Hopper's, where the code that was loaded has these.
bool goes_back_on_hopper(bool hopper, Index head_dim);
/// Combination by the tiles that attend to the windows, or of outputs that are there.
std::string why_not_fast_combine(const Shape& shape, const Combine& combine);
/// Whether the window's output is written, and joined with the spans' by another launch.
bool combines_twice(const Combine& combine);

/// The kernels of attention().
struct KernelChoice {
  std::string not_search;  // why the fast search does not take it
  std::string not_pieces;  // why decoding's kernel does not take it
  std::string not_tiles;
  bool chunks = false;  // N = 1: the keys of few queries in chunks

  /// `items`: of about the longest row.
  KernelChoice(const Shape& shape, Index slots, const ItemBounds& items, Rung rung);

  bool fast_search() const { return not_search.empty(); }
  bool pieces() const { return not_pieces.empty(); }
  bool tiles() const { return not_tiles.empty(); }
  /// Queries of a chunk.
  Index queries_at_once(const Shape& shape, Index slots) const;
};

/// Throws std::invalid_argument where the caller wants no slower kernel than the fast ones.
void refuse_slow(Rung rung, const std::string& why);

/// How many queries a chunk of a long prefill has, of about so many (row, slot) pairs.
inline constexpr Index kChunkPairs = Index{1} << 22;
Index chunk_queries(const Shape& shape, Index slots, Index pairs = kChunkPairs);
/// How many are searched at once: below level 1 a pair has top_k candidates.
Index search_queries(const Shape& shape, Index top_k);

/// Whether a warp for each unit of a search would leave much of the device idle; `inner`: below
/// level 1, where a unit is a query row's parent, not a query with the heads of a KV head.
bool units_are_few(const Rows& rows, int top_k, bool inner, int multiprocessors);

/// Whether the pairs of a query row and a parent are searched in the order of their keys.
bool sorts_parents(Index pairs);

/// Whether level m is searched as a product: its parts are those of all queries, and the query
/// rows, below level 1 with each parent, that search the same ones fill a block. `keys`: of the
/// longest row.
bool searches_product(const Schedule& schedule, Index m, const Rows& rows, Index keys,
                      int multiprocessors);

/// Last bits that the first keys of level m's spans have in common, where these are parts that all
/// rows share: in rows of up to `keys` keys and down to about a quarter of them.
int shared_bits(const Schedule& schedule, Index m, Index keys);

/// How the pairs of rows of up to `keys` keys and their final spans are put into tiles. A block
/// walks over the key tiles that any pair of two tiles looks at: where pairs are few and their
/// spans lie far apart, tiles of fewer pairs are walked by more blocks in less time.
PairOrder pair_order(const DeviceSchedule& schedule, const Rows& rows, Index slots, Index keys,
                     int multiprocessors);

/// How many of `count` levels that follow one another one launch searches.
int levels_at_once(const Rows& rows, int top_k, bool inner, int count, const Chip& chip);

}  // namespace multistep::cuda
