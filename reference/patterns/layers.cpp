#include "multistep/layers.hpp"

#include <algorithm>
#include <bit>
#include <numeric>

#include "multistep/host_memory.hpp"
#include "schedule/gaps.hpp"
#include "support/error.hpp"
#include "support/parallel.hpp"
#include "support/watch.hpp"

namespace multistep {
namespace {

/// A set of keys: bit j % 64 of word j / 64.
using Bits = std::vector<std::uint64_t>;
constexpr Index kWord = 64;

std::size_t words_of(Index bits) { return static_cast<std::size_t>((bits + kWord - 1) / kWord); }

void join(Bits& into, const Bits& from) {
  for (std::size_t i = 0; i < from.size(); ++i) into[i] |= from[i];
}

Index count_of(const Bits& bits) {
  return std::accumulate(bits.begin(), bits.end(), Index{0},
                         [](Index sum, std::uint64_t word) { return sum + std::popcount(word); });
}

void insert(Bits& bits, Span span) {
  for (Index at = span.begin; at < span.end;) {
    const Index end = std::min(span.end, at - at % kWord + kWord);
    bits[static_cast<std::size_t>(at / kWord)] |= (~std::uint64_t{0} >> (kWord - (end - at)))
                                                  << (at % kWord);
    at = end;
  }
}

/// The first place >= at whose bit is `wanted`, or `limit`.
Index find(const Bits& bits, bool wanted, Index at, Index limit) {
  while (at < limit) {
    const std::uint64_t word = bits[static_cast<std::size_t>(at / kWord)];
    const std::uint64_t left = (wanted ? word : ~word) >> (at % kWord);
    if (left != 0) return std::min(limit, at + std::countr_zero(left));
    at += kWord - at % kWord;
  }
  return limit;
}

/// The maximal spans of [0, limit) whose bits are `wanted`, oldest first.
std::vector<Span> spans_of(const Bits& bits, bool wanted, Index limit) {
  std::vector<Span> spans;
  for (Index at = find(bits, wanted, 0, limit); at < limit;) {
    const Index end = find(bits, !wanted, at, limit);
    spans.push_back({at, end});
    at = find(bits, wanted, end, limit);
  }
  return spans;
}

/// What the queries reach through some layers. Queries and keys count from the first eligible one.
class Reached {
 public:
  /// `make_spans()` gives each thread a function that has the spans of a query, none beyond it.
  template <class MakeSpans>
  Reached(Index queries, Watch& watch, MakeSpans&& make_spans) : queries_(queries), watch_(watch) {
    // The rows of one layer and of several, and unions of the latter.
    require_memory("length " + std::to_string(queries) + ": the keys of its layers take",
                   3.0 * static_cast<double>(queries) * static_cast<double>(queries) / 16);
    one_.resize(static_cast<std::size_t>(queries));
    parallel_blocks(queries, kBlock, [&] {
      return [&, spans = make_spans()](Index begin, Index end) {
        for (Index query = begin; query < end; ++query) {
          Bits& row = one_[static_cast<std::size_t>(query)];
          row.resize(words_of(query + 1));
          for (const Span& span : spans(query)) insert(row, span);
          watch_.look();
        }
      };
    });
    unions_.push_back(one_);
    count();
  }

  Index pairs() const { return pairs_; }

  Tally excluded() {
    Tally tally;
    for (Index query = 0; query < queries_; ++query) {
      tally.add(query, spans_of(row(query), false, query + 1));
    }
    return tally;
  }

  /// One layer more.
  void grow() {
    unite();
    // From the newest queries on, so that the rows which a block looks at are still the old ones.
    // Threads meet after each block: few of them, as meeting takes long on a busy machine.
    const Index block = std::max(Index{kBlock}, (queries_ + kParts - 1) / kParts);
    std::vector<Bits> grown(static_cast<std::size_t>(block));
    for (Index begin = (queries_ - 1) / block * block; begin >= 0; begin -= block) {
      const Index count = std::min(block, queries_ - begin);
      parallel_blocks(count, kRows, [&] {
        return [&](Index first, Index last) {
          for (Index at = first; at < last; ++at) {
            grown[static_cast<std::size_t>(at)] = grown_row(begin + at);
            watch_.look();
          }
        };
      });
      for (Index at = 0; at < count; ++at)
        row(begin + at).swap(grown[static_cast<std::size_t>(at)]);
    }
    count();
  }

 private:
  static constexpr Index kBlock = 256;
  static constexpr Index kParts = 8;  // of the rows, of which one at a time is held twice
  static constexpr Index kRows = 16;  // that a thread takes at a time

  Bits& row(Index query) { return unions_.front()[static_cast<std::size_t>(query)]; }

  /// Unions of 2^k rows each, so that those of any span of queries are a few.
  void unite() {
    unions_.resize(1);
    while (unions_.back().size() > 1) {
      const std::vector<Bits>& below = unions_.back();
      std::vector<Bits> level(below.size() / 2);
      for (std::size_t i = 0; i < level.size(); ++i) {
        level[i] = below[2 * i + 1];
        join(level[i], below[2 * i]);
      }
      unions_.push_back(std::move(level));
    }
  }

  Bits grown_row(Index query) {
    Bits grown = row(query);
    const auto full = [&] { return find(grown, false, 0, query + 1) == query + 1; };
    if (full()) return grown;
    const Bits& spans = one_[static_cast<std::size_t>(query)];
    std::vector<Span> reached = spans_of(spans, true, query + 1);
    std::reverse(reached.begin(), reached.end());  // the newest have the most keys
    for (const Span& span : reached) {
      auto begin = static_cast<std::size_t>(span.begin);
      auto end = static_cast<std::size_t>(span.end);
      for (std::size_t k = 0; begin < end; ++k, begin /= 2, end /= 2) {
        if (begin % 2 == 1) join(grown, unions_[k][begin++]);
        if (end % 2 == 1) join(grown, unions_[k][--end]);
      }
      if (full()) break;
    }
    return grown;
  }

  void count() {
    pairs_ = 0;
    for (const Bits& row : unions_.front()) pairs_ += count_of(row);
  }

  const Index queries_;
  Watch& watch_;
  std::vector<Bits> one_;                  // [query]: through one layer
  std::vector<std::vector<Bits>> unions_;  // [k][i]: of the rows i 2^k ... (i + 1) 2^k - 1
  Index pairs_ = 0;
};

template <class MakeSpans>
LayersReport verify(Index length, Index start, std::optional<Index> layers,
                    const Progress& progress, MakeSpans&& make_spans) {
  Watch watch(progress, layers.value_or(0));
  const Index queries = length - start;
  Reached reached(queries, watch, make_spans);
  const auto all = [&] { return reached.pairs() == queries * (queries + 1) / 2; };

  LayersReport report;
  report.layers = 1;
  while (!all() && (!layers || report.layers < *layers)) {
    const Index before = reached.pairs();
    reached.grow();
    watch.add(1);
    if (reached.pairs() == before) {
      report.fixed_point = report.layers;
      break;
    }
    ++report.layers;
  }
  if (all()) report.fixed_point = report.layers;
  if (layers) report.layers = *layers;
  Tally excluded = reached.excluded();
  if (excluded.queries > 0) {
    excluded.first_query += start;
    excluded.first_gap = {excluded.first_gap.begin + start, excluded.first_gap.end + start};
  }
  report.coverage = excluded.report(length, start, queries);
  watch.finish();
  return report;
}

void require_layers(Index length, Index start, std::optional<Index> layers) {
  require_range(length, start);
  require(length <= kMaxLayersLength, "length {}: an integer in [1, {}] where layers are followed",
          length, kMaxLayersLength);
  if (layers) require_within("layers", *layers, 1, kMaxLayersLength);
}

/// From the first eligible key on.
std::vector<Span> counted_from(Index start, std::vector<Span> spans) {
  for (Span& span : spans) span = {span.begin - start, span.end - start};
  return spans;
}

}  // namespace

LayersReport verify_layers(const Schedule& schedule, Index length, Index start,
                           std::optional<Index> layers, const Progress& progress) {
  require_layers(length, start, layers);
  const StripePlan plan(schedule, length);
  return verify(length, start, layers, progress, [&] {
    return [&plan, start, checker = std::make_shared<SegmentChecker>(plan)](Index query) {
      std::vector<Span> holes = checker->holes(start + query, start);
      return counted_from(start, gaps(holes, {start, start + query + 1}));
    };
  });
}

LayersReport verify_layers(const Pattern& pattern, Index length, Index start,
                           std::optional<Index> layers, const Progress& progress) {
  require_layers(length, start, layers);
  return verify(length, start, layers, progress, [&] {
    return [&pattern, start](Index query) {
      PatternRow row = pattern.row(start + query, start);
      row.selectable.insert(row.selectable.end(), row.averaged.begin(), row.averaged.end());
      return counted_from(start, std::move(row.selectable));
    };
  });
}

LayersReport verify_layers(std::vector<QuerySpan> spans, Index length, Index start,
                           std::optional<Index> layers, const Progress& progress) {
  require_layers(length, start, layers);
  verify_spans(spans, length, start);  // refuses what it refuses
  std::vector<std::vector<Span>> rows(static_cast<std::size_t>(length - start));
  for (const auto& [query, span] : spans) {
    rows[static_cast<std::size_t>(query - start)].push_back(span);
  }
  for (std::size_t query = 0; query < rows.size(); ++query) {
    require(!rows[query].empty(), "spans: none of query {}; layers take those of every query",
            start + static_cast<Index>(query));
  }
  return verify(length, start, layers, progress, [&] {
    return [&](Index query) { return counted_from(start, rows[static_cast<std::size_t>(query)]); };
  });
}

}  // namespace multistep
