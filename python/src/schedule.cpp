#include "multistep/schedule.hpp"

#include <algorithm>

#include "arrays.hpp"
#include "core.hpp"
#include "interrupt.hpp"
#include "multistep/coverage.hpp"
#include "multistep/walk.hpp"
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
  validate_schedule(schedule);
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
  return interruptible(max_length <= kShortPlan, nb::handle(), [&](Errand& errand) {
    return StripePlan(schedule, max_length, errand.progress());
  });
}

void require_query(const StripePlan& plan, Index query, Index start) {
  require_within("query", query, 0, plan.max_length() - 1);
  require_within("start", start, 0, query);
}

/// The segment that a query searches after it chose the anchors `chosen`, one per level.
Segment segment_after(const StripePlan& plan, Index query, Index start,
                      const std::vector<Index>& chosen) {
  require_query(plan, query, start);
  Segment segment = plan.searched(query, start);
  Index m = 1;
  for (const Index anchor : chosen) {
    require(m < plan.steps(), "anchors {}: a schedule of {} steps has {} search levels",
            chosen.size(), plan.steps(), plan.steps() - 1);
    const std::optional<Choice> choice = Choices(plan, m, segment).at_key(anchor);
    require(choice.has_value(), "anchor {}: not one of level {} in [{}, {})", anchor, m,
            segment.begin, segment.end);
    segment = choice->span;
    ++m;
  }
  return segment;
}

/// Anchors and spans of the level after `chosen`, newest first: [n] and [n, 2].
nb::tuple level(const StripePlan& plan, Index query, Index start,
                const std::vector<Index>& chosen) {
  const Segment segment = segment_after(plan, query, start, chosen);
  const Index m = static_cast<Index>(chosen.size()) + 1;
  std::vector<Index> anchors;
  std::vector<Span> spans;
  if (m < plan.steps()) {
    for (const Choice choice : Choices(plan, m, segment)) {
      anchors.push_back(choice.key);
      spans.push_back(choice.span);
    }
  }
  const Index count = std::ssize(anchors);
  return nb::make_tuple(to_numpy(std::move(anchors), {count}), to_numpy(flat(spans), {count, 2}));
}

/// Calls visit(path) for every path of a query, or for those to one key, as long as they are few.
template <class Visit>
void for_each_listed_path(const StripePlan& plan, Index query, Index start,
                          std::optional<Index> key, Visit&& visit) {
  Index count = 0;
  for_each_path(plan, plan.searched(query, start), key, [&](const std::vector<Choice>& path) {
    require(++count <= kMaxPaths, "query {}: more than {} paths to list", query, kMaxPaths);
    visit(path);
  });
}

/// Per path a list of (stripe, anchor, begin, end), one per level.
nb::list paths(const StripePlan& plan, Index query, Index start, Index key) {
  require_query(plan, query, start);
  require_within("key", key, start, query);
  nb::list found;
  for_each_listed_path(plan, query, start, key, [&](const std::vector<Choice>& path) {
    nb::list steps;
    for (const auto& [stripe, anchor, span] : path) {
      steps.append(nb::make_tuple(stripe, anchor, span.begin, span.end));
    }
    found.append(steps);
  });
  return found;
}

/// Every final span of a query: [n, 2].
nb::ndarray<nb::numpy, Index> final_spans(const StripePlan& plan, Index query, Index start) {
  require_query(plan, query, start);
  std::vector<Span> spans;
  for_each_listed_path(plan, query, start, {},
                       [&](const std::vector<Choice>& path) { spans.push_back(path.back().span); });
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
    const Unlocked unlocked;
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
  core.def("preset",
           [](const std::string& name, Index steps) { return preset_schedule(name, steps); });
  core.def("default_level", [](const std::string& rule, Index steps_left) {
    Schedule one;
    one.levels.push_back(default_level(parse_rule(rule), steps_left));
    return levels_of(one).front();
  });

  core.def("aligned_part", &aligned_part);

  nb::class_<StripePlan>(core, "Plan")
      .def_prop_ro("max_length", &StripePlan::max_length)
      .def_prop_ro("schedule", &StripePlan::schedule)
      .def("with_top_k", &StripePlan::with_top_k)
      .def("window", &window)
      .def("level", &level)
      .def("paths", &paths)
      .def("final_spans", &final_spans)
      .def("multiplicity", &counts)
      .def("work", &work);
  core.def("make_plan", &make_plan);
}

}  // namespace multistep::python
