#pragma once

#include <CLI/CLI.hpp>
#include <functional>

/// The subcommands of the program. Each adds its options to `app` and, once they are parsed, sets
/// `run`, whose result is the exit code: 0 holds, 1 a hole or a mismatch was found,
/// 77 no such device.
namespace multistep::program {

using Run = std::function<int()>;

void add_verify(CLI::App& app, Run& run);
void add_explain(CLI::App& app, Run& run);
void add_map(CLI::App& app, Run& run);
void add_memory(CLI::App& app, Run& run);
void add_plan(CLI::App& app, Run& run);
void add_attend(CLI::App& app, Run& run);
void add_scale(CLI::App& app, Run& run);
void add_audit(CLI::App& app, Run& run);
void add_needles(CLI::App& app, Run& run);
void add_compare(CLI::App& app, Run& run);
void add_bench(CLI::App& app, Run& run);

}  // namespace multistep::program
