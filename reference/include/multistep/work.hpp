#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "multistep/schedule.hpp"

/// Work counts and the lower bounds that they have (SPEC 2.5.5, 2.5.8, 2.6).
namespace multistep {

/// Work of one path (top_k = 1): anchors scored on the way plus keys of its final span, over all
/// pairs of a path and a key in its final span. N = 1 has one path, whose span is every key.
struct PathWork {
  Index min = 0;
  Index max = 0;
  std::string pairs;       // decimal digits: paths of overlapping power levels pass any fixed width
  double mean = 0;         // over those pairs, the nearest double
  double lower_bound = 0;  // of the mean, for the keys outside the window (SPEC 2.5.8; proved,
                           // mean_work_of_covering_schedules of proofs/)
  std::optional<double> ratio;  // mean / lower_bound; none where one of these is not reached
};

/// None where the window has every key, so that nothing is searched.
std::optional<PathWork> path_work(const StripePlan& plan, Index query, Index start = 0);

/// The keys that query t can reach by its choices alone; all eligible ones where N = 1.
Index keys_outside_window(const StripePlan& plan, Index query, Index start = 0);

/// What N steps that reach n keys cannot stay below: N n^(1/N), of the sum of the most choices that
/// each step offers and of the mean work of a path; with k = top_k paths kept, N (k^(N-1) n)^(1/N)
/// of c_1 + k (c_2 + ... + c_N), the choices that all kept paths are offered.
double work_lower_bound(Index steps, Index n, Index top_k = 1);

/// The most choices that each step offers a query: anchors of a segment before the last step, keys
/// of a final span at it. Remembers the segments of its plan; not for sharing between threads.
class MostChoices {
 public:
  explicit MostChoices(const StripePlan& plan);

  /// c_1, ..., c_N: [N], all 0 where the window has every key.
  std::vector<Index> of(Index query, Index start = 0);

  /// c_1 + k (c_2 + ... + c_N) with the k = top_k of the plan.
  Index sum(Index query, Index start = 0);

 private:
  std::vector<Index> of_cut(Index m, const Segment& segment);  // c_m, ..., c_N
  void raise(Index m, const Segment& segment, Index* most);    // each of most[0 ... N - m] to these

  StripePlan plan_;
  std::vector<std::unordered_map<Segment, std::vector<Index>>> known_;  // [N - 1]
  bool asked_ = false;                                                  // about any query
};

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
using AnchorScore = std::function<double(Index level, Index anchor, Span span)>;

/// Span-search of query t with these scores in place of dot products: the final spans of the top_k
/// paths kept, best first, some perhaps empty. `work` gains what was scored and attended, the
/// window included. N = 1 has none: its window is every key.
std::vector<Span> routed_spans(const StripePlan& plan, Index query, const AnchorScore& score,
                               WorkCount& work);

/// The work of query t when every anchor's score is a fair draw: the span-search of the oracle with
/// seeded random scores in place of dot products, top_k paths kept.
WorkCount random_routing_work(const StripePlan& plan, Index query, std::uint64_t seed);

}  // namespace multistep
