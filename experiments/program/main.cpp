#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <csignal>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "program/commands.hpp"
#include "program/printable.hpp"

namespace {

constexpr int kUsageError = 2;

int fail(const std::string& name, std::string_view message) {
  std::string line;
  for (const char letter : message) line += letter == '\n' ? ' ' : letter;
  fmt::print(stderr, "{}: {}\n", name, multistep::program::printable(line));
  return kUsageError;
}

/// "--output=" takes no value from the next argument: it is the unset variable of a script.
void refuse_empty_assignments(const std::vector<std::string>& arguments) {
  for (const std::string& argument : arguments) {
    if (argument.rfind("--", 0) == 0 && argument.find('=') == argument.size() - 1) {
      throw std::invalid_argument(argument.substr(0, argument.size() - 1) + " '': a value");
    }
  }
}

/// No option takes an empty value, which would be the unset variable of a script, nor another
/// option's name, which follows where such a variable is not quoted.
void refuse_missing_values(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& value : option->results()) {
      if (value.empty() || value.rfind("--", 0) == 0) {
        throw std::invalid_argument(option->get_name() + " '" + value + "': a value");
      }
    }
  }
}

/// A file that is opened must not become the standard output or error that the caller has closed.
void hold_standard_descriptors() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(descriptor, F_GETFD) >= 0) continue;
    open("/dev/null", descriptor == STDERR_FILENO ? O_WRONLY : O_RDONLY);
  }
}

}  // namespace

int main(int count, char** arguments) {
  hold_standard_descriptors();
  std::signal(SIGXFSZ, SIG_IGN);  // a file past the limit is an error, told like any other
  CLI::App app(
      "Superlinear multi-step attention: does a schedule reach every key, what does it cost, and "
      "what is the right answer?\nExit codes: 0 holds, 1 a hole or a mismatch was found, 2 usage "
      "or input "
      "error, 77 no such device.",
      "multistep");
  app.set_version_flag("--version", MULTISTEP_VERSION);
  app.require_subcommand(1);
  multistep::program::Run run;
  multistep::program::add_verify(app, run);
  multistep::program::add_explain(app, run);
  multistep::program::add_map(app, run);
  multistep::program::add_memory(app, run);
  multistep::program::add_plan(app, run);
  multistep::program::add_attend(app, run);
  multistep::program::add_scale(app, run);
  multistep::program::add_audit(app, run);
  multistep::program::add_needles(app, run);
  multistep::program::add_compare(app, run);
  multistep::program::add_bench(app, run);
  std::string name = "multistep";
  for (const CLI::App* command : app.get_subcommands({})) {
    if (count > 1 && command->get_name() == arguments[1]) name += " " + command->get_name();
  }
  try {
    refuse_empty_assignments({arguments + 1, arguments + count});
    app.parse(count, arguments);
    refuse_missing_values(*app.get_subcommands().front());
    return run();
  } catch (const CLI::RequiredError& error) {
    if (!app.get_subcommands().empty() || count < 2) return fail(name, error.what());
    return fail(
        name, fmt::format("{}: verify, explain, map, memory, plan, attend, scale, audit, needles, "
                          "compare or bench",
                          arguments[1]));
  } catch (const CLI::ParseError& error) {
    return error.get_exit_code() == 0 ? app.exit(error) : fail(name, error.what());
  } catch (const std::bad_alloc&) {
    return fail(name, "out of memory");
  } catch (const std::exception& error) {
    return fail(name, error.what());
  }
}
