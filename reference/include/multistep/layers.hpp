#pragma once

#include <optional>
#include <vector>

#include "multistep/coverage.hpp"
#include "multistep/patterns.hpp"

/// Which keys a query reaches through several layers on top of each other: through one, those that
/// it reaches; through one more, also those that these reach, as every layer hands on what the ones
/// below it brought to its place (SPEC 12).
namespace multistep {

/// The longest sequence whose layers are followed: a bit for each pair of a query and a key.
inline constexpr Index kMaxLayersLength = Index{1} << 16;

struct LayersReport {
  CoverageReport coverage;  // through `layers` layers
  Index layers = 0;         // as many as were asked for; else those after which none adds a pair
  std::optional<Index> fixed_point;  // the fewest layers after which none adds a pair, where found

  /// The fewest layers through which every eligible key is reached.
  std::optional<Index> needed() const { return coverage.covered() ? fixed_point : std::nullopt; }
};

/// Through `layers` layers, or through any number. Throws std::invalid_argument for a bad schedule,
/// for length outside [1, 2^16], start or layers, and where the bits would not fit the memory.
/// Results do not depend on the number of threads.
LayersReport verify_layers(const Schedule& schedule, Index length, Index start,
                           std::optional<Index> layers, const Progress& progress = {});

/// The same of a pattern; averages are handed on too.
LayersReport verify_layers(const Pattern& pattern, Index length, Index start,
                           std::optional<Index> layers, const Progress& progress = {});

/// The same of final spans as verify_spans has them, of every query in [start, length).
LayersReport verify_layers(std::vector<QuerySpan> spans, Index length, Index start,
                           std::optional<Index> layers, const Progress& progress = {});

}  // namespace multistep
