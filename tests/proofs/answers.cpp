// The library's answers to the questions of proofs/checker/checker.ml, for proofs_test.py to
// compare: what the program's options cannot say, as exponents below level 1, is asked here.

#include <fmt/format.h>

#include <bit>
#include <iostream>
#include <sstream>
#include <string>

#include "multistep/coverage.hpp"
#include "multistep/power.hpp"
#include "multistep/walk.hpp"

namespace {

using namespace multistep;

/// The words of a question, one after the other.
struct Words {
  std::istringstream line;

  std::string next() {
    std::string word;
    if (!(line >> word)) throw std::invalid_argument(line.str() + ": too short a question");
    return word;
  }
  Index index() { return std::stoll(next()); }
  Rational rational() { return parse_rational(next()); }
};

/// tight:E, power:E:B:F:Q, even or aligned.
Level level_of(const std::string& word, Index steps_left) {
  std::istringstream parts(word);
  std::string part;
  std::getline(parts, part, ':');
  Level level = default_level(parse_rule(part), steps_left);
  for (Rational* value : {&level.exponent, &level.backward, &level.forward, &level.span_exponent}) {
    if (std::getline(parts, part, ':')) *value = parse_rational(part);
  }
  return level;
}

Schedule schedule_of(Words& words) {
  Schedule schedule;
  schedule.window_index = words.index();
  std::vector<std::string> levels;
  for (std::string word; words.line >> word;) levels.push_back(word);
  schedule.steps = std::ssize(levels) + 1;
  Index steps_left = schedule.steps;
  for (const std::string& word : levels) schedule.levels.push_back(level_of(word, steps_left--));
  return schedule;
}

std::string choices(const StripePlan& plan, Index m, const Segment& segment) {
  std::string text;
  if (m == plan.steps()) return text;
  for (const Choice choice : Choices(plan, m, segment)) {
    text += fmt::format(" {}:{}:{}:{}:{}", m, choice.stripe, choice.key, choice.span.begin,
                        choice.span.end);
    text += choices(plan, m + 1, choice.span);
  }
  return text;
}

std::string hole(const CoverageReport& report) {
  const auto& first = report.first_excluded;
  return first ? fmt::format("{} {}", first->position, first->key) : "covered";
}

std::string context(Words& words) {
  const Index length = words.index();
  const Index start = words.index();
  return hole(verify_all(schedule_of(words), length, start));
}

std::string of_spans(Words& words) {
  const Index length = words.index();
  const Index start = words.index();
  std::vector<QuerySpan> spans;
  for (std::string word; words.line >> word;) {
    std::istringstream row(word);
    char colon = 0;
    QuerySpan span;
    row >> span.query >> colon >> span.span.begin >> colon >> span.span.end;
    spans.push_back(span);
  }
  const CoverageReport report = verify_spans(std::move(spans), length, start);
  return to_string(report.excluded_pairs) + " " + hole(report);
}

std::string of_query(Words& words, bool tree) {
  const Index query = words.index();
  const Index start = words.index();
  const StripePlan plan(schedule_of(words), query + 1);
  if (tree) {
    return fmt::format("{}{}", plan.window(query, start).begin,
                       choices(plan, 1, plan.searched(query, start)));
  }
  const std::vector<Span> holes = SegmentChecker(plan).holes(query, start);
  return holes.empty() ? "covered" : fmt::format("{} {}", query, holes.front().begin);
}

std::string answer(const std::string& line) {
  Words words{std::istringstream(line)};
  const std::string question = words.next();
  if (question == "context") return context(words);
  if (question == "query" || question == "tree") return of_query(words, question == "tree");
  if (question == "spans") return of_spans(words);
  if (question == "floor") {
    const Index base = words.index();
    return std::to_string(floor_power(base, words.rational()));
  }
  if (question == "ceil") {
    const Rational factor = words.rational();
    const Index base = words.index();
    return std::to_string(ceil_scaled_power(factor, base, words.rational()));
  }
  if (question == "root") {
    const Index value = words.index();
    return std::to_string(ceil_root(value, words.index()));
  }
  if (question == "part") {
    const Index steps_left = words.index();
    const Index part = aligned_part(words.index(), steps_left);
    return std::to_string(std::countr_zero(static_cast<std::uint64_t>(part)));
  }
  throw std::invalid_argument(
      question + ": a question is context, query, tree, spans, floor, ceil, root or part");
}

}  // namespace

int main() {
  try {
    for (std::string line; std::getline(std::cin, line);) std::cout << answer(line) << std::endl;
  } catch (const std::exception& error) {
    std::cerr << "answers: " << error.what() << "\n";
    return 2;
  }
}
