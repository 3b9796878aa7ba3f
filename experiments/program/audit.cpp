#include <fmt/format.h>

#include <optional>

#include "multistep/host_memory.hpp"
#include "multistep/power.hpp"
#include "program/commands.hpp"
#include "program/options.hpp"
#include "program/output.hpp"
#include "program/provenance.hpp"
#include "studies/rounded_coverage.hpp"

namespace multistep::program {
namespace {

// Beyond it single precision cannot even hold the stripes, and the tables grow without a lesson.
constexpr Index kMaxAuditLength = Index{1} << 30;

constexpr char kNote[] =
    "wrong: the stripe differs from floor(i^e). harmless: the rounded schedule still reaches every "
    "key of every query; it differs from the exact one all the same, so that two programs which "
    "round differently choose among different spans.";

struct Options {
  std::string lengths = "1M,10M";
  std::string exponents = "2,20/11,3/2,9/5,5/2,3";
  ScheduleOptions schedule;
  Provenance provenance;
  OutputOptions output;
};

struct Named {
  std::string name;
  Schedule schedule;
};

/// Two steps, stripes of exponent e and the least reach that suffices for them in exact arithmetic:
/// b = e, f = 0, q = (e - 1) / e, as i^e is convex.
Schedule least(Rational e) {
  Schedule schedule = preset_schedule("paper");
  schedule.levels.front() = {Rule::power, e, e, make_rational(0),
                             make_rational(e.numerator - e.denominator, e.numerator)};
  return schedule;
}

std::vector<Named> schedules(const Options& options) {
  bool given = false;
  for (const CLI::Option* option : options.schedule.all) given = given || option->count() > 0;
  if (given) {
    const Schedule schedule = options.schedule.schedule();
    const char* const range = "rounding is audited of two steps, tight or power";
    if (schedule.steps != 2) {
      throw std::invalid_argument(fmt::format("--steps {}: {}", schedule.steps, range));
    }
    if (!has_stripes(schedule.level(1).rule)) {
      throw std::invalid_argument(
          fmt::format("--rule {}: {}", to_string(schedule.level(1).rule), range));
    }
    return {{"given", schedule}};
  }
  std::vector<Named> all{{"paper", preset_schedule("paper")}};
  all.push_back({"A", preset_schedule("paper")});
  all.back().schedule.window_index = 31;
  all.push_back({"released", preset_schedule("released")});
  all.push_back({"released, no window", preset_schedule("released")});
  all.back().schedule.window_index = 0;
  for (const char* text : {"20/11", "3/2", "9/5", "5/2", "3"}) {
    all.push_back({fmt::format("least reach, e = {}", text), least(parse_rational(text))});
  }
  all.push_back({"tight, e = 20/11", all.back().schedule});
  all.back().schedule.levels.front() = {Rule::tight, parse_rational("20/11"), {}, {}, {}};
  return all;
}

/// The stripes floor(i^e) <= limit beside what `rounding` makes of them.
Json stripes_json(Rational exponent, const Rounding& rounding, Index limit) {
  Index stripes = 0;
  Index wrong = 0;
  Index largest = 0;
  Json first;
  for (Index i = 1;; ++i) {
    const Index exact = floor_power(i, exponent);
    if (exact > limit) break;
    ++stripes;
    const Index computed = rounded_stripe(rounding, i, exponent);
    if (computed == exact) continue;
    ++wrong;
    largest = std::max(largest, computed > exact ? computed - exact : exact - computed);
    if (first.is_null()) first = {{"stripe", i}, {"exact", exact}, {"computed", computed}};
  }
  return {{"exponent", to_string(exponent)},
          {"method", rounding.name},
          {"limit", limit},
          {"stripes", stripes},
          {"wrong", wrong},
          {"share", static_cast<double>(wrong) / static_cast<double>(stripes)},
          {"largest_error", largest},
          {"first_wrong", first}};
}

Json coverage_json(const Named& named, const Rounding& rounding, Index length,
                   const RoundedCoverage& report) {
  Json first;
  if (report.first_excluded) {
    const Exclusion& at = *report.first_excluded;
    first = {{"position", at.position},
             {"key", at.key},
             {"gap", {{"begin", at.gap.begin}, {"end", at.gap.end}}}};
  }
  const Level& level = named.schedule.level(1);
  return {{"schedule", named.name},
          {"parameters", describe(named.schedule)},
          {"rule", to_string(level.rule)},
          {"exponent", to_string(level.exponent)},
          {"method", rounding.name},
          {"length", length},
          {"covered", report.covered()},
          {"excluded_queries", report.excluded_queries},
          {"excluded_pairs", report.excluded_pairs},
          {"first_excluded", first},
          {"least_slack", report.least_slack == INT64_MAX ? Json() : Json(report.least_slack)},
          {"harmless", report.covered()}};
}

/// Refuses tables that do not fit the memory: three of as many entries as there are stripes.
void require_tables(const Schedule& schedule, Index length) {
  const Index stripes = StripePlan(schedule, length).cut(1, Segment({0, length})).last();
  require_memory(fmt::format("length {}: its tables take", length),
                 3 * sizeof(Index) * static_cast<double>(stripes));
}

/// The exact arithmetic's answer must be that of the checker, which takes another way to it.
void require_agreement(const Named& named, const RoundedCoverage& exact, Index length) {
  if (verify_all(named.schedule, length).excluded_pairs != exact.excluded_pairs) {
    throw std::logic_error(fmt::format("{} at {}: the audit of exact arithmetic and verify differ",
                                       named.name, length));
  }
}

std::string text(const Json& result) {
  std::string out = fmt::format("{:9} {:27} {:>9} {:>8} {:>8} {:>8} {:>8}\n", "exponent", "method",
                                "below", "stripes", "wrong", "share", "by up to");
  for (const Json& one : result["exponents"]) {
    out += fmt::format("{:9} {:27} {:9} {:8} {:8} {:6.1f} % {:8}\n",
                       one["exponent"].get<std::string>(), one["method"].get<std::string>(),
                       one["limit"].get<Index>(), one["stripes"].get<Index>(),
                       one["wrong"].get<Index>(), 100 * one["share"].get<double>(),
                       one["largest_error"].get<Index>());
  }
  out += fmt::format("\n{:22} {:27} {:>9} {:>16}  {}\n", "schedule", "method", "length",
                     "pairs excluded", "first query, key");
  for (const Json& one : result["coverage"]) {
    const Json& first = one["first_excluded"];
    out += fmt::format("{:22} {:27} {:9} {:16}  {}\n", one["schedule"].get<std::string>(),
                       one["method"].get<std::string>(), one["length"].get<Index>(),
                       count_text(one["excluded_pairs"]),
                       first.is_null() ? "covered"
                                       : fmt::format("{}, {}", first["position"].get<Index>(),
                                                     first["key"].get<Index>()));
  }
  return out;
}

int audit(const Options& options) {
  std::vector<Index> lengths;
  for (const std::string& length : split("--lengths", options.lengths)) {
    lengths.push_back(parse_size("--lengths", length, 1, kMaxAuditLength));
  }
  std::vector<Rational> exponents;
  for (const std::string& exponent : split("--exponents", options.exponents)) {
    Schedule probe = preset_schedule("nstep");
    try {
      probe.levels.front().exponent = parse_rational(exponent);
      validate_schedule(probe);
    } catch (const std::invalid_argument&) {
      throw std::invalid_argument(fmt::format(
          "--exponents {}: a rational in [1, 64] with a denominator of at most 10000", exponent));
    }
    exponents.push_back(probe.levels.front().exponent);
  }
  const std::vector<Named> named = schedules(options);
  for (const Named& one : named) {
    for (const Index length : lengths) {
      naming_options([&] { require_tables(one.schedule, length); }, "--lengths");
    }
  }
  Json result = options.provenance.json();
  const Timer timer;

  Json methods = Json::array();
  for (const Rounding& rounding : roundings()) {
    methods.push_back({{"name", rounding.name},
                       {"stripe", stripe_formula(rounding)},
                       {"reach", reach_formula(rounding)}});
  }
  std::optional<ProgressBar> bar("audit");
  Index done = 0;
  const auto cases = static_cast<Index>((exponents.size() + named.size()) * lengths.size());
  Json stripes = Json::array();
  Json coverage = Json::array();
  for (const Index length : lengths) {
    for (const Rational exponent : exponents) {
      for (const Rounding& rounding : roundings()) {
        if (rounding.stripe == Power::exact) continue;
        stripes.push_back(stripes_json(exponent, rounding, length));
      }
      bar->show(++done, cases);
    }
    for (const Named& one : named) {
      for (const Rounding& rounding : roundings()) {
        const RoundedCoverage report = rounded_coverage(one.schedule, rounding, length);
        coverage.push_back(coverage_json(one, rounding, length, report));
        if (rounding.name == "exact") require_agreement(one, report, length);
      }
      bar->show(++done, cases);
    }
  }
  bar.reset();
  result["note"] = kNote;
  result["methods"] = std::move(methods);
  result["exponents"] = std::move(stripes);
  result["coverage"] = std::move(coverage);
  result["seconds"] = timer.seconds();
  options.output.json ? options.output.write(record_lines(result))
                      : options.output.write(text(result));
  return 0;
}

}  // namespace

void add_audit(CLI::App& app, Run& run) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "audit",
      "Stripes and reaches in rounded arithmetic: how many are wrong, which keys that costs");
  command->add_option("--lengths", options->lengths,
                      "stripes up to these, sequences of these, in [1, 2^30] (default 1M,10M)");
  command->add_option("--exponents", options->exponents,
                      "stripe exponents, rationals in [1, 64] (default 2,20/11,3/2,9/5,5/2,3)");
  options->schedule.add(*command);
  options->provenance.add(*command);
  options->output.add(*command);
  command->footer(
      "Coverage is that of the usual schedules, or of the one given: two steps, tight or power. "
      "All\n"
      "queries of each length are checked; a first excluded pair is found again by the checker of\n"
      "span lists. Holes are this command's findings, not its failure: the exit code is 0.\n"
      "Example:\n"
      "  multistep audit --lengths 1M --exponents 20/11 --preset released");
  command->callback([options, &run] { run = [options] { return audit(*options); }; });
}

}  // namespace multistep::program
