#pragma once
/// What `snug run` was asked for, and the session that follows from it.

#include <csignal>
#include <optional>

#include "cli/budget_keeper.hpp"
#include "cli/control.hpp"
#include "cli/engine.hpp"
#include "generate/conversation.hpp"
#include "generate/session.hpp"

namespace snug {

struct RunOptions {
  EngineOptions engine;
  std::string prompt, prompt_flag, file, system, chat_template, thinking, kv_folder;
  std::size_t context = 0;
  long max_tokens = -1;
  SamplerOptions sampler;
  GenerateOptions generate;
  bool raw = false, json = false, stats = false, no_pressure = false;
};

/// What the plan says before the first token.
struct Foresight {
  MemoryPlan plan;
  Prediction prediction;
};

/// Everything that a run needs, in the order in which it must live.
struct Run {
  Engine engine;
  std::unique_ptr<BudgetKeeper> budget;
  std::unique_ptr<ControlServer> control;
  std::unique_ptr<Session> session;
  std::unique_ptr<Conversation> conversation;
  std::optional<Foresight> foresight;  ///< when speeds are shown
};

/// Reads questions from the terminal and answers them until the end of input.
void chat(Run& run, const RunOptions& options);

/// Speeds, bytes and the ledger, on stderr.
void print_stats(const Run& run);

/// While it lives, Ctrl-C sets `cancelled` instead of ending the process.
class CancelOnInterrupt {
public:
  CancelOnInterrupt();
  ~CancelOnInterrupt();
  CancelOnInterrupt(const CancelOnInterrupt&) = delete;
  CancelOnInterrupt& operator=(const CancelOnInterrupt&) = delete;
  static const std::atomic<bool>& cancelled();

private:
  struct sigaction previous_{};
};

}  // namespace snug
