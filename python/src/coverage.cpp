#include "multistep/coverage.hpp"

#include "arrays.hpp"
#include "core.hpp"
#include "interrupt.hpp"

namespace multistep::python {
namespace {

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

nb::tuple verify_whole(const Schedule& schedule, Index length, Index start, nb::handle progress) {
  return to_python(interruptible(length <= 1024, progress, [&](Errand& errand) {
    return verify_all(schedule, length, start, errand.progress());
  }));
}

nb::tuple verify_some(const Schedule& schedule, Index length, Index start, Index count,
                      std::uint64_t seed, nb::handle progress) {
  return to_python(interruptible(false, progress, [&](Errand& errand) {
    return verify_sampled(schedule, length, start, count, seed, errand.progress());
  }));
}

nb::tuple verify_lists(const Array& query, const Array& begin, const Array& end, Index length,
                       Index start) {
  const Index count = query.ndim() == 1 ? static_cast<Index>(query.shape(0)) : 0;
  const Index* queries = elements<Index>(query, "query", {count});
  const Index* begins = elements<Index>(begin, "begin", {count});
  const Index* ends = elements<Index>(end, "end", {count});
  const auto verify = [&] {
    const Unlocked unlocked;
    std::vector<QuerySpan> spans(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < spans.size(); ++i) {
      spans[i] = {queries[i], {begins[i], ends[i]}};
    }
    return verify_spans(std::move(spans), length, start);
  };
  return to_python(verify());
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
