// plan: where the bytes of a model go in a budget, and how fast it will run.

#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/memory_info.hpp"
#include "cli/commands.hpp"
#include "cli/engine.hpp"
#include "cli/model_store.hpp"
#include "plan/prediction.hpp"
#include "plan/routing_profile.hpp"

namespace snug {

namespace {

struct PlanOptions {
  EngineOptions engine;
  std::size_t context = 0;
  bool probe = false, json = false;
};

/// Which part of the experts is in memory, how often one is found there, and what would find most of them.
void print_experts(const MemoryPlan& plan, const RoutingProfile* routing) {
  const WeightPlan& w = plan.weights;
  fmt::print("Experts: {} of memory hold {:.0f}% of them; {:.0f}% of those that a token wants are found there",
             format_bytes(w.experts), 100 * w.expert_share, 100 * plan.expert_hits);
  if (!routing) {
    fmt::print(" if routers choose evenly\n(`snug eval routing --save` measures what they do).\n");
    return;
  }
  constexpr double kMost = 0.95;
  const double share = routing->share_for(kMost);
  fmt::print(" (best possible: {:.0f}%).\n", 100 * plan.expert_hits_best);
  if (share > w.expert_share && w.expert_share > 0) {
    const auto more = static_cast<Bytes>(static_cast<double>(w.experts) * (share / w.expert_share - 1));
    fmt::print("A budget of {} would find {:.0f}%.\n", format_bytes(round_up(plan.budget + more, 64 * kMiB)),
               100 * kMost);
  }
}

void print_plan(const MemoryPlan& plan, const Prediction& prediction, const MachineProfile& machine,
                const RoutingProfile* routing) {
  fmt::print("budget {}, context {} tokens\n\n", format_bytes(plan.budget), plan.context);
  for (std::size_t i = 0; i < kTagCount; ++i)
    if (plan.by_tag[i]) fmt::print("  {:<12} {:>9}\n", tag_name(static_cast<Tag>(i)), format_bytes(plan.by_tag[i]));
  const WeightPlan& w = plan.weights;
  fmt::print("  {:<12} {:>9}   {}\n\n", "all", format_bytes(plan.used()), plan.fits() ? "" : "does not fit");
  if (!plan.fits()) {
    fmt::print("The smallest budget for this context is {}.\n", format_bytes(round_up(plan.smallest, kMiB)));
    return;
  }
  if (w.whole) {
    fmt::print("All weights ({}) stay in memory.\n", format_bytes(w.pinned));
  } else {
    fmt::print("{} of {} of weights stay in memory, {} are read from the disk for each token.\n",
               format_bytes(w.pinned), format_bytes(w.total), format_bytes(plan.streamed_bytes));
  }
  if (plan.expert_token_bytes > 0 && !w.whole) print_experts(plan, routing);
  fmt::print("Smallest budget for this context: {}.\n\n", format_bytes(round_up(plan.smallest, kMiB)));
  fmt::print("expected: prompt {:.0f} tokens/s, answer {:.1f} tokens/s ({})\n", prediction.prefill_tok_s,
             prediction.decode_tok_s,
             prediction.disk_seconds > prediction.memory_seconds ? "as fast as the disk" : "as fast as memory");
  fmt::print("machine: memory {:.1f} GB/s, decoding {:.1f} GB/s, int8 {:.2f} Tops, disk", machine.memory_bytes_s / 1e9,
             machine.decode_bytes_s / 1e9, machine.int8_ops_s / 1e12);
  for (const auto& [block, rate] : machine.disk_bytes_s)
    fmt::print(" {:.2f} GB/s at {}", rate / 1e9, format_bytes(block));
  fmt::print("\n");
}

void print_json(const MemoryPlan& plan, const Prediction& prediction, const MachineProfile& machine) {
  nlohmann::ordered_json json = plan_json(plan, prediction);
  nlohmann::ordered_json disk;
  for (const auto& [block, rate] : machine.disk_bytes_s) disk[std::to_string(block)] = rate;
  json["machine"] = {{"memory_bytes_s", machine.memory_bytes_s},
                     {"decode_bytes_s", machine.decode_bytes_s},
                     {"int8_ops_s", machine.int8_ops_s},
                     {"disk_bytes_s", disk}};
  fmt::print("{}\n", json.dump());
}

}  // namespace

nlohmann::ordered_json plan_json(const MemoryPlan& plan, const Prediction& prediction) {
  nlohmann::ordered_json bytes;
  for (std::size_t i = 0; i < kTagCount; ++i) bytes[std::string(tag_name(static_cast<Tag>(i)))] = plan.by_tag[i];
  return {{"budget", plan.budget},
          {"context", plan.context},
          {"fits", plan.fits()},
          {"smallest_budget", plan.smallest},
          {"bytes", bytes},
          {"used", plan.used()},
          {"weights_total", plan.weights.total},
          {"weights_pinned", plan.weights.pinned},
          {"streamed_bytes_per_token", plan.streamed_bytes},
          {"expert_hits", plan.expert_hits},
          {"expert_hits_best", plan.expert_hits_best},
          {"prefill_rows", plan.max_rows},
          {"predicted_tok_s", prediction.decode_tok_s},
          {"predicted_prefill_tok_s", prediction.prefill_tok_s}};
}

void add_plan(CLI::App& app) {
  auto options = std::make_shared<PlanOptions>();
  PlanOptions& o = *options;
  CLI::App* command = app.add_subcommand("plan", "where the bytes go in a budget, and how fast it will run");
  add_engine_options(*command, o.engine);
  add_kv_option(*command, o.engine);
  add_option(*command, "-c,--ctx-size", o.context, fmt::format("context in tokens (default: {})", kUsualContext));
  command->add_flag("--probe", o.probe, "measure all of the machine again, not only memory and disk");
  command->add_flag("--json", o.json, "for programs");
  command->footer(
      "Examples:\n  snug plan qwen2.5-coder-0.5b --memory 256MiB\n  snug plan model.gguf --memory 4GiB -c 32768 "
      "--json");
  command->callback([options] {
    PlanOptions& o = *options;
    const std::string path = find_or_fetch_model(o.engine.model);
    const Bytes budget = budget_of(o.engine);
    ThreadPool pool(o.engine.threads);
    const MachineProfile machine = machine_for(pool, path, budget, o.probe);
    Ledger ledger(Ledger::kUnlimited);
    const auto model = Model::load(path, ledger, pool,
                                   {.context = o.context,
                                    .charge_process = true,
                                    .kv = parse_kv_choice(o.engine.kv),
                                    .load_weights = false,
                                    .plan_for = budget});
    MemoryPlan plan = model->plan(budget, o.context ? o.context : kUsualContext);
    const auto routing = load_routing_profile(model->file());
    if (routing) apply(*routing, plan);
    const Prediction prediction = predict(plan, machine);
    o.json ? print_json(plan, prediction, machine)
           : print_plan(plan, prediction, machine, routing ? &*routing : nullptr);
  });
}

}  // namespace snug
