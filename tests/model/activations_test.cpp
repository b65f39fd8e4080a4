// Activations that share memory give the same logits, wherever they are placed: a wrong lifetime would show.

#include "model/activations.hpp"

#include <gtest/gtest.h>

#include <random>

#include "model/transformer.hpp"
#include "support/tiny_model.hpp"

namespace snug {
namespace {

using namespace testing_support;

using Buffers = std::span<const ArenaBuffer>;

/// One behind the other: nothing is shared.
ArenaPlan separate(Buffers buffers) {
  ArenaPlan plan;
  for (const ArenaBuffer& b : buffers) {
    plan.offsets.push_back(plan.total);
    plan.total += round_up(b.size, kArenaAlignment);
  }
  return plan;
}

bool overlap(Buffers buffers, const ArenaPlan& plan, std::size_t a, std::size_t b) {
  return plan.offsets[a] < plan.offsets[b] + buffers[b].size && plan.offsets[b] < plan.offsets[a] + buffers[a].size;
}

/// In a random order, each as low as those allow that it meets.
ArenaPlan in_random_order(Buffers buffers, unsigned seed) {
  std::vector<std::size_t> order(buffers.size()), placed;
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  ArenaPlan plan{std::vector<Bytes>(buffers.size()), 0};
  for (const std::size_t i : order) {
    const auto blocked = [&](std::size_t other) {
      return buffers[other].meets(buffers[i]) && overlap(buffers, plan, i, other);
    };
    for (auto at = std::find_if(placed.begin(), placed.end(), blocked); at != placed.end();
         at = std::find_if(placed.begin(), placed.end(), blocked))
      plan.offsets[i] = round_up(plan.offsets[*at] + buffers[*at].size, kArenaAlignment);
    plan.total = std::max(plan.total, plan.offsets[i] + buffers[i].size);
    placed.push_back(i);
  }
  return plan;
}

/// Plans in which every two buffers that may share memory do so at least once.
std::vector<ArenaPlan> plans_of_all_neighbours(Buffers buffers) {
  std::vector<std::pair<std::size_t, std::size_t>> left;
  for (std::size_t a = 0; a < buffers.size(); ++a)
    for (std::size_t b = 0; b < a; ++b)
      if (buffers[a].size && buffers[b].size && !buffers[a].meets(buffers[b])) left.emplace_back(a, b);
  std::vector<ArenaPlan> candidates, result;
  for (unsigned seed = 0; seed < 300; ++seed) candidates.push_back(in_random_order(buffers, seed));
  const auto shared = [&](const ArenaPlan& plan) {
    return std::count_if(left.begin(), left.end(),
                         [&](const auto& pair) { return overlap(buffers, plan, pair.first, pair.second); });
  };
  while (!left.empty()) {
    const ArenaPlan plan = *std::max_element(candidates.begin(), candidates.end(),
                                             [&](const auto& a, const auto& b) { return shared(a) < shared(b); });
    if (shared(plan) == 0) break;
    std::erase_if(left, [&](const auto& pair) { return overlap(buffers, plan, pair.first, pair.second); });
    result.push_back(plan);
  }
  for (const auto& [a, b] : left) ADD_FAILURE() << "buffers " << a << " and " << b << " never share memory";
  return result;
}

/// Logits of prompts in chunks of 1, 7 and 64 and a few decode steps, and of some rows of two sequences at a time.
std::vector<float> all_logits(const std::string& file, const ArenaPlanner& planner) {
  Ledger ledger;
  ThreadPool pool(2);
  Transformer model(parse(file), ledger, pool,
                    ModelOptions{.max_rows = 64, .context = 128, .place_activations = planner});
  const std::size_t vocab = model.config().vocab_size;
  std::vector<float> result;
  const auto forward = [&](const std::vector<Row>& rows) {
    const auto wanted = std::count_if(rows.begin(), rows.end(), [](const Row& r) { return r.wants_logits; });
    std::vector<float> logits(static_cast<std::size_t>(wanted) * vocab);
    model.forward(rows, logits);
    result.insert(result.end(), logits.begin(), logits.end());
  };
  for (const auto& [chunk, count] : {std::pair{1u, 8u}, {7u, 24u}, {64u, 64u}}) {
    const auto sequence = model.new_sequence(128);
    for (std::size_t at = 0; at < count; at += chunk) {
      std::vector<Row> rows;
      for (std::size_t i = at; i < std::min<std::size_t>(count, at + chunk); ++i)
        rows.push_back({static_cast<TokenId>(i * 37 % 256), sequence.get(), true});
      forward(rows);
    }
    for (const TokenId token : {5, 99, 200}) forward({{token, sequence.get(), true}});
  }
  const auto one = model.new_sequence(128), two = model.new_sequence(128);
  for (int step = 0; step < 3; ++step) {
    std::vector<Row> rows;
    for (TokenId t = 0; t < 20; ++t) rows.push_back({t * 11 + step, one.get(), t % 3 == 0});
    for (TokenId t = 0; t < 9; ++t) rows.push_back({t * 23 + step, two.get(), t == 8});
    forward(rows);
  }
  return result;
}

const std::pair<const char*, TinyShape> kShapes[] = {
    {"llama", {}},
    {"mixture", {.experts = 8, .used = 3}},
    {"hybrid", {.hybrid = true}},
    {"hybrid mixture with a shared expert", {.experts = 8, .used = 3, .hybrid = true, .shared_ffn = 64}},
    {"norms after blocks", {.gemma = 3}},
    {"inputs of each layer", {.layers = 3, .gemma = 4}},
    {"dense block beside experts", {.experts = 8, .used = 3, .gemma = 4}}};

TEST(ActivationsTest, SharingMemoryChangesNothing) {
  for (const auto& [name, base] : kShapes)
    for (const bool quantised : {false, true}) {
      SCOPED_TRACE(std::string(name) + (quantised ? ", quantised" : ""));
      TinyShape shape = base;
      shape.quantised = quantised;
      const std::string file = tiny_model(shape);
      Bytes apart = 0, shared = 0;
      std::vector<ArenaBuffer> buffers;
      const std::vector<float> expected = all_logits(file, [&](Buffers b) {
        buffers.assign(b.begin(), b.end());
        ArenaPlan plan = separate(b);
        apart = plan.total;
        return plan;
      });
      const auto same = [&](const std::vector<float>& logits) {
        return logits.size() == expected.size() &&
               std::memcmp(logits.data(), expected.data(), expected.size() * sizeof(float)) == 0;
      };
      EXPECT_TRUE(std::all_of(expected.begin(), expected.end(), [](float v) { return std::isfinite(v); }));
      EXPECT_TRUE(same(all_logits(file, [&](Buffers b) {
        ArenaPlan plan = plan_arena(b);
        shared = plan.total;
        EXPECT_LE(shared, arena_lower_bound(b) * 9 / 8);
        return plan;
      })));
      EXPECT_LT(shared, apart * 3 / 4);
      for (const ArenaPlan& plan : plans_of_all_neighbours(buffers))
        EXPECT_TRUE(same(all_logits(file, [&](Buffers) { return plan; })));
    }
}

}  // namespace
}  // namespace snug
