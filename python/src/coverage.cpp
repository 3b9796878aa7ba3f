#include "multistep/coverage.hpp"

#include "arrays.hpp"
#include "core.hpp"
#include "interrupt.hpp"
#include "multistep/layers.hpp"
#include "multistep/patterns.hpp"

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

std::vector<QuerySpan> span_list(const Array& query, const Array& begin, const Array& end) {
  const Index count = query.ndim() == 1 ? static_cast<Index>(query.shape(0)) : 0;
  const Index* queries = elements<Index>(query, "query", {count});
  const Index* begins = elements<Index>(begin, "begin", {count});
  const Index* ends = elements<Index>(end, "end", {count});
  const Unlocked unlocked;
  std::vector<QuerySpan> spans(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < spans.size(); ++i) {
    spans[i] = {queries[i], {begins[i], ends[i]}};
  }
  return spans;
}

nb::tuple verify_lists(const Array& query, const Array& begin, const Array& end, Index length,
                       Index start) {
  std::vector<QuerySpan> spans = span_list(query, begin, end);
  const auto verify = [&] {
    const Unlocked unlocked;
    return verify_spans(std::move(spans), length, start);
  };
  return to_python(verify());
}

using Values = std::vector<std::pair<std::string, Index>>;  // parameters by name

Pattern make_pattern(const std::string& name, const Values& parameters) {
  std::vector<PatternParameter> given;
  for (const auto& [parameter, value] : parameters) given.push_back({parameter, value});
  return Pattern(name, given);
}

/// The pattern in words, its report, the averaged pairs, and products scored and attended: of all
/// queries and of the one with the most.
nb::tuple verify_one(const std::string& name, const Values& parameters, Index length, Index start,
                     nb::handle progress) {
  const Pattern pattern = make_pattern(name, parameters);
  const PatternReport report = interruptible(length <= 256, progress, [&](Errand& errand) {
    return verify_pattern(pattern, length, start, errand.progress());
  });
  return nb::make_tuple(describe(pattern), to_python(report.coverage),
                        to_int(report.averaged_pairs), to_int(report.work.scored),
                        to_int(report.work.attended), report.work.most_scored,
                        report.work.most_attended);
}

/// The report through some layers: their number, the fixed point.
template <class Verify>
nb::tuple layers_of(nb::handle progress, Verify&& verify) {
  const LayersReport report =
      interruptible(false, progress, [&](Errand& errand) { return verify(errand.progress()); });
  return nb::make_tuple(to_python(report.coverage), report.layers, report.fixed_point);
}

nb::tuple schedule_layers(const Schedule& schedule, Index length, Index start,
                          std::optional<Index> layers, nb::handle progress) {
  return layers_of(progress, [&](const Progress& told) {
    return verify_layers(schedule, length, start, layers, told);
  });
}

nb::tuple pattern_layers(const std::string& name, const Values& parameters, Index length,
                         Index start, std::optional<Index> layers, nb::handle progress) {
  const Pattern pattern = make_pattern(name, parameters);
  return layers_of(progress, [&](const Progress& told) {
    return verify_layers(pattern, length, start, layers, told);
  });
}

nb::tuple list_layers(const Array& query, const Array& begin, const Array& end, Index length,
                      Index start, std::optional<Index> layers, nb::handle progress) {
  std::vector<QuerySpan> spans = span_list(query, begin, end);
  return layers_of(progress, [&](const Progress& told) {
    return verify_layers(std::move(spans), length, start, layers, told);
  });
}

}  // namespace

void bind_coverage(nb::module_& core) {
  core.def("verify_all", &verify_whole, nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
  core.def("verify_sampled", &verify_some, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg().none());
  core.def("verify_spans", &verify_lists, nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert(), nb::arg(), nb::arg());
  core.def("verify_pattern", &verify_one, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg().none());
  core.def("schedule_layers", &schedule_layers, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(),
           nb::arg().none());
  core.def("pattern_layers", &pattern_layers, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
           nb::arg().none(), nb::arg().none());
  core.def("span_layers", &list_layers, nb::arg().noconvert(), nb::arg().noconvert(),
           nb::arg().noconvert(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none());
  core.def("pattern_names", [] {
    const std::vector<std::string_view> names = pattern_names();
    return std::vector<std::string>(names.begin(), names.end());
  });
}

}  // namespace multistep::python
