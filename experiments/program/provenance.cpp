#include "program/provenance.hpp"

#include <fmt/format.h>

#include <fstream>
#include <set>
#include <stdexcept>

namespace multistep::program {
namespace {

std::string command_line() {
  static const std::set<std::string> kUnsaid{"--commit", "--dirty", "--output"};
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string argument;
  std::string text = "multistep";
  std::getline(file, argument, '\0');  // the program
  while (std::getline(file, argument, '\0')) {
    const std::size_t equals = argument.find('=');
    if (kUnsaid.count(argument.substr(0, equals)) == 0) {
      text += " " + argument;
    } else if (equals == std::string::npos) {
      std::getline(file, argument, '\0');  // its value
    }
  }
  return text;
}

}  // namespace

void Provenance::add(CLI::App& command) {
  command.add_option("--commit", commit, "what was built, for the JSON");
  command.add_option("--dirty", dirty, "yes where it had uncommitted changes, or no");
}

Json Provenance::json() const {
  if (dirty != "yes" && dirty != "no") {
    throw std::invalid_argument(fmt::format("--dirty {}: yes or no", dirty));
  }
  return {{"command", command_line()}, {"commit", commit}, {"dirty", dirty}};
}

}  // namespace multistep::program
