#pragma once

#include <algorithm>
#include <vector>

#include "multistep/patterns.hpp"
#include "schedule/gaps.hpp"
#include "support/error.hpp"

namespace multistep {

/// Gathers what a query reaches; keys that are not eligible are cut off.
class RowBuilder {
 public:
  RowBuilder(Index query, Index start) : query(query), start(start) {}

  const Index query;
  const Index start;

  /// Throws std::invalid_argument where a row would have so many spans more than there is room for.
  void expect(Index count) const {
    const Index there = std::ssize(row_.selectable) + std::ssize(row_.averaged);
    require(count <= kMaxPatternSpans - there, "length {}: queries with at most {} spans",
            query + 1, kMaxPatternSpans);
  }

  /// Eligible keys, all of them or those of a span.
  Index eligible() const { return query + 1 - start; }
  Index eligible(Span span) const { return cut(span).length(); }

  /// Keys that are attended to whatever they hold. Such as are told twice are counted once.
  void keep(Span span) {
    const Span inside = cut(span);
    if (inside.empty()) return;
    expect(1);
    row_.selectable.push_back(inside);
    kept_.push_back(inside);
  }
  void keep(Index key) { keep({key, key + 1}); }

  /// Keys that content can choose; how many it chooses is counted apart.
  void offer(Span span) {
    const Span inside = cut(span);
    if (!inside.empty()) row_.selectable.push_back(inside);
  }
  void offer_all() { offer({start, query + 1}); }

  /// Keys in whose place an average of them is attended to.
  void average(Span span) {
    const Span inside = cut(span);
    if (inside.empty()) return;
    expect(1);
    row_.averaged.push_back(inside);
    ++row_.attended;
  }

  void count_scored(Index products) { row_.scored += products; }

  void count_attended(Index keys) { row_.attended += keys; }

  /// `most` parts of `part` keys, out of `keys`.
  void count_attended(Index most, Index part, Index keys) {
    row_.attended += most > keys / part ? keys : most * part;
  }

  PatternRow finish() {
    row_.attended += eligible();
    for (const Span& gap : gaps(kept_, {start, query + 1})) row_.attended -= gap.length();
    return std::move(row_);
  }

 private:
  Span cut(Span span) const { return {std::max(span.begin, start), std::min(span.end, query + 1)}; }

  PatternRow row_;
  std::vector<Span> kept_;
};

}  // namespace multistep
