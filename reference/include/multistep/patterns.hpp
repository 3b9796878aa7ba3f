#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "multistep/count.hpp"
#include "multistep/coverage.hpp"

/// Which keys the patterns of other attentions reach in one layer, and what that costs (SPEC 12).
namespace multistep {

/// A parameter of a pattern, as "window" or "top-k", with its value.
struct PatternParameter {
  std::string name;
  Index value = 0;
};

/// The spans that a row may have: there would be no room for many more.
inline constexpr Index kMaxPatternSpans = Index{1} << 24;

/// What a query of a pattern reaches. Lists are in no order and may overlap.
struct PatternRow {
  std::vector<Span> selectable;  // keys that it attends to, or that content can choose for it
  std::vector<Span> averaged;    // keys that it has only through an average, each with one weight

  // Products of the query with what it scores to choose (means, centroids, keys of an index), and
  // with what it attends to: keys, and averages in the place of keys. None is counted twice.
  Index scored = 0;
  Index attended = 0;

  Index work() const { return scored + attended; }
};

/// A pattern with its parameters. Blocks and columns count from key 0.
class Pattern {
 public:
  /// The pattern called `name`, with the defaults of its paper for what is not `given`. Throws
  /// std::invalid_argument for another name, a parameter that the pattern has not, or a value out
  /// of its range.
  explicit Pattern(std::string_view name, const std::vector<PatternParameter>& given = {});

  std::string_view name() const;
  const std::vector<PatternParameter>& parameters() const { return parameters_; }

  /// Of query t, whose eligible keys are [start, t]: keys before `start` are neither reached nor
  /// counted. Throws std::invalid_argument where these are more than kMaxPatternSpans spans.
  PatternRow row(Index query, Index start = 0) const;

  struct Definition;

 private:
  const Definition* definition_;
  std::vector<PatternParameter> parameters_;
};

/// The names that there are.
std::vector<std::string_view> pattern_names();

/// "window (window 512)": the pattern in a few words.
std::string describe(const Pattern& pattern);

/// Products of queries with what they score and attend to.
struct PatternWork {
  Count scored;  // of all queries
  Count attended;
  Index most_scored = 0;  // of the query with the most work, the first of such
  Index most_attended = 0;
};

struct PatternReport {
  CoverageReport coverage;
  Count averaged_pairs;  // reached pairs of a query and a key that are in averages alone
  PatternWork work;
};

/// Checks every query of [start, length): a key that is only averaged is reached. Throws
/// std::invalid_argument for a bad length or start. The result does not depend on the number of
/// threads.
PatternReport verify_pattern(const Pattern& pattern, Index length, Index start = 0,
                             const Progress& progress = {});

}  // namespace multistep
