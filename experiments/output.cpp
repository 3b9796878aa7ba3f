#include "output.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <stdexcept>

#include "multistep/power.hpp"

namespace multistep {
namespace {

bool holds_a_list(const Json& json) {
  for (const Json& value : json) {
    if (value.is_array() || (value.is_object() && holds_a_list(value))) return true;
  }
  return false;
}

void append_lines(std::string& text, const Json& json, std::size_t indent) {
  if (!json.is_structured() || json.empty() || (json.is_object() && !holds_a_list(json))) {
    text += json.dump();
    return;
  }
  const bool object = json.is_object();
  const char* before = object ? "{\n" : "[\n";
  for (const auto& [key, value] : json.items()) {
    text += before + std::string(indent + 1, ' ');
    if (object) text += Json(key).dump() + ": ";
    append_lines(text, value, indent + 1);
    before = ",\n";
  }
  text += "\n" + std::string(indent, ' ') + (object ? "}" : "]");
}

}  // namespace

void to_json(Json& json, const Count& count) {
  const std::optional<Index> index = count.index();
  json = index ? Json(*index) : Json(to_string(count));
}

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
  command.add_option("--output", path, "write the result to this file instead of standard output");
}

void OutputOptions::write(const std::string& text) const {
  if (!path.empty()) return write_whole(path, text);
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (std::fflush(stdout) != 0 || !written) {
    throw std::runtime_error("standard output: cannot be written");
  }
}

void write_whole(const std::string& path, const std::string& text) {
  // A link is followed; a device or a pipe takes the text as it comes, a file is replaced.
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path target = fs::weakly_canonical(path, error);
  const bool stream = fs::exists(target) && !fs::is_regular_file(target);
  const fs::path partial =
      stream ? target : fs::path(fmt::format("{}.{}.partial", target.string(), getpid()));
  std::ofstream file(partial, std::ios::binary);
  file << text;
  file.close();
  if (file && !stream) {
    const fs::file_status old = fs::status(target, error);
    if (fs::exists(old)) fs::permissions(partial, old.permissions(), error);
    fs::rename(partial, target, error);
  }
  if (!file || error) {
    std::error_code ignored;
    if (!stream) fs::remove(partial, ignored);
    throw std::runtime_error(fmt::format("--output {}: a file that can be written", path));
  }
}

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
  return [this](Index done, Index total) { show(done, total); };
}

}  // namespace multistep
