#pragma once

#include <vector>

#include "multistep/attention.hpp"

/// Search where a context lies on several devices (SPEC 13): each searches its own keys level by
/// level, and the lists are merged after every level into what one device would have kept, bit for
/// bit. The other pieces are span_attention() on a shard, merge_attention() and combine().
namespace multistep {

/// What one level keeps, best first: [batch, num_heads, L_q, top_k]. Slots without a path hold an
/// empty span at key 0, score -inf, anchor -1 and rank -1.
struct LevelPaths {
  Index top_k = 0;
  std::vector<Span> spans;
  std::vector<double> scores;  // path scores
  std::vector<Index> anchors;  // keys of this level
  std::vector<Index> ranks;    // of the parents among the paths of the level above; level 1: 0
};

template <class T>
struct LevelSearchArgs {
  Shape shape;
  const StripePlan* plan = nullptr;  // for lengths up to the last position + 1 at least
  Index level = 1;                   // [1, N - 1]
  const T* routing_query = nullptr;  // [batch, num_heads, L_q, head_dim], of this level
  const T* search_keys = nullptr;    // [batch, num_kv_heads, L_kv, head_dim]
  double search_scale = 1;
  // The merged paths of the level above, not looked at where this is level 1.
  const Index* parents = nullptr;         // [.., top_k, level - 1], anchors; -1 in unused slots
  const double* parent_scores = nullptr;  // [.., top_k]
};

/// The top_k best paths of one level among the anchors that the shard holds.
template <class T>
LevelPaths search_level(const LevelSearchArgs<T>& args);

/// Lists of paths that search_level() gave on each shard. Slots with an empty span are not used.
struct MergePathsArgs {
  Index shards = 0;
  Index rows = 0;  // batch * num_heads * L_q
  Index top_k = 0;
  const Span* spans = nullptr;     // [shards, rows, top_k]
  const double* scores = nullptr;  // [shards, rows, top_k]
  const Index* anchors = nullptr;  // [shards, rows, top_k]
  const Index* ranks = nullptr;    // [shards, rows, top_k]
};

/// The best top_k of all shards' paths in the one order of SPEC 3: [rows, top_k].
LevelPaths merge_paths(const MergePathsArgs& args);

}  // namespace multistep
