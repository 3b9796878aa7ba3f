#pragma once

#include <optional>
#include <vector>

#include "multistep/schedule.hpp"

/// The walk over what a query can choose: level by level an anchor, inside the span of the one
/// before.
namespace multistep {

/// One choice of a level: a stripe, its anchor, and the span that the anchor stands for.
struct Choice {
  Index stripe = 0;
  Index key = -1;
  Segment span;  // as the next level searches it
};

/// The choices that level m offers inside a segment, the newest first. None of their spans is
/// empty.
class Choices {
 public:
  Choices(const StripePlan& plan, Index m, const Segment& segment)
      : cut_(plan.cut(m, segment)), end_(segment.end) {}

  class Iterator {
   public:
    Iterator(const Choices& choices, Index stripe) : choices_(choices), stripe_(stripe) {}
    Choice operator*() const { return choices_.of_stripe(stripe_); }
    Iterator& operator++() {
      ++stripe_;
      return *this;
    }
    bool operator!=(const Iterator& other) const { return stripe_ != other.stripe_; }

   private:
    const Choices& choices_;
    Index stripe_;
  };

  Index size() const { return cut_.count(); }
  Iterator begin() const { return {*this, cut_.first()}; }
  Iterator end() const { return {*this, cut_.first() + cut_.count()}; }

  /// The choice whose anchor is `key`; none where no anchor is.
  std::optional<Choice> at_key(Index key) const;

 private:
  Index key_of(Index stripe) const;
  Choice of_stripe(Index stripe) const;

  Cut cut_;
  Index end_;  // of the segment
};

/// Calls visit(path), a std::vector<Choice> [N - 1], for every path of a query that searches the
/// keys `searched`, or for those whose final span holds `key`. No path where N = 1.
template <class Visit>
void for_each_path(const StripePlan& plan, const Segment& searched, std::optional<Index> key,
                   Visit&& visit) {
  std::vector<Choice> path;
  const auto descend = [&](const auto& self, Index m, const Segment& segment) -> void {
    for (const Choice choice : Choices(plan, m, segment)) {
      if (key && !choice.span.contains(*key)) continue;
      path.push_back(choice);
      m + 1 == plan.steps() ? visit(path) : self(self, m + 1, choice.span);
      path.pop_back();
    }
  };
  if (plan.steps() > 1) descend(descend, 1, searched);
}

}  // namespace multistep
