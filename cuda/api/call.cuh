#pragma once

#include <optional>
#include <vector>

#include "api/check.cuh"
#include "api/stages.cuh"

/// What the public functions share: checks, and how a stage's arguments become launches.
namespace multistep::cuda {

/// What every stage asks of its shape; `pages`: it takes keys that lie in some. Throws
/// std::invalid_argument.
void require_problem(const Shape& shape, Dtype dtype, const DeviceSchedule* schedule, Index slots,
                     bool pages = false);
void require_scale(double scale, const char* name);

float scale_of(std::optional<double> softmax_scale, Index head_dim);

/// Of what a check has bounded.
inline std::int32_t narrow(Index value) { return static_cast<std::int32_t>(value); }

void require_strides(const Strides& strides, const std::string& name);
void require_routing_strides(const std::vector<Strides>& strides, Index levels);

/// Throws unless there is one array per search level.
void require_routing(const std::vector<const void*>& routing_queries, Index levels, Index rows);

/// Attention to the spans of `rows`, or to their windows; where its results go is not said.
template <class Args>
SpanAttend attend_of(const Args& args, const Rows& rows, Index slots, const DeviceSpan* spans) {
  return {.rows = rows,
          .dtype = args.dtype,
          .scale = scale_of(args.softmax_scale, args.shape.head_dim),
          .slots = narrow(slots),
          .query = query_array(args.query, {}, args.shape),
          .key = key_array(args.key, {}, args.shape),
          .value = key_array(args.value, {}, args.shape),
          .spans = spans};
}

/// Keys that the last query may see, as far as the host knows.
Index longest_row(const Shape& shape);

/// Of whole contexts: the arrays hold those keys.
void require_keys(const Shape& shape);

/// A whole search, or one level of it.
class Search {
 public:
  /// Lays out scratch for the queries of `rows`; from an arena without a base it only counts.
  Search(const SpanSearchArgs& args, const Rows& rows, Arena& arena);

  /// launch() sets these to 0: whoever waits for the search can rely on it.
  void set_counters(std::int32_t* counters, std::int64_t count);
  void launch(Stream stream);
  /// The anchors of more than one level, where they are wanted: what needs the spans alone goes
  /// first.
  void trace(Stream stream) const;

 private:
  LevelSearch level_of(Index m) const;  // after those above it
  void reset_counters(Stream stream) const;
  void take_lists(Arena& arena);
  static SpanAttend pairs_of(const LevelSearch& level);

  const SpanSearchArgs& args_;
  Rows rows_;
  std::vector<LevelSearch> levels_;
  std::vector<SearchScratch> scratch_;
  std::vector<char*> sorting_;
  std::int32_t* anchors_ = nullptr;  // [levels, rows, top_k]
  std::int32_t* ranks_ = nullptr;
  bool fast_ = false;
};

/// Window attention by tiles where there is a window to attend to. `window_lses`, of all rows,
/// where it combines_twice().
void launch_combine(const Combine& combine, const Shape& shape, Rung rung, float* window_lses,
                    Stream stream);

}  // namespace multistep::cuda
