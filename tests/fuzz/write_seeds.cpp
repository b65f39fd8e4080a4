// Writes the fuzz corpus' seeds: write_seeds MODELS_FOLDER SESSIONS_FOLDER. The corpus stands in the repository; run
// this when formats grow.

#include <fstream>

#include "kv/kv_file.hpp"
#include "support/feed_store.hpp"
#include "support/kv_seed.hpp"
#include "support/tiny_model.hpp"

namespace {

using namespace snug::testing_support;

void write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string every_type() {
  GgufWriter w(2);
  w.add_raw("u8", 0, std::uint8_t{1}), w.add_raw("i8", 1, std::int8_t{-1});
  w.add_raw("u16", 2, std::uint16_t{2}), w.add_raw("i16", 3, std::int16_t{-2});
  w.add_u32("u32", 3), w.add_raw("i32", 5, std::int32_t{-3});
  w.add_f32("f32", 1.5f), w.add_bool("bool", true), w.add_string("string", "text");
  w.add_raw("u64", 10, std::uint64_t{4}), w.add_raw("i64", 11, std::int64_t{-4}), w.add_raw("f64", 12, 2.5);
  w.add_numbers<std::uint8_t>("bytes", 0, {1, 2, 3}), w.add_numbers<float>("floats", 6, {1, 2});
  w.add_numbers<double>("doubles", 12, {1, 2}), w.add_numbers<std::uint8_t>("bools", 7, {0, 1});
  w.add_strings("strings", {"a", "", "c"});
  return w.bytes();
}

std::string sentencepiece() {
  GgufWriter w;
  std::vector<std::string> tokens{"<unk>", "<s>", "</s>"};
  std::vector<float> scores{0, 0, 0};
  std::vector<std::int32_t> kinds{2, 3, 3};
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(b));
    tokens.push_back(name), scores.push_back(0), kinds.push_back(6);
  }
  for (const char* t : {"\xE2\x96\x81", "h", "e", "l", "o", "he", "ll", "hell", "hello", "\xE2\x96\x81hello"})
    tokens.push_back(t), scores.push_back(-static_cast<float>(tokens.size())), kinds.push_back(1);
  w.add_string("general.architecture", "llama");
  w.add_string("tokenizer.ggml.model", "llama");
  w.add_strings("tokenizer.ggml.tokens", tokens);
  w.add_numbers("tokenizer.ggml.scores", 6, scores);
  w.add_numbers("tokenizer.ggml.token_type", 5, kinds);
  w.add_u32("tokenizer.ggml.bos_token_id", 1), w.add_u32("tokenizer.ggml.eos_token_id", 2);
  w.add_string("tokenizer.chat_template",
               "{% for m in messages %}{{ m['role'] | upper }}: {{ m.content.strip() }}{% endfor %}");
  return w.bytes();
}

void write_session(const std::string& path) {
  using namespace snug;
  Ledger ledger(Ledger::kUnlimited);
  ThreadPool pool(1);
  KvPools pools(ledger, kSeedShapes, seed_format());
  KvStore store(pools, 64);
  feed_store(store, pool, 0, kSeedTokens);
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i < kSeedTokens; ++i) tokens.push_back(static_cast<std::int32_t>(i));
  write_kv_file(path, kSeedModel, tokens, store, std::vector<std::byte>(kSeedRecurrent));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 1;
  const std::string folder = std::string(argv[1]) + "/";
  write(folder + "llama.gguf",
        tiny_model({.vocab = 262, .width = 16, .layers = 1, .heads = 1, .kv_heads = 1, .ffn = 16, .context = 8}));
  write(folder + "hybrid.gguf", tiny_model({.vocab = 262,
                                            .width = 16,
                                            .layers = 2,
                                            .heads = 1,
                                            .kv_heads = 1,
                                            .ffn = 16,
                                            .context = 8,
                                            .hybrid = true}));
  write(folder + "types-v2.gguf", every_type());
  write(folder + "sentencepiece.gguf", sentencepiece());
  write_session(std::string(argv[2]) + "/session.kv");
}
