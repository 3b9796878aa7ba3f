#pragma once

#include <nanobind/nanobind.h>

#include <span>
#include <string>
#include <vector>

#include "multistep/compare.hpp"

/// What a comparison has collected, and how Python is told.
namespace multistep::python {

/// The largest finite magnitude, or `least` where that is more.
double largest_of(std::span<const double> values, double least);

/// One stage's values for all sampled rows.
struct Values {
  bool wanted = false;
  Index width = 1;                       // values of a row
  std::vector<double> got, want, plain;  // [sample, width]

  void resize(bool is_wanted, Index rows, Index of_row);
  /// A row or part of one, from the first value `to`: given, of the oracle and of the yardstick.
  void put(Index to, Index count, const double* given, const double* oracle,
           const double* yardstick);
  /// Takes from every error what `floors` explain.
  void forgive(Index from, const std::vector<double>& floors);
  /// What counts as wrong, whatever it is: NaN.
  void spoil(Index from, Index count);
};

/// Of all stages. Those that were not wanted stay empty.
struct Judgement {
  Values attended, lses, combined, composed, end_to_end;
  std::vector<SelectionReport> selections;  // [sample]
  Index undecided = 0;
};

/// A dictionary by stage. `heads`: of each sampled row, one number for a head of a sequence.
/// `storage`: the type that the outputs were rounded to.
nanobind::dict report_of(const Judgement& judgement, const std::vector<Index>& heads,
                         const std::string& storage);

}  // namespace multistep::python
