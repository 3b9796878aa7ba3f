#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "multistep/count.hpp"

namespace multistep {

/// A number below 2^63, beyond it a string of its decimal digits. Found beside the type.
void to_json(nlohmann::ordered_json& json, const Count& count);

namespace program {

using Json = nlohmann::ordered_json;

/// A count as people read it, from its JSON.
std::string count_text(const Json& count);

/// Where a result goes and in which form.
struct OutputOptions {
  bool json = false;
  std::string path;  // as write_whole has it

  /// A path that cannot be written is refused once the options are read.
  void add(CLI::App& command);

  /// Writes the result whole, or throws std::runtime_error naming the file.
  void write(const std::string& text) const;
  void write(const Json& result) const;
};

/// JSON for files of many records: an object that holds no list is one line.
std::string record_lines(const Json& json);

/// A bar on standard error for work that takes longer than a second; silent unless it is a
/// terminal.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(Index done, Index total);
  Progress callback();

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  bool terminal_;
  bool drawn_ = false;
  Clock::time_point next_;
};

/// Wall-clock seconds since it was made.
class Timer {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace program
}  // namespace multistep
