#include <algorithm>
#include <nlohmann/json.hpp>

#include "multistep/judge.hpp"
#include "stages/softmax.hpp"
#include "support/error.hpp"

namespace multistep {
namespace {

using Json = nlohmann::ordered_json;

/// JSON has no infinity.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

/// What is wrong with a selection, by name.
std::vector<std::pair<const char*, Index>> faults_of(const SelectionReport& report) {
  return {{"not_candidates", report.not_candidates}, {"out_of_range", report.out_of_range},
          {"duplicates", report.duplicates},         {"missing", report.missing},
          {"unordered", report.unordered},           {"unclean", report.unclean},
          {"wrong_scores", report.wrong_scores},     {"regretted", report.regretted}};
}

const char* row_name(const StageReport& stage) { return stage.of_keys ? "key" : "query"; }

Json place_json(const StageReport& stage) {
  if (!stage.worst) return nullptr;
  Json place = {{"batch", stage.worst->batch},
                {"head", stage.worst->head},
                {row_name(stage), stage.worst->position}};
  if (stage.level >= 0) place["level"] = stage.level;
  if (stage.slot >= 0) place["slot"] = stage.slot;
  if (stage.dim >= 0) place["dim"] = stage.dim;
  return place;
}

Json selection_json(const SelectionReport& report) {
  Json histogram;
  for (std::size_t bin = 0; bin < SelectionReport::kBins; ++bin) {
    histogram[std::string(regret_bin_name(bin))] = report.histogram[bin];
  }
  Json wrong;
  for (const auto& [name, count] : faults_of(report)) wrong[name] = count;
  return {{"kind", "selection"},
          {"rows", report.rows},
          {"paths", report.paths},
          {"score_error", number(report.score_error)},
          {"mean_score_error", number(report.mean_score_error)},
          {"regret", number(report.regret)},
          {"regret_score", number(report.regret_score)},
          {"histogram", histogram},
          {"wrong", wrong},
          {"nans", report.nans},
          {"infs", report.infs}};
}

Json values_json(const ValueReport& report) {
  return {{"kind", "values"},
          {"max_error", number(report.max_error)},
          {"max_limit", number(report.max_limit)},
          {"mean_error", number(report.mean_error)},
          {"mean_limit", number(report.mean_limit)},
          {"plain_max", number(report.yardstick_max)},
          {"plain_mean", number(report.yardstick_mean)},
          {"ratio", number(report.ratio)},
          {"values", report.values},
          {"wrong_rows", report.wrong_rows},
          {"wrong_heads", report.wrong_heads},
          {"nans", report.nans},
          {"infs", report.infs}};
}

Json stage_json(const StageReport& stage) {
  Json json = {{"stage", stage.name}, {"pass", stage.pass()}};
  json.update(stage.selection ? selection_json(*stage.selection) : values_json(stage.values));
  json["not_finite_in_all_rows"] = stage.whole.not_finite;
  json["unbounded_in_all_rows"] = stage.whole.unbounded;
  if (stage.whole.not_zero > 0) json["not_zero_in_all_rows"] = stage.whole.not_zero;
  json["worst"] = place_json(stage);
  return json;
}

std::string place_text(const StageReport& stage) {
  if (!stage.worst) return "-";
  std::string text =
      fmt::format("{} {} head {}", row_name(stage), stage.worst->position, stage.worst->head);
  if (stage.worst->batch > 0) text += fmt::format(" batch {}", stage.worst->batch);
  if (stage.level >= 0) text += fmt::format(" level {}", stage.level);
  if (stage.slot >= 0) text += fmt::format(" slot {}", stage.slot);
  if (stage.dim >= 0) text += fmt::format(" dim {}", stage.dim);
  return text;
}

constexpr char kRow[] = "{:23} {:>9} {:>9} {:>9} {:>9} {:>4} {:>4}  {:4}  {}\n";

std::string stage_line(const StageReport& stage) {
  const auto text = [](double value) { return fmt::format("{:.3g}", value); };
  const char* verdict = stage.pass() ? "pass" : "FAIL";
  if (stage.selection) {
    const SelectionReport& of = *stage.selection;
    return fmt::format(kRow, stage.name, text(of.score_error), "1 bound", text(of.mean_score_error),
                       "-", of.nans, of.infs, verdict, place_text(stage));
  }
  const ValueReport& of = stage.values;
  return fmt::format(kRow, stage.name, text(of.max_error), text(of.max_limit), text(of.mean_error),
                     text(of.mean_limit), of.nans, of.infs, verdict, place_text(stage));
}

/// What is wrong besides the errors, and the regrets.
std::string stage_notes(const StageReport& stage) {
  std::string text;
  const auto note = [&](Index count, const char* what) {
    if (count > 0) text += fmt::format("  {}: {} {}\n", stage.name, count, what);
  };
  note(stage.whole.not_finite, "values of all rows are NaN or infinite");
  note(stage.whole.unbounded, "values of all rows are larger than any value they can be made of");
  note(stage.whole.not_zero, "values are not 0 where nobody looked");
  if (!stage.selection) {
    note(stage.values.wrong_rows, "rows are off by their own limits");
    note(stage.values.wrong_heads, "heads are off by their own limits");
    return text;
  }
  text += fmt::format("  {}: rows by regret in bounds", stage.name);
  for (std::size_t bin = 0; bin < SelectionReport::kBins; ++bin) {
    text += fmt::format("; {}: {}", regret_bin_name(bin), stage.selection->histogram[bin]);
  }
  text += "\n";
  for (const auto& [name, count] : faults_of(*stage.selection)) {
    if (count > 0) text += fmt::format("    {} {}\n", count, name);
  }
  return text;
}

}  // namespace

bool StageReport::pass() const {
  const bool found = whole.not_finite + whole.unbounded + whole.not_zero == 0;
  return found && (selection ? selection->pass() : values.pass());
}

bool JudgeReport::pass() const {
  const auto passes = [](const StageReport& stage) { return stage.pass(); };
  return !stages.empty() && 2 * undecided <= rows &&
         std::all_of(stages.begin(), stages.end(), passes);
}

std::string JudgeReport::verdict() const {
  const auto fails = [](const StageReport& stage) { return !stage.pass(); };
  const char* word = "PASS";
  if (std::any_of(stages.begin(), stages.end(), fails)) {
    word = "FAIL";
  } else if (stages.empty()) {
    word = "NOTHING JUDGED";
  } else if (!pass()) {
    word = "TOO FEW JUDGED";
  }
  std::string text = fmt::format("{}, {} of {} rows", word, rows, rows_of);
  if (keys_of > 0) text += fmt::format(" and {} of {} keys", keys, keys_of);
  text += " looked at";
  if (undecided > 0) text += fmt::format(", {} undecided", undecided);
  if (!not_supplied.empty()) text += fmt::format(", {} stages not supplied", not_supplied.size());
  return text;
}

std::string JudgeReport::json() const {
  Json list = Json::array();
  for (const StageReport& stage : stages) list.push_back(stage_json(stage));
  Json json = {{"pass", pass()},
               {"verdict", verdict()},
               {"rows", rows},
               {"rows_of", rows_of},
               {"undecided", undecided},
               {"stages", list},
               {"not_supplied", not_supplied}};
  if (keys_of > 0) json.update({{"keys", keys}, {"keys_of", keys_of}});
  json["end_to_end"] = has_output ? Json{{"max_error", number(end_to_end_max)},
                                         {"mean_error", number(end_to_end_mean)},
                                         {"judged", false}}
                                  : Json(nullptr);
  return json.dump();
}

std::string JudgeReport::table() const {
  std::string text =
      fmt::format(kRow, "stage", "worst", "limit", "mean", "limit", "NaN", "Inf", "", "worst at");
  for (const StageReport& stage : stages) text += stage_line(stage);
  for (const std::string& name : not_supplied) {
    text += fmt::format("{:23} not supplied\n", name);
  }
  if (has_output) {
    text += fmt::format("{:23} {:>9.3g} {:>9} {:>9.3g}  (reported, not judged)\n", "end to end",
                        end_to_end_max, "-", end_to_end_mean);
  }
  for (const StageReport& stage : stages) text += stage_notes(stage);
  if (undecided > 0) {
    text += fmt::format(
        "  output: of {} rows bounded alone, as what is not told of their selection hangs on "
        "rounding; supply spans and scores\n",
        undecided);
  }
  return text;
}

}  // namespace multistep
