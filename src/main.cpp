// The binary: parses the command line, runs one command, turns exceptions into one line and an exit code.

#include <cstdio>
#include <exception>

#include "base/error.hpp"
#include "cli/commands.hpp"

namespace {

constexpr int kFailed = 1, kUsage = 2;

int report(const char* message, int code) {
  std::fprintf(stderr, "error: %s\n", message);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("snug: language models inside the memory you have", "snug");
  app.set_version_flag("--version", "snug " SNUG_VERSION);
  app.require_subcommand(1);
  app.footer(
      "Examples:\n  snug run smollm2-135m \"Why is the sky blue?\"\n  snug show qwen2.5-coder-0.5b\n  snug COMMAND "
      "--help");
  snug::add_run(app);
  snug::add_serve(app);
  snug::add_batch(app);
  snug::add_pull(app);
  snug::add_list(app);
  snug::add_rm(app);
  snug::add_show(app);
  snug::add_plan(app);
  snug::add_pack(app);
  snug::add_resize(app);
  snug::add_bench(app);
  snug::add_bench_serve(app);
  snug::add_eval(app);
  snug::add_calibrate(app);
  snug::add_sparsify(app);
  snug::add_tokenize(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return report((std::string(e.what()) + " (see snug --help)").c_str(), kUsage);
  } catch (const snug::UsageError& e) {
    return report(e.what(), kUsage);
  } catch (const std::bad_alloc&) {
    return report("out of memory", kFailed);
  } catch (const std::exception& e) {
    return report(e.what(), kFailed);
  }
}
