#pragma once
/// The subcommands: each function adds one to the application; its callback does the work and throws snug::Error.

#include <CLI/CLI.hpp>

namespace snug {

void add_run(CLI::App& app);
void add_serve(CLI::App& app);
void add_batch(CLI::App& app);
void add_pull(CLI::App& app);
void add_list(CLI::App& app);
void add_rm(CLI::App& app);
void add_show(CLI::App& app);
void add_plan(CLI::App& app);
void add_pack(CLI::App& app);
void add_resize(CLI::App& app);
void add_bench(CLI::App& app);
void add_bench_serve(CLI::App& app);
void add_eval(CLI::App& app);
void add_calibrate(CLI::App& app);
void add_sparsify(CLI::App& app);
void add_tokenize(CLI::App& app);

}  // namespace snug
