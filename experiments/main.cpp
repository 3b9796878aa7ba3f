#include <fmt/core.h>

#include <new>

#include "commands.hpp"

namespace {

constexpr int kUsageError = 2;

int fail(const CLI::App& app, const char* message) {
  std::string name = "multistep";
  for (const CLI::App* subcommand : app.get_subcommands()) name += " " + subcommand->get_name();
  std::string line = message;
  for (char& letter : line) {
    if (letter == '\n') letter = ' ';
  }
  fmt::print(stderr, "{}: {}\n", name, line);
  return kUsageError;
}

}  // namespace

int main(int count, char** arguments) {
  CLI::App app(
      "Superlinear multi-step attention: does a schedule reach every key, what does it cost, and "
      "what is the right answer?\nExit codes: 0 holds, 1 a hole was found, 2 usage or input error.",
      "multistep");
  app.set_version_flag("--version", MULTISTEP_VERSION);
  app.require_subcommand(1);
  multistep::Run run;
  multistep::add_verify(app, run);
  multistep::add_explain(app, run);
  multistep::add_map(app, run);
  multistep::add_attend(app, run);
  multistep::add_scale(app, run);
  try {
    app.parse(count, arguments);
    return run();
  } catch (const CLI::ParseError& error) {
    return error.get_exit_code() == 0 ? app.exit(error) : fail(app, error.what());
  } catch (const std::bad_alloc&) {
    return fail(app, "out of memory");
  } catch (const std::exception& error) {
    return fail(app, error.what());
  }
}
