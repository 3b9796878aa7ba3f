#pragma once

#include <vector>

#include "judge/rounding.hpp"
#include "judge/yardstick.hpp"

/// A row's items against what was handed in for them.
namespace multistep {

/// Standard deviation of a value that is rounded to the storage type.
double stored_deviation(Storage storage, double value);

/// `got`: [items, head_dim].
RowVerdict judge_outputs(const std::vector<const RoundedItem*>& exact,
                         const std::vector<const YardstickItem*>& yardsticks, const double* got,
                         Storage storage);

/// `got`: [items].
RowVerdict judge_lses(const std::vector<const RoundedItem*>& exact,
                      const std::vector<const YardstickItem*>& yardsticks, const double* got);

}  // namespace multistep
