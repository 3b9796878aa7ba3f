#include <fmt/core.h>

#include <cctype>
#include <new>

#include "commands.hpp"

namespace {

constexpr int kUsageError = 2;

int fail(const CLI::App& app, const char* message) {
  std::string name = "multistep";
  for (const CLI::App* subcommand : app.get_subcommands()) name += " " + subcommand->get_name();
  std::string line = message;
  for (char& letter : line) {
    if (std::iscntrl(static_cast<unsigned char>(letter))) letter = letter == '\n' ? ' ' : '?';
  }
  fmt::print(stderr, "{}: {}\n", name, line);
  return kUsageError;
}

/// No option takes an empty value: it would be the unset variable of a script.
void refuse_empty_values(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& value : option->results()) {
      if (value.empty()) throw std::invalid_argument(option->get_name() + " '': a value");
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  CLI::App app(
      "Superlinear multi-step attention: does a schedule reach every key, what does it cost, and "
      "what is the right answer?\nExit codes: 0 holds, 1 a hole or a mismatch was found, 2 usage "
      "or input "
      "error, 77 no such device.",
      "multistep");
  app.set_version_flag("--version", MULTISTEP_VERSION);
  app.require_subcommand(1);
  multistep::Run run;
  multistep::add_verify(app, run);
  multistep::add_explain(app, run);
  multistep::add_map(app, run);
  multistep::add_attend(app, run);
  multistep::add_scale(app, run);
  multistep::add_audit(app, run);
  multistep::add_needles(app, run);
  multistep::add_compare(app, run);
  multistep::add_bench(app, run);
  try {
    app.parse(count, arguments);
    refuse_empty_values(*app.get_subcommands().front());
    return run();
  } catch (const CLI::RequiredError& error) {
    if (!app.get_subcommands().empty() || count < 2) return fail(app, error.what());
    const std::string message = fmt::format(
        "{}: verify, explain, map, attend, scale, audit, needles, compare or bench", arguments[1]);
    return fail(app, message.c_str());
  } catch (const CLI::ParseError& error) {
    return error.get_exit_code() == 0 ? app.exit(error) : fail(app, error.what());
  } catch (const std::bad_alloc&) {
    return fail(app, "out of memory");
  } catch (const std::exception& error) {
    return fail(app, error.what());
  }
}
