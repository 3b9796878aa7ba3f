#include "studies/routing.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/random.hpp"

namespace multistep::program {
namespace {

/// Standard normal draws, two at a time (Box and Muller, 1958).
class Normal {
 public:
  explicit Normal(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() { return next_random(state_); }
  double operator()() {
    if (has_other_) {
      has_other_ = false;
      return other_;
    }
    constexpr double kTurn = 6.283185307179586;
    const double open = (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53;  // in (0, 1)
    const double radius = std::sqrt(-2 * std::log(open));
    const double angle = kTurn * next_uniform(state_);
    other_ = radius * std::sin(angle);
    has_other_ = true;
    return radius * std::cos(angle);
  }

 private:
  std::uint64_t state_;
  double other_ = 0;
  bool has_other_ = false;
};

/// The scores of one hunt.
class Scores {
 public:
  Scores(double noise, std::uint64_t seed) : noise_(noise), normal_(seed) {}
  double operator()(bool holds) {
    // Without noise, lots far below the signal: else all ties would go to the oldest anchors.
    const double drawn =
        noise_ > 0 ? noise_ * normal_() : static_cast<double>(normal_.bits() >> 11) * 0x1p-80;
    return (holds ? 1.0 : 0.0) + drawn;
  }
  Index below(Index count) {
    return static_cast<Index>(normal_.bits() % static_cast<std::uint64_t>(count));
  }

 private:
  double noise_;
  Normal normal_;
};

/// The top_k best scores, of which all that matters is whether one holds the needle.
class Best {
 public:
  explicit Best(Index top_k) : top_k_(static_cast<std::size_t>(top_k)) {}
  void add(double score, bool holds) {
    if (kept_.size() == top_k_) {
      if (score <= kept_.back().score) return;
      kept_.pop_back();
    }
    const auto after = [](double value, const Scored& other) { return value > other.score; };
    kept_.insert(std::upper_bound(kept_.begin(), kept_.end(), score, after), {score, holds});
  }
  Index count() const { return static_cast<Index>(kept_.size()); }
  bool found() const {
    return std::any_of(kept_.begin(), kept_.end(), [](const Scored& one) { return one.holds; });
  }

 private:
  struct Scored {
    double score;
    bool holds;
  };
  std::size_t top_k_;
  std::vector<Scored> kept_;  // best first
};

}  // namespace

Hunt hunt(const StripePlan& plan, Index query, Index needle, double noise, std::uint64_t seed) {
  Scores scores(noise, seed);
  Hunt result;
  const std::vector<Span> spans = routed_spans(
      plan, query, [&](Index, Index, Span span) { return scores(span.contains(needle)); },
      result.work);
  const Span window = plan.window(query, 0);
  result.found = window.contains(needle);
  for (const Span& span : spans) result.found = result.found || span.contains(needle);
  if (const auto kept = static_cast<Index>(spans.size()); kept > 0) {
    result.mean_span = (result.work.keys_attended - window.length() + kept - 1) / kept;
  }
  return result;
}

Hunt hunt_at_random(const StripePlan& plan, Index query, Index needle, double noise,
                    std::uint64_t seed, const Hunt& like) {
  Scores scores(noise, seed);
  const Span window = plan.window(query, 0);
  const Index length = std::min(like.mean_span, window.begin);
  Best best(plan.schedule().top_k);
  for (Index at = 0; at < like.work.anchors_scored; ++at) {
    const Index begin = scores.below(window.begin - length + 1);
    const bool holds = Span{begin, begin + length}.contains(needle);
    best.add(scores(holds), holds);
  }
  return {window.contains(needle) || best.found(),
          {like.work.anchors_scored, window.length() + best.count() * length},
          length};
}

Hunt hunt_in_blocks(const StripePlan& plan, Index query, Index needle, double noise,
                    std::uint64_t seed, const Hunt& like) {
  Scores scores(noise, seed);
  const Span window = plan.window(query, 0);
  const Index length = std::max<Index>(1, like.mean_span);
  const Index blocks = std::min(like.work.anchors_scored, (window.begin + length - 1) / length);
  Best best(plan.schedule().top_k);
  for (Index at = 0; at < blocks; ++at) {
    const Index end = window.begin - at * length;
    const bool holds = Span{std::max<Index>(0, end - length), end}.contains(needle);
    best.add(scores(holds), holds);
  }
  return {window.contains(needle) || best.found(),
          {blocks, std::min(query + 1, window.length() + best.count() * length)},
          length};
}

}  // namespace multistep::program
