#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "multistep/patterns.hpp"
#include "patterns/definitions.hpp"
#include "support/error.hpp"
#include "support/parallel.hpp"
#include "support/watch.hpp"

namespace multistep {
namespace {

/// In the order in which they are told.
std::vector<const Pattern::Definition*> definitions() {
  std::vector<const Pattern::Definition*> all;
  for (const auto* group : {&position_patterns(), &averaging_patterns(), &routed_patterns()}) {
    for (const auto& definition : *group) all.push_back(&definition);
  }
  return all;
}

const Pattern::Definition& definition_of(std::string_view name) {
  for (const auto* definition : definitions()) {
    if (definition->name == name) return *definition;
  }
  refuse("pattern {}: {}", name, fmt::join(pattern_names(), ", "));
}

}  // namespace

std::vector<std::string_view> pattern_names() {
  std::vector<std::string_view> names;
  for (const auto* definition : definitions()) names.push_back(definition->name);
  return names;
}

Pattern::Pattern(std::string_view name, const std::vector<PatternParameter>& given)
    : definition_(&definition_of(name)) {
  std::vector<std::string_view> known;
  for (const auto& parameter : definition_->parameters) known.push_back(parameter.name);
  for (const auto& [parameter, value] : given) {
    require(std::find(known.begin(), known.end(), parameter) != known.end(),
            "{} {}: pattern {} has {}", parameter, value, name,
            known.empty() ? "no parameters" : fmt::format("{}", fmt::join(known, ", ")));
  }
  for (const auto& [parameter, paper, low, high, most] : definition_->parameters) {
    const Index limit = most.empty() ? high : Parameters(parameters_)[most];
    Index value = std::min(paper, limit);
    for (const auto& one : given) {
      if (one.name == parameter) value = one.value;
    }
    require(low <= value && value <= limit, "{} {}: an integer in [{}, {}{}]", parameter, value,
            low, most.empty() ? "" : fmt::format("{} ", most), limit);
    parameters_.push_back({std::string(parameter), value});
  }
}

std::string_view Pattern::name() const { return definition_->name; }

PatternRow Pattern::row(Index query, Index start) const {
  require(query >= 0 && query < kMaxLength, "query {}: an integer in [0, 2^48)", query);
  require(start >= 0 && start <= query, "start {}: an integer in [0, query {}]", start, query);
  RowBuilder row(query, start);
  definition_->define(Parameters(parameters_), row);
  return row.finish();
}

std::string describe(const Pattern& pattern) {
  std::vector<std::string> values;
  for (const auto& [name, value] : pattern.parameters()) {
    values.push_back(fmt::format("{} {}", name, value));
  }
  std::string text(pattern.name());
  return values.empty() ? text : fmt::format("{} ({})", text, fmt::join(values, ", "));
}

namespace {

/// Sums over some queries.
struct Sums {
  Tally reached;
  Count averaged_pairs;
  PatternWork work;
  Index busiest = Tally::kNone;  // the query of work.most_*

  Index most() const { return work.most_scored + work.most_attended; }

  void add(Index query, const PatternRow& row, Span eligible) {
    std::vector<Span> spans = row.selectable;
    const std::vector<Span> unchosen = gaps(spans, eligible);
    Sums here;
    here.work = {row.scored, row.attended, row.scored, row.attended};
    here.busiest = query;
    if (!unchosen.empty()) {
      spans.insert(spans.end(), row.averaged.begin(), row.averaged.end());
      const std::vector<Span> holes = gaps(spans, eligible);
      here.reached.add(query, holes);
      Index averaged = 0;
      for (const Span& gap : unchosen) averaged += gap.length();
      for (const Span& hole : holes) averaged -= hole.length();
      here.averaged_pairs = averaged;
    }
    add(here);
  }

  void add(const Sums& other) {
    reached.add(other.reached);
    averaged_pairs += other.averaged_pairs;
    work.scored += other.work.scored;
    work.attended += other.work.attended;
    if (other.most() > most() || (other.most() == most() && other.busiest < busiest)) {
      work.most_scored = other.work.most_scored;
      work.most_attended = other.work.most_attended;
      busiest = other.busiest;
    }
  }
};

}  // namespace

PatternReport verify_pattern(const Pattern& pattern, Index length, Index start,
                             const Progress& progress) {
  require_range(length, start);
  // Blocks behind one that was cancelled are passed over one by one, so they are not too many.
  const Index block = std::max<Index>(512, (length - start) >> 16);
  Watch watch(progress, length - start);
  pattern.row(length - 1, start);  // none has more spans: what there is no room for throws at once
  Sums total;
  parallel_blocks(length - start, block, [&] {
    return [&](Index begin, Index end) {
      Sums sums;
      for (Index query = start + begin; query < start + end; ++query) {
        const PatternRow row = pattern.row(query, start);
        sums.add(query, row, {start, query + 1});
        watch.look();
      }
#pragma omp critical(multistep_pattern_sums)
      total.add(sums);
      watch.add(end - begin);
    };
  });
  watch.finish();
  return {total.reached.report(length, start, length - start), total.averaged_pairs, total.work};
}

}  // namespace multistep
