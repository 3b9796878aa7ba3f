#include <fmt/format.h>

#include "commands.hpp"
#include "multistep/coverage.hpp"
#include "options.hpp"
#include "output.hpp"

namespace multistep {
namespace {

constexpr Index kMaxNodes = 1'000'000;  // of a tree that is shown whole

struct Options {
  std::string position;
  std::string start = "0";
  std::string key;
  std::string limit = "16";
  ScheduleOptions schedule;
  OutputOptions output;
};

Json span_json(Span span) { return {{"begin", span.begin}, {"end", span.end}}; }

/// A query's tree of anchors, or the part of it that matters to one key.
class Tree {
 public:
  explicit Tree(const StripePlan& plan) : plan_(plan) {}

  Json whole(Index m, Span segment) {
    Json nodes = Json::array();
    if (m == plan_.steps()) return nodes;
    for_each_anchor(m, segment, [&](Index i, Index anchor, Span span) {
      nodes.push_back(node(m, i, anchor, span, whole(m + 1, span)));
    });
    return nodes;
  }

  /// The branches that end in a final span with the key.
  Json paths(Index m, Span segment, Index key) {
    Json nodes = Json::array();
    if (m == plan_.steps()) return nodes;
    for_each_anchor(m, segment, [&](Index i, Index anchor, Span span) {
      if (!span.contains(key)) return;
      Json children = paths(m + 1, span, key);
      if (m + 1 == plan_.steps() || !children.empty()) {
        nodes.push_back(node(m, i, anchor, span, std::move(children)));
      }
    });
    return nodes;
  }

  /// The spans around a key that none reaches: at every level those that hold it, and the nearest
  /// on either side.
  Json around(Index m, Span segment, Index key) {
    if (m == plan_.steps()) return Json::array();
    Json newer;
    Json older;
    Json nodes = Json::array();
    for_each_anchor(m, segment, [&](Index i, Index anchor, Span span) {
      if (span.contains(key)) {
        nodes.push_back(node(m, i, anchor, span, around(m + 1, span, key)));
      } else if (span.begin > key) {
        newer = node(m, i, anchor, span, Json::array());
      } else if (older.is_null()) {
        older = node(m, i, anchor, span, Json::array());
      }
    });
    if (!newer.is_null()) nodes.insert(nodes.begin(), newer);
    if (!older.is_null()) nodes.push_back(older);
    return nodes;
  }

 private:
  template <class Visit>
  void for_each_anchor(Index m, Span segment, const Visit& visit) {
    const Cut cut = plan_.cut(m, segment.length());
    for (Index i = cut.first(); i <= cut.last(); ++i) {
      visit(i, segment.end - 1 - cut.anchor(i), keys(cut.span(i), segment));
    }
  }

  Json node(Index m, Index i, Index anchor, Span span, Json children) {
    if (++count_ > kMaxNodes) {
      throw std::invalid_argument(
          fmt::format("--position {}: a query with at most {} anchors to show; --key shows the "
                      "paths to one key",
                      plan_.max_length() - 1, kMaxNodes));
    }
    return {{"level", m},
            {"stripe", i},
            {"anchor", anchor},
            {"span", span_json(span)},
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

int explain(const Options& options) {
  const Index position = parse_size("--position", options.position, 0, kMaxLength - 1);
  const Index start = parse_size("--start", options.start, 0, position);
  const Index limit = parse_size("--limit", options.limit, 2, kMaxNodes);
  std::optional<Index> key;
  if (!options.key.empty()) key = parse_size("--key", options.key, start, position);

  const Schedule schedule = options.schedule.schedule();
  const auto plan =
      naming_options([&] { return StripePlan(schedule, position + 1); }, "--position");
  const Span window = plan.window(position, start);
  Json result = {{"schedule", describe(schedule)},
                 {"position", position},
                 {"start", start},
                 {"window", span_json(window)}};
  const Span searched = plan.searched(position, start);
  Tree tree(plan);
  Json anchors = key ? tree.paths(1, searched, *key) : tree.whole(1, searched);
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
  options->schedule.add(*command);
  options->output.add(*command);
  command->footer(
      "Examples:\n"
      "  multistep explain --position 29 --steps 3\n"
      "  multistep explain --position 7 --key 0 --rule power --backward 1 --forward 1");
  command->callback([options, &run] { run = [options] { return explain(*options); }; });
}

}  // namespace multistep
