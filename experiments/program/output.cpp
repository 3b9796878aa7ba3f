#include "program/output.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "multistep/power.hpp"
#include "program/destination.hpp"

namespace multistep {

void to_json(nlohmann::ordered_json& json, const Count& count) {
  const std::optional<Index> index = count.index();
  json = index ? program::Json(*index) : program::Json(to_string(count));
}

namespace program {
namespace {

/// JSON text, by default in one line; bytes of an argument that are no UTF-8 come as U+FFFD.
std::string dumped(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

bool holds_a_list(const Json& json) {
  for (const Json& value : json) {
    if (value.is_array() || (value.is_object() && holds_a_list(value))) return true;
  }
  return false;
}

void append_lines(std::string& text, const Json& json, std::size_t indent) {
  if (!json.is_structured() || json.empty() || (json.is_object() && !holds_a_list(json))) {
    text += dumped(json);
    return;
  }
  const bool object = json.is_object();
  const char* before = object ? "{\n" : "[\n";
  for (const auto& [key, value] : json.items()) {
    text += before + std::string(indent + 1, ' ');
    if (object) text += dumped(key) + ": ";
    append_lines(text, value, indent + 1);
    before = ",\n";
  }
  text += "\n" + std::string(indent, ' ') + (object ? "}" : "]");
}

}  // namespace

std::string count_text(const Json& count) {
  return count.is_string() ? count.get<std::string>() : count.dump();
}

std::string record_lines(const Json& json) {
  std::string text;
  append_lines(text, json, 0);
  return text + "\n";
}

void OutputOptions::add(CLI::App& command) {
  command.add_flag("--json", json, "print the result as JSON");
  command.add_option("--output", path,
                     "write the result there instead of to standard output, which - is too");
  command.parse_complete_callback([this] { require_writable(path); });
}

void OutputOptions::write(const std::string& text) const { write_whole(path, text); }

void OutputOptions::write(const Json& result) const { write(dumped(result, 2) + "\n"); }

ProgressBar::ProgressBar(std::string label)
    : label_(std::move(label)),
      terminal_(isatty(fileno(stderr)) != 0),
      next_(Clock::now() + std::chrono::seconds(1)) {}

ProgressBar::~ProgressBar() {
  if (drawn_) fmt::print(stderr, "\r\033[K");
}

void ProgressBar::show(Index done, Index total) {
  if (!terminal_ || Clock::now() < next_) return;
  constexpr std::size_t kWidth = 32;
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
  const auto filled =
      static_cast<std::size_t>(std::clamp<Index>(truncated(share * kWidth), 0, kWidth));
  fmt::print(stderr, "\r{} [{}{}] {:3.0f} %", label_, std::string(filled, '#'),
             std::string(kWidth - filled, '.'), 100 * share);
  std::fflush(stderr);
  drawn_ = true;
  next_ = Clock::now() + std::chrono::milliseconds(100);
}

Progress ProgressBar::callback() {
  return [this](Index done, Index total) {
    show(done, total);
    return true;
  };
}

}  // namespace program
}  // namespace multistep
