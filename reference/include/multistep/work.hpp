#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "multistep/schedule.hpp"

/// Work counts and the lower bound (SPEC 2.5.5, 2.6).
namespace multistep {

/// Work of one path (top_k = 1): anchors scored on the way plus keys of its final span, over all
/// pairs of a path and a key in its final span. N = 1 has one path, whose span is every key.
struct PathWork {
  Index min = 0;
  Index max = 0;
  double pairs = 0;  // pairs of a path and a key; 0 where the window has every key
  double mean = 0;   // over those pairs
};
PathWork path_work(const StripePlan& plan, Index query, Index start = 0);

/// The least number of choices that any N-step scheme offers where it reaches n keys: N n^(1/N).
double lower_bound(Index steps, Index n);

/// Work actually done, in keys per query head (SPEC 2.6).
struct WorkCount {
  Index anchors_scored = 0;  // over the levels, for every kept parent
  Index keys_attended = 0;   // final spans by their length, and the window once

  Index total() const { return anchors_scored + keys_attended; }
  WorkCount& operator+=(const WorkCount& other) {
    anchors_scored += other.anchors_scored;
    keys_attended += other.keys_attended;
    return *this;
  }
};

/// What a candidate of search level `level` adds to its path's score: an anchor key and the span
/// that it stands for.
using CandidateScore = std::function<double(Index level, Index anchor, Span span)>;

/// Span-search of query t with these scores in place of dot products: the final spans of the top_k
/// paths kept, best first, some perhaps empty. `work` gains what was scored and attended, the
/// window included. N = 1 has none: its window is every key.
std::vector<Span> routed_spans(const StripePlan& plan, Index query, const CandidateScore& score,
                               WorkCount& work);

/// The work of query t when every anchor's score is a fair draw: the span-search of the oracle with
/// seeded random scores in place of dot products, top_k paths kept.
WorkCount random_routing_work(const StripePlan& plan, Index query, std::uint64_t seed);

}  // namespace multistep
