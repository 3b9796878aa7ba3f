#include "program/sweep.hpp"

#include <fmt/format.h>

#include "bench/gpu_options.hpp"
#ifdef MULTISTEP_HAS_CUDA
#include "bench/gpu_compare.hpp"
#include "bench/gpu_report.hpp"
#include "bench/gpu_sweep.hpp"
#endif

namespace multistep::program {

#ifdef MULTISTEP_HAS_CUDA
namespace {

std::string name_of(const SweepAxis& axis) {
  std::string text = axis.config;
  if (!axis.phase.empty()) text += " " + axis.phase;
  if (axis.length > 0) text += fmt::format(" at {}", axis.length);
  return text + ", " + axis.name;
}

Json json_of(const std::string& value, const SweepPoint& point, const TimedCall& timed) {
  const bool has_time = timed.failed.empty();
  const auto measured = [&](double number) { return has_time ? Json(number) : Json(); };
  return {{"value", value},
          {"queries", point.shape.queries},
          {"keys", point.shape.length},
          {"kernels", timed.kernels},
          {"plain", timed.call.plain},
          {"median_ms", measured(timed.times.median)},
          {"low_ms", measured(timed.times.low)},
          {"high_ms", measured(timed.times.high)},
          {"repeats", has_time ? Json(timed.times.repeats) : Json()},
          {"bytes", measured(timed.call.bytes)},
          {"products", measured(timed.call.products)},
          {"compared", {{"pass", has_time}, {"rows", timed.compared}}}};
}

Json json_of(const SweepStep& step) {
  return {{"from", step.from},     {"to", step.to},
          {"ratio", step.ratio},   {"explained", step.explained},
          {"factor", step.factor}, {"pass", step.pass()},
          {"why", step.why}};
}

/// An axis as a table: every call, and the step to it from the one above.
std::string table(const SweepAxis& axis, const Json& calls, const std::vector<SweepStep>& steps) {
  std::string text = fmt::format("\n{}\n{:>12} {:>10} {:>8} {:>9} {:>8}\n", name_of(axis), "value",
                                 "median ms", "ratio", "explained", "factor");
  for (std::size_t at = 0; at < calls.size(); ++at) {
    const Json& call = calls[at];
    const Json& time = call["median_ms"];
    text += fmt::format("{:>12} {:>10}", call["value"].get<std::string>(),
                        time.is_null() ? "-" : fmt::format("{:.4f}", time.get<double>()));
    if (at > 0) {
      const SweepStep& step = steps[at - 1];
      text += fmt::format(" {:8.3f} {:9.3f} {:8.3f} {}", step.ratio, step.explained, step.factor,
                          step.pass() ? "pass" : "FAIL");
    }
    const auto plain = call["plain"].get<std::string>();
    text += plain.empty() ? "\n" : fmt::format("  plain: {}\n", plain);
  }
  return text;
}

/// What became of all axes.
struct Verdict {
  Json axes = Json::array();
  Json failed = Json::array();  // calls without a time, and steps that are cliffs
  std::string tables;
  std::size_t steps = 0;
};

void judge(const Sweep& sweep, const SweepAxis& axis, const std::vector<TimedCall>& timed,
           Verdict& verdict) {
  const Json of_axis = {{"config", axis.config},
                        {"axis", axis.name},
                        {"phase", axis.phase.empty() ? Json() : Json(axis.phase)},
                        {"length", axis.length == 0 ? Json() : Json(axis.length)}};
  const auto fail = [&](const std::string& reason) {
    verdict.failed.push_back(of_axis);
    verdict.failed.back()["reason"] = reason;
    fmt::print(stderr, "multistep bench: {}: {}\n", name_of(axis), reason);
  };
  std::vector<SweepCall> line;
  Json calls = Json::array();
  for (std::size_t at = 0; at < axis.values.size(); ++at) {
    const TimedCall& one = timed[axis.points[at]];
    line.push_back(one.call);
    line.back().value = axis.values[at];
    calls.push_back(json_of(axis.values[at], sweep.points[axis.points[at]], one));
    if (!one.failed.empty()) fail(fmt::format("{}: no time: {}", axis.values[at], one.failed));
  }
  const std::vector<SweepStep> steps = judge_steps(line);
  Json of_steps = Json::array();
  for (const SweepStep& step : steps) {
    of_steps.push_back(json_of(step));
    if (!step.pass()) fail(step.why);
  }
  verdict.tables += table(axis, calls, steps);
  verdict.steps += steps.size();
  verdict.axes.push_back(of_axis);
  verdict.axes.back().update({{"calls", calls}, {"steps", of_steps}});
}

}  // namespace

int run_sweep(const SweepTask& task) {
  if (const std::string why = cuda::why_unusable(); !why.empty()) return no_device("bench", why);
  const Timer clock;
  Verdict verdict;
  std::vector<TimedCall> timed;
  {
    ProgressBar bar("bench");
    timed = time_sweep(task.sweep, {task.repeats, task.sample}, bar.callback());
  }
  const Json device = device_json();  // clocks under load
  for (const SweepAxis& axis : task.sweep.axes) judge(task.sweep, axis, timed, verdict);
  const bool pass = verdict.failed.empty();
  if (task.output.json) {
    Json shape = shape_json(task.shape);
    for (const char* varies : {"queries", "keys"}) shape.erase(varies);
    Json json = task.provenance;
    json.update({{"seed", task.shape.seed},
                 {"shape", shape},
                 {"device", device},
                 {"largest_factor", kLargestFactor},
                 {"axes", verdict.axes},
                 {"failed", verdict.failed},
                 {"seconds", clock.seconds()}});
    task.output.write(record_lines(json));
  } else {
    task.output.write(verdict.tables + fmt::format("\n{}: {} calls, {} steps, {} failures\n",
                                                   pass ? "PASS" : "FAIL", timed.size(),
                                                   verdict.steps, verdict.failed.size()));
  }
  return pass ? 0 : 1;
}
#else
int run_sweep(const SweepTask&) { return no_device("bench", "built without CUDA"); }
#endif

}  // namespace multistep::program
