// Logits of every position of a token sequence, for comparison with other engines:
// logits MODEL OUT [--reference] ID... writes f32[tokens][vocabulary] to OUT.

#include <fmt/format.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

#include "model/model.hpp"

int main(int argc, char** argv) {
  using namespace snug;
  if (argc < 4) return fmt::print(stderr, "usage: logits MODEL OUT [--reference] ID...\n"), 2;
  try {
    const bool reference = std::strcmp(argv[3], "--reference") == 0;
    std::vector<TokenId> ids;
    for (int i = reference ? 4 : 3; i < argc; ++i) ids.push_back(std::atoi(argv[i]));
    Ledger ledger;
    ThreadPool pool(2);
    const auto model = Model::load(argv[1], ledger, pool, {.max_rows = 64, .reference = reference});
    const std::size_t vocab = model->config().vocab_size;
    const auto sequence = model->new_sequence(ids.size());
    std::vector<float> logits(ids.size() * vocab);
    for (std::size_t at = 0; at < ids.size();) {
      std::vector<Row> rows;
      for (std::size_t i = at; i < ids.size() && rows.size() < model->max_rows(); ++i)
        rows.push_back({ids[i], sequence.get(), true});
      model->forward(rows, std::span(logits).subspan(at * vocab, rows.size() * vocab));
      at += rows.size();
    }
    std::ofstream out(argv[2], std::ios::binary);
    out.write(reinterpret_cast<const char*>(logits.data()),
              static_cast<std::streamsize>(logits.size() * sizeof(float)));
    out.close();
    return out ? 0 : 1;
  } catch (const std::exception& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
