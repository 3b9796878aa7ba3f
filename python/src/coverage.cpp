#include "multistep/coverage.hpp"

#include <omp.h>

#include <algorithm>

#include "arrays.hpp"
#include "core.hpp"
#include "interrupt.hpp"
#include "parallel.hpp"

namespace multistep::python {
namespace {

using Clock = std::chrono::steady_clock;

constexpr Index kNone = INT64_MAX;

/// verify_all in pieces, between which it can be interrupted; the threads' checkers remember over
/// the pieces what they settled. Also the first query that excludes a key, or kNone.
std::pair<CoverageReport, Index> verify_in_pieces(const StripePlan& plan, Index length, Index start,
                                                  Errand& errand) {
  CoverageReport report{length, start, length - start, 0, 0, {}};
  require_checkers(plan, omp_get_max_threads());
  std::vector<SegmentChecker> checkers;
  for (int thread = 0; thread < omp_get_max_threads(); ++thread) checkers.emplace_back(plan);
  Index first_query = kNone;
  Index piece = 256 * std::ssize(checkers);
  for (Index from = start; from < length;) {
    const Clock::time_point begin = Clock::now();
    const Index count = std::min(piece, length - from);
    parallel_blocks(count, std::clamp<Index>(count / 64, 1, 4096), [&] {
      auto& checker = checkers[static_cast<std::size_t>(omp_get_thread_num())];
      return [&](Index block_begin, Index block_end) {
        for (Index query = from + block_begin; query < from + block_end; ++query) {
          if (checker.covered(query, start)) continue;
          Count pairs;
          for (const Span& hole : checker.holes(query, start)) pairs += hole.length();
#pragma omp critical(multistep_python_tally)
          {
            report.excluded_pairs += pairs;
            ++report.excluded_queries;
            first_query = std::min(first_query, query);
          }
        }
      };
    });
    from += count;
    errand.report(from - start, length - start);
    const std::chrono::duration<double> took = Clock::now() - begin;
    if (took.count() < 0.05) piece *= 2;
    if (took.count() > 0.2) piece = std::max<Index>(1, piece / 2);
  }
  return {report, first_query};
}

nb::object fraction(const std::optional<Rational>& value) {
  if (!value) return nb::none();
  return nb::make_tuple(value->numerator, value->denominator);
}

nb::tuple to_python(const CoverageReport& report) {
  nb::object first = nb::none();
  if (const auto& hole = report.first_excluded) {
    first = nb::make_tuple(hole->position, hole->key, hole->gap.begin, hole->gap.end,
                           fraction(hole->closing_backward));
  }
  return nb::make_tuple(report.queries_checked, report.excluded_queries,
                        to_int(report.excluded_pairs), first);
}

nb::tuple verify_whole(const StripePlan& plan, Index length, Index start, nb::handle progress) {
  require(length >= 1 && length <= plan.max_length(), "length {}: an integer in [1, {}]", length,
          plan.max_length());
  require(start >= 0 && start < length, "start {}: an integer in [0, length {})", start, length);
  auto [report, first] = interruptible(length <= 1024, progress, [&](Errand& errand) {
    return verify_in_pieces(plan, length, start, errand);
  });
  if (first != kNone) {
    // The last query of a shorter sequence, checked alone, tells where its gap is.
    const auto one = [schedule = plan.schedule(), last = first, start](const Progress&) {
      return verify_sampled(schedule, last + 1, start, 1, 1);
    };
    report.first_excluded = abandonable(nb::handle(), one).first_excluded;
  }
  return to_python(report);
}

nb::tuple verify_some(const Schedule& schedule, Index length, Index start, Index count,
                      std::uint64_t seed, nb::handle progress) {
  return to_python(abandonable(progress, [=](const Progress& report) {
    return verify_sampled(schedule, length, start, count, seed, report);
  }));
}

nb::tuple verify_lists(const Array& query, const Array& begin, const Array& end, Index length,
                       Index start) {
  const Index count = query.ndim() == 1 ? static_cast<Index>(query.shape(0)) : 0;
  const Index* queries = elements<Index>(query, "query", {count});
  const Index* begins = elements<Index>(begin, "begin", {count});
  const Index* ends = elements<Index>(end, "end", {count});
  const nb::gil_scoped_release unlocked;
  std::vector<CandidateSpan> candidates(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    candidates[i] = {queries[i], {begins[i], ends[i]}};
  }
  const CoverageReport report = verify_spans(std::move(candidates), length, start);
  const nb::gil_scoped_acquire locked;
  return to_python(report);
}

}  // namespace

void bind_coverage(nb::module_& core) {
  core.def("verify_all", &verify_whole, nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
  core.def("verify_sampled", &verify_some, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg().none());
  core.def("verify_spans", &verify_lists, nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert(), nb::arg(), nb::arg());
}

}  // namespace multistep::python
