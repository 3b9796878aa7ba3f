#include "multistep/schedule.hpp"

#include <algorithm>

#include "arrays.hpp"
#include "core.hpp"
#include "interrupt.hpp"
#include "multistep/coverage.hpp"
#include "multistep/work.hpp"

namespace multistep::python {
namespace {

constexpr Index kMaxPaths = 1'000'000;        // of one query, that are listed
constexpr Index kShortPlan = Index{1} << 20;  // its tables take no time

/// rule, exponent, backward, forward, span exponent
using LevelText = std::tuple<std::string, std::string, std::string, std::string, std::string>;

Schedule make_schedule(Index steps, const std::vector<LevelText>& levels, Index window_index,
                       Index top_k) {
  Schedule schedule{steps, {}, window_index, top_k};
  for (const auto& [rule, exponent, backward, forward, span_exponent] : levels) {
    schedule.levels.push_back({parse_rule(rule), parse_rational(exponent), parse_rational(backward),
                               parse_rational(forward), parse_rational(span_exponent)});
  }
  validate(schedule);
  return schedule;
}

std::vector<LevelText> levels_of(const Schedule& schedule) {
  std::vector<LevelText> levels;
  for (const Level& level : schedule.levels) {
    levels.emplace_back(std::string(to_string(level.rule)), to_string(level.exponent),
                        to_string(level.backward), to_string(level.forward),
                        to_string(level.span_exponent));
  }
  return levels;
}

StripePlan make_plan(const Schedule& schedule, Index max_length) {
  if (max_length <= kShortPlan) return StripePlan(schedule, max_length);
  return abandonable(nb::handle(), [schedule, max_length](const Progress&) {
    return StripePlan(schedule, max_length);
  });
}

void require_query(const StripePlan& plan, Index query, Index start) {
  require_within("query", query, 0, plan.max_length() - 1);
  require_within("start", start, 0, query);
}

Index anchor_of(const Cut& cut, Index stripe, Span segment) {
  return segment.end - 1 - cut.anchor(stripe);
}

/// The stripe with this anchor; last() + 1 where there is none.
Index stripe_at(const Cut& cut, Index anchor, Span segment) {
  Index low = cut.first();
  Index high = cut.last() + 1;
  while (low < high) {
    const Index middle = low + (high - low) / 2;
    anchor_of(cut, middle, segment) > anchor ? low = middle + 1 : high = middle;
  }
  const bool found = low <= cut.last() && anchor_of(cut, low, segment) == anchor;
  return found ? low : cut.last() + 1;
}

/// The segment that a query searches after it chose the anchors `chosen`, one per level.
Span segment_after(const StripePlan& plan, Index query, Index start,
                   const std::vector<Index>& chosen) {
  require_query(plan, query, start);
  Span segment = plan.searched(query, start);
  Index m = 1;
  for (const Index anchor : chosen) {
    require(m < plan.steps(), "anchors {}: a schedule of {} steps has {} search levels",
            chosen.size(), plan.steps(), plan.steps() - 1);
    const Cut cut = plan.cut(m, segment.length());
    const Index stripe = stripe_at(cut, anchor, segment);
    require(stripe <= cut.last(), "anchor {}: not one of level {} in [{}, {})", anchor, m,
            segment.begin, segment.end);
    segment = keys(cut.span(stripe), segment);
    ++m;
  }
  return segment;
}

/// Anchors and spans of the level after `chosen`, newest first: [n] and [n, 2].
nb::tuple level(const StripePlan& plan, Index query, Index start,
                const std::vector<Index>& chosen) {
  const Span segment = segment_after(plan, query, start, chosen);
  const Index m = static_cast<Index>(chosen.size()) + 1;
  std::vector<Index> anchors;
  std::vector<Span> spans;
  if (m < plan.steps()) {
    const Cut cut = plan.cut(m, segment.length());
    for (Index i = cut.first(); i <= cut.last(); ++i) {
      anchors.push_back(anchor_of(cut, i, segment));
      spans.push_back(keys(cut.span(i), segment));
    }
  }
  const Index count = std::ssize(anchors);
  return nb::make_tuple(to_numpy(std::move(anchors), {count}), to_numpy(flat(spans), {count, 2}));
}

struct Step {
  Index stripe;
  Index anchor;
  Span span;
};

/// Calls visit(path) for every path of a query, or for those to one key.
template <class Visit>
class Walk {
 public:
  Walk(const StripePlan& plan, Index query, std::optional<Index> key, Visit visit)
      : plan_(plan), query_(query), key_(key), visit_(std::move(visit)) {}

  void descend(Index m, Span segment) {
    if (m == plan_.steps()) {
      require(++count_ <= kMaxPaths, "query {}: more than {} paths to list", query_, kMaxPaths);
      return visit_(path_);
    }
    const Cut cut = plan_.cut(m, segment.length());
    for (Index i = cut.first(); i <= cut.last(); ++i) {
      const Span span = keys(cut.span(i), segment);
      if (span.empty() || (key_ && !span.contains(*key_))) continue;
      path_.push_back({i, anchor_of(cut, i, segment), span});
      descend(m + 1, span);
      path_.pop_back();
    }
  }

 private:
  const StripePlan& plan_;
  Index query_;
  std::optional<Index> key_;
  Visit visit_;
  Index count_ = 0;
  std::vector<Step> path_;
};

/// Per path a list of (stripe, anchor, begin, end), one per level.
nb::list paths(const StripePlan& plan, Index query, Index start, Index key) {
  require_query(plan, query, start);
  require_within("key", key, start, query);
  nb::list found;
  if (plan.steps() == 1) return found;
  const auto add = [&](const std::vector<Step>& path) {
    nb::list steps;
    for (const Step& step : path) {
      steps.append(nb::make_tuple(step.stripe, step.anchor, step.span.begin, step.span.end));
    }
    found.append(steps);
  };
  Walk(plan, query, key, add).descend(1, plan.searched(query, start));
  return found;
}

/// Every final span of a query that is not empty: [n, 2].
nb::ndarray<nb::numpy, Index> final_spans(const StripePlan& plan, Index query, Index start) {
  require_query(plan, query, start);
  std::vector<Span> spans;
  if (plan.steps() > 1) {
    const auto add = [&](const std::vector<Step>& path) { spans.push_back(path.back().span); };
    Walk(plan, query, std::nullopt, add).descend(1, plan.searched(query, start));
  }
  const Index count = std::ssize(spans);
  return to_numpy(flat(spans), {count, 2});
}

std::pair<Index, Index> window(const StripePlan& plan, Index query, Index start) {
  require_query(plan, query, start);
  const Span span = plan.window(query, start);
  return {span.begin, span.end};
}

nb::ndarray<nb::numpy, Index> counts(const StripePlan& plan, Index query, Index start) {
  require_query(plan, query, start);
  std::vector<Index> result = multiplicity(plan, query, start);
  const Index count = std::ssize(result);
  return to_numpy(std::move(result), {count});
}

/// min, mean, max, lower bound and ratio of the last query; None where the window has every key.
nb::object work(const StripePlan& plan, Index length, Index start) {
  const std::optional<PathWork> of = [&] {
    const nb::gil_scoped_release unlocked;
    return path_work(plan, length - 1, start);
  }();
  if (!of) return nb::none();
  return nb::make_tuple(of->min, of->mean, of->max, of->lower_bound, of->ratio);
}

}  // namespace

void bind_schedule(nb::module_& core) {
  nb::class_<Schedule>(core, "Schedule")
      .def_ro("steps", &Schedule::steps)
      .def_ro("window_index", &Schedule::window_index)
      .def_ro("top_k", &Schedule::top_k)
      .def_prop_ro("levels", &levels_of);
  core.def("make_schedule", &make_schedule);
  core.def("preset", [](const std::string& name, Index steps) { return preset(name, steps); });
  core.def("default_level", [](const std::string& rule, Index steps_left) {
    Schedule one;
    one.levels.push_back(default_level(parse_rule(rule), steps_left));
    return levels_of(one).front();
  });

  nb::class_<StripePlan>(core, "Plan")
      .def_prop_ro("max_length", &StripePlan::max_length)
      .def_prop_ro("schedule", &StripePlan::schedule)
      .def("window", &window)
      .def("level", &level)
      .def("paths", &paths)
      .def("final_spans", &final_spans)
      .def("multiplicity", &counts)
      .def("work", &work);
  core.def("make_plan", &make_plan);
}

}  // namespace multistep::python
