#include <fmt/format.h>

#include <algorithm>

#include "multistep/coverage.hpp"
#include "multistep/walk.hpp"
#include "program/commands.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#include "program/pattern.hpp"
#include "schedule/gaps.hpp"

namespace multistep::program {
namespace {

constexpr Index kMaxNodes = 1'000'000;  // of a tree that is shown whole

struct Options {
  std::string position;
  std::string start = "0";
  std::string key;
  std::string limit = "16";
  PatternOptions pattern;
  ScheduleOptions schedule;
  OutputOptions output;
};

Json span_json(Span span) { return {{"begin", span.begin}, {"end", span.end}}; }

/// A query's tree of anchors, or the part of it that matters to one key.
class Tree {
 public:
  explicit Tree(const StripePlan& plan) : plan_(plan) {}

  Json whole(Index m, const Segment& segment) {
    Json nodes = Json::array();
    if (m == plan_.steps()) return nodes;
    for (const Choice choice : Choices(plan_, m, segment)) {
      nodes.push_back(node(m, choice, whole(m + 1, choice.span)));
    }
    return nodes;
  }

  /// The branches that end in a final span with the key.
  Json paths(const Segment& searched, Index key) {
    Json root = Json::array();
    for_each_path(plan_, searched, key, [&](const std::vector<Choice>& path) {
      Json* nodes = &root;
      for (std::size_t m = 0; m < path.size(); ++m) {  // paths that begin alike come in a row
        if (nodes->empty() || nodes->back()["stripe"] != path[m].stripe) {
          nodes->push_back(node(static_cast<Index>(m) + 1, path[m], Json::array()));
        }
        nodes = &nodes->back()["children"];
      }
    });
    return root;
  }

  /// The spans around a key that none reaches: at every level those that hold it, and the nearest
  /// on either side.
  Json around(Index m, const Segment& segment, Index key) {
    if (m == plan_.steps()) return Json::array();
    std::optional<Choice> newer;
    std::optional<Choice> older;
    Json nodes = Json::array();
    for (const Choice choice : Choices(plan_, m, segment)) {
      if (choice.span.contains(key)) {
        nodes.push_back(node(m, choice, around(m + 1, choice.span, key)));
      } else if (choice.span.begin > key) {
        newer = choice;
      } else if (!older) {
        older = choice;
      }
    }
    if (newer) nodes.insert(nodes.begin(), node(m, *newer, Json::array()));
    if (older) nodes.push_back(node(m, *older, Json::array()));
    return nodes;
  }

 private:
  Json node(Index m, const Choice& choice, Json children) {
    if (++count_ > kMaxNodes) {
      throw std::invalid_argument(
          fmt::format("--position {}: a query with at most {} anchors to show; --key shows the "
                      "paths to one key",
                      plan_.max_length() - 1, kMaxNodes));
    }
    return {{"level", m},
            {"stripe", choice.stripe},
            {"anchor", choice.key},
            {"span", span_json(choice.span)},
            {"children", std::move(children)}};
  }

  const StripePlan& plan_;
  Index count_ = 0;
};

std::string span_text(const Json& span) {
  if (span["begin"] == span["end"]) return "none";
  return fmt::format("[{}, {})", span["begin"].get<Index>(), span["end"].get<Index>());
}

void print_nodes(const Json& nodes, std::size_t limit, std::size_t depth, std::string& out) {
  for (std::size_t at = 0; at < nodes.size(); ++at) {
    const std::string indent(2 * depth, ' ');
    if (nodes.size() > limit && at == limit - 1) {
      out += fmt::format("{}... {} more\n", indent, nodes.size() - limit);
      at = nodes.size() - 1;
    }
    const Json& node = nodes[at];
    out += fmt::format("{}level {} stripe {}: anchor {}, span {}\n", indent,
                       node["level"].get<Index>(), node["stripe"].get<Index>(),
                       node["anchor"].get<Index>(), span_text(node["span"]));
    print_nodes(node["children"], limit, depth + 1, out);
  }
}

std::string text(const Json& result, std::size_t limit) {
  std::string out = fmt::format("schedule  {}\n", result["schedule"].get<std::string>());
  out += fmt::format("query     {}, eligible keys [{}, {})\n", result["position"].get<Index>(),
                     result["start"].get<Index>(), result["position"].get<Index>() + 1);
  out += fmt::format("window    {}\n", span_text(result["window"]));
  if (result.contains("key")) {
    const Index key = result["key"].get<Index>();
    if (result["in_window"].get<bool>()) {
      out += fmt::format("key {} is always attended: the window has it\n", key);
    } else if (result["reachable"].get<bool>()) {
      out += fmt::format("key {} is reached by:\n", key);
    } else {
      out += fmt::format(
          "key {} is EXCLUDED: no choice of anchors leads to the gap {}\nthe spans nearest to "
          "it:\n",
          key, span_text(result["gap"]));
    }
  }
  print_nodes(result["anchors"], limit, 0, out);
  return out;
}

/// What is asked about.
struct Question {
  Index position;
  Index start;
  std::optional<Index> key;
};

Json spans_json(const std::vector<Span>& spans) {
  Json list = Json::array();
  for (const Span& span : spans) list.push_back(span_json(span));
  return list;
}

Json pattern_json(const Pattern& pattern, const Question& asked) {
  PatternRow row = pattern.row(asked.position, asked.start);
  if (std::ssize(row.selectable) + std::ssize(row.averaged) > kMaxNodes) {
    throw std::invalid_argument(fmt::format("--position {}: a query with at most {} spans to show",
                                            asked.position, kMaxNodes));
  }
  const auto oldest_first = [](Span a, Span b) { return a.begin < b.begin; };
  std::ranges::stable_sort(row.selectable, oldest_first);
  std::ranges::stable_sort(row.averaged, oldest_first);
  Json result = {{"schedule", "pattern " + describe(pattern)},
                 {"position", asked.position},
                 {"start", asked.start},
                 {"selectable", spans_json(row.selectable)},
                 {"averaged", spans_json(row.averaged)},
                 {"scored", row.scored},
                 {"attended", row.attended}};
  if (!asked.key) return result;
  const auto has = [&](const std::vector<Span>& spans) {
    return std::ranges::any_of(spans, [&](Span span) { return span.contains(*asked.key); });
  };
  const bool selectable = has(row.selectable);
  const bool averaged = has(row.averaged);
  result["key"] = *asked.key;
  result["averaged_alone"] = averaged && !selectable;
  result["reachable"] = selectable || averaged;
  if (!selectable && !averaged) {
    std::vector<Span> all = row.selectable;
    all.insert(all.end(), row.averaged.begin(), row.averaged.end());
    for (const Span& gap : gaps(all, {asked.start, asked.position + 1})) {
      if (gap.contains(*asked.key)) result["gap"] = span_json(gap);
    }
  }
  return result;
}

std::string spans_text(const Json& spans, std::size_t limit) {
  std::string out;
  for (std::size_t at = 0; at < spans.size(); ++at) {
    if (spans.size() > limit && at == limit - 1) {
      out += fmt::format(" ... {} more", spans.size() - limit);
      at = spans.size() - 1;
    }
    out += " " + span_text(spans[at]);
  }
  return out.empty() ? " none" : out;
}

std::string pattern_text(const Json& result, std::size_t limit) {
  const Index position = result["position"].get<Index>();
  std::string out =
      fmt::format("schedule   {}\nquery      {}, eligible keys [{}, {})\n",
                  result["schedule"].get<std::string>(), position, result["start"].get<Index>(),
                  position + 1) +
      fmt::format("selectable{}\naveraged  {}\nwork       {} scored and {} attended\n",
                  spans_text(result["selectable"], limit), spans_text(result["averaged"], limit),
                  result["scored"].get<Index>(), result["attended"].get<Index>());
  if (!result.contains("key")) return out;
  const Index key = result["key"].get<Index>();
  if (!result["reachable"].get<bool>()) {
    return out +
           fmt::format("key {} is EXCLUDED: it is in the gap {}\n", key, span_text(result["gap"]));
  }
  return out + fmt::format("key {} {}\n", key,
                           result["averaged_alone"].get<bool>()
                               ? "is in averages alone: content cannot choose it"
                               : "is attended to, or content can choose it");
}

int explain_pattern(const Options& options, const Question& asked, std::size_t limit) {
  const Json result = pattern_json(options.pattern.pattern(options.schedule.top_k), asked);
  options.output.json ? options.output.write(result)
                      : options.output.write(pattern_text(result, limit));
  return result.value("reachable", true) ? 0 : 1;
}

int explain(const Options& options) {
  const bool of_pattern = !options.pattern.name.empty();
  const Index position = parse_size("--position", options.position, 0,
                                    (of_pattern ? kMaxPatternLength : kMaxLength) - 1);
  const Index start = parse_size("--start", options.start, 0, position);
  const Index limit = parse_size("--limit", options.limit, 2, kMaxNodes);
  std::optional<Index> key;
  if (!options.key.empty()) key = parse_size("--key", options.key, start, position);
  if (of_pattern) {
    return explain_pattern(options, {position, start, key}, static_cast<std::size_t>(limit));
  }

  const Schedule schedule = options.schedule.schedule();
  const auto plan =
      naming_options([&] { return StripePlan(schedule, position + 1); }, "--position");
  const Span window = plan.window(position, start);
  Json result = {{"schedule", describe(schedule)},
                 {"position", position},
                 {"start", start},
                 {"window", span_json(window)}};
  const Segment searched = plan.searched(position, start);
  Tree tree(plan);
  Json anchors = key ? tree.paths(searched, *key) : tree.whole(1, searched);
  const bool reachable = !key || window.contains(*key) || !anchors.empty();
  if (key) {
    result["key"] = *key;
    result["in_window"] = window.contains(*key);
    result["reachable"] = reachable;
    if (!reachable) {
      for (const Span& hole : SegmentChecker(plan).holes(position, start)) {
        if (hole.contains(*key)) result["gap"] = span_json(hole);
      }
      anchors = tree.around(1, searched, *key);
    }
  }
  result["anchors"] = std::move(anchors);
  options.output.json ? options.output.write(result)
                      : options.output.write(text(result, static_cast<std::size_t>(limit)));
  return reachable ? 0 : 1;
}

}  // namespace

void add_explain(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "explain", "The tree of anchors and spans of one query, or its paths to one key");
  command->add_option("--position", options->position, "the query t, in [0, 2^48)")->required();
  command->add_option("--key", options->key, "show the paths to this key, in [start, t]");
  command->add_option("--start", options->start, "first eligible key, in [0, t] (default 0)");
  command->add_option("--limit", options->limit,
                      "anchors printed of a segment, at least 2 (default 16); JSON has them all");
  CLI::Option* pattern = options->pattern.add(
      *command, "what the query reaches by it, instead (positions below 2^24)");
  options->schedule.add(*command);
  exclude_schedule(*pattern, options->schedule);
  options->output.add(*command);
  command->footer(
      "Examples:\n"
      "  multistep explain --position 29 --steps 3\n"
      "  multistep explain --position 7 --key 0 --rule power --backward 1 --forward 1\n"
      "  multistep explain --position 40 --key 3 --pattern strided --stride 16");
  command->callback([options, &run] { run = [options] { return explain(*options); }; });
}

}  // namespace multistep::program
