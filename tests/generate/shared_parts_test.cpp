// Sequences that begin alike read what they share once: results are those of each alone, to the bit.

#include <gtest/gtest.h>

#include "support/tiny_session.hpp"

namespace snug {
namespace {

using namespace testing_support;

TEST(SharedPartsTest, ForksInABatchGetWhatEachGetsAlone) {
  constexpr std::size_t kForks = 4;
  for (const std::string& name : kv_names())
    for (const TinyShape& shape : {TinyShape{.context = 2048}, TinyShape{.context = 2048, .gemma = 3}}) {
      if (shape.gemma && name != "bf16" && name != "kivi-2") continue;
      SCOPED_TRACE(name);
      const std::size_t vocab = shape.vocab;
      const auto run = [&](bool together) {
        TinyEngine engine(shape, {.max_rows = 200, .context = 2048}, 3, name);
        const auto first = engine.model.new_sequence(2048);
        engine.model.feed(*first, some_tokens(850), {});
        std::vector<std::unique_ptr<Sequence>> forks;
        for (std::size_t i = 0; i < kForks; ++i) {
          forks.push_back(first->fork());
          std::vector<TokenId> own(1 + 60 * i, static_cast<TokenId>(i));
          engine.model.feed(*forks.back(), own, {});
        }
        // And one of another beginning.
        forks.push_back(engine.model.new_sequence(2048));
        engine.model.feed(*forks.back(), some_tokens(400), {});
        std::vector<float> all;
        for (int step = 0; step < 12; ++step) {
          std::vector<Row> rows;
          for (std::size_t i = 0; i < forks.size(); ++i)
            rows.push_back({static_cast<TokenId>((step * 7 + static_cast<int>(i)) % 200), forks[i].get(), true});
          std::vector<float> logits(rows.size() * vocab);
          if (together)
            engine.model.forward(rows, logits);
          else
            for (std::size_t i = 0; i < rows.size(); ++i)
              engine.model.forward(std::span(rows).subspan(i, 1), std::span(logits).subspan(i * vocab, vocab));
          if (step % 4 == 0) all.insert(all.end(), logits.begin(), logits.end());
        }
        return all;
      };
      EXPECT_EQ(run(true), run(false));
    }
}

}  // namespace
}  // namespace snug
