// Saved sessions go on to the bit in another process (here: another model object); what does not fit is refused.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_session.hpp"

namespace snug {
namespace {

using namespace testing_support;

struct SavedEngine : TinyEngine {
  explicit SavedEngine(std::string_view kv = "", bool hybrid = false, std::size_t max_rows = 64)
      : TinyEngine({.context = 1024, .hybrid = hybrid}, {.max_rows = max_rows, .context = 1024}, 2, kv) {}
};

std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(SavedSessionTest, GoesOnToTheBit) {
  const TemporaryFolder folder;
  const std::string path = folder.file("session.kv");
  for (const bool hybrid : {false, true})
    for (const std::string& name : kv_names())
      for (const int length : {100, 300, 448, 512, 600}) {
        SCOPED_TRACE(fmt::format("{}, hybrid {}, {} tokens", name, hybrid, length));
        const auto begin = some_tokens(length), all = some_tokens(length + 90);
        std::uint64_t expected = 0;
        {
          SavedEngine engine(name, hybrid);
          Session session(engine.model, 1024, greedy());
          session.prompt(begin);
          session.save(path);
          expected = go_on(session, all, 30);
        }
        SavedEngine engine(name, hybrid, 48);
        Session session(engine.model, 1024, greedy());
        session.load(path);
        EXPECT_EQ(session.length(), begin.size());
        EXPECT_EQ(go_on(session, all, 30), expected);
        EXPECT_EQ(session.stats().prompt_tokens, 90u);
      }
}

TEST(SavedSessionTest, OthersAreRefused) {
  const TemporaryFolder folder;
  const std::string path = folder.file("session.kv");
  {
    SavedEngine engine("q8");
    Session session(engine.model, 1024, greedy());
    session.prompt(some_tokens(300));
    session.save(path);
  }
  const auto error = [&](SavedEngine& engine, std::size_t context) -> std::string {
    Session session(engine.model, context, greedy());
    session.prompt(some_tokens(5));
    try {
      session.load(path);
    } catch (const Error& e) {
      EXPECT_EQ(session.length(), 5u);
      return e.what();
    }
    return "";
  };
  SavedEngine same("q8"), other_codec("q4"), other_model("q8", true);
  EXPECT_EQ(error(same, 1024), "");
  EXPECT_NE(error(same, 200).find("do not fit"), std::string::npos);
  EXPECT_NE(error(other_codec, 1024).find("--kv q8, not q4"), std::string::npos);
  EXPECT_NE(error(other_model, 1024).find("another model"), std::string::npos);
  const std::string sound = read_bytes(path);
  for (const std::size_t at : {0u, 9u, 30u, 70u, 130u, 200u, 500u, 2000u, 9000u, 20000u}) {
    std::string bad = sound;
    bad.at(at) = static_cast<char>(bad.at(at) ^ 0x10);
    folder.write("session.kv", bad);
    // Bytes between the table and the first page are nobody's.
    if (const std::string message = error(same, 1024); message.empty())
      EXPECT_EQ(sound[at], 0) << at;
    else
      EXPECT_NE(message.find("session.kv"), std::string::npos) << message;
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{100}, sound.size() / 2, sound.size() - 1}) {
    folder.write("session.kv", sound.substr(0, size));
    EXPECT_NE(error(same, 1024), "") << size;
  }
  folder.write("session.kv", sound);
  EXPECT_EQ(error(same, 1024), "");
}

TEST(SavedSessionTest, TakesAsMuchMemoryAsTheOneThatWasSaved) {
  const TemporaryFolder folder;
  const std::string path = folder.file("session.kv");
  SavedEngine engine("kivi-2");
  const auto sequence = engine.model.new_sequence(1024);
  std::vector<float> logits(engine.model.config().vocab_size);
  const auto tokens = some_tokens(500);
  for (const TokenId token : tokens) {
    const Row row{token, sequence.get(), false};
    engine.model.forward({&row, 1}, logits);
  }
  engine.model.save(*sequence, tokens, path);
  std::vector<TokenId> loaded;
  EXPECT_EQ(engine.model.load_sequence(path, 1024, loaded)->memory_bytes(), sequence->memory_bytes());
  EXPECT_EQ(loaded, tokens);
}

}  // namespace
}  // namespace snug
