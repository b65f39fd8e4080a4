// Entries in Redis: found by what prompts begin with, parts stored once, and nothing that is damaged or gone is served.

#include "serve/shared_entries.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "support/fake_redis.hpp"

namespace snug {
namespace {

using namespace testing_support;

std::vector<TokenId> tokens_of(int count, int from = 0) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(from + i);
  return tokens;
}

class SharedEntriesTest : public ::testing::Test {
protected:
  static constexpr std::size_t kAny = 100000;

  SharedEntries::Name publish(const std::vector<TokenId>& tokens, const std::vector<std::string>& parts,
                              bool exact = false) {
    SharedEntries::Manifest manifest{0, 1, {}};
    for (const std::string& part : parts) {
      manifest.parts.push_back(SharedEntries::name_of({std::as_bytes(std::span(part))}));
      manifest.bytes += part.size();
    }
    entries.write(manifest.parts, parts);
    entries.publish(manifest, tokens, exact);
    const auto found = entries.find(tokens, 1, kAny);
    return found ? found->manifest : SharedEntries::Name();
  }

  FakeRedis redis;
  FakeLink link{redis};
  SharedEntries entries{link, SharedLimits{.most = 10 * kKvPartBytes}, 7};
};

TEST_F(SharedEntriesTest, ThePromptThatSharesMostFindsIt) {
  publish(tokens_of(200), {"short"});
  publish(tokens_of(500), {"long"});
  const auto shared = [&](const std::vector<TokenId>& prompt, std::size_t least = 1) {
    const auto found = entries.find(prompt, least, kAny);
    return found ? std::pair(found->shared, found->tokens) : std::pair<std::size_t, std::size_t>();
  };
  using Pair = std::pair<std::size_t, std::size_t>;
  EXPECT_EQ(shared(tokens_of(600)), Pair(500, 500));  // all of it, to the token
  EXPECT_EQ(shared(tokens_of(450)), Pair(448, 500));  // by blocks of 64
  EXPECT_EQ(shared(tokens_of(205)), Pair(200, 200));  // the shorter one comes sooner
  std::vector<TokenId> other = tokens_of(600);
  other[130] = 9999;
  EXPECT_EQ(shared(other), Pair(128, 200));
  other[3] = 9999;
  EXPECT_EQ(shared(other), Pair());
  EXPECT_EQ(shared(tokens_of(600), 501), Pair());
  EXPECT_EQ(shared(tokens_of(63)), Pair());
  EXPECT_EQ(entries.find(tokens_of(600), 1, 300)->tokens, 200u);  // longer ones fit into no context here
  SharedEntries another(link, {}, 8);
  EXPECT_FALSE(another.find(tokens_of(600), 1, kAny)) << "of another model";
}

TEST_F(SharedEntriesTest, WhatCannotGoBackIsFoundWholeOnly) {
  publish(tokens_of(200), {"state"}, true);
  EXPECT_EQ(entries.find(tokens_of(300), 1, kAny)->shared, 200u);
  EXPECT_EQ(entries.find(tokens_of(200), 1, kAny)->shared, 200u);
  EXPECT_FALSE(entries.find(tokens_of(199), 1, kAny));
  std::vector<TokenId> other = tokens_of(300);
  other[195] = 9999;
  EXPECT_FALSE(entries.find(other, 1, kAny));
}

TEST_F(SharedEntriesTest, PartsAreReadInOrderAndDamageIsSeen) {
  std::vector<std::string> parts;
  for (int i = 0; i < 9; ++i) parts.push_back("part " + std::to_string(i));
  publish(tokens_of(100), parts);
  const auto found = entries.find(tokens_of(100), 1, kAny);
  const auto manifest = entries.manifest(*found);
  std::vector<std::string> read = entries.read(*manifest, 0);
  EXPECT_EQ(read.size(), SharedEntries::kTogether);
  read.push_back(entries.read(*manifest, SharedEntries::kTogether).at(0));
  EXPECT_EQ(read, parts);
  EXPECT_TRUE(entries.refresh(*found, *manifest));

  for (auto& [key, value] : redis.values)
    if (value == "part 3") value[0] = 'P';
  EXPECT_THROW(entries.read(*manifest, 0), FormatError);
  EXPECT_TRUE(redis.keys("p").empty()) << "nobody shall take the others for good";
  EXPECT_THROW(entries.read(*manifest, 0), FormatError) << "they are gone now";
  EXPECT_FALSE(entries.refresh(*found, *manifest));

  publish(tokens_of(100), parts);
  redis.values.erase(redis.keys("p").front());
  EXPECT_FALSE(entries.refresh(*found, *manifest));
  const std::vector<bool> missing = entries.missing(manifest->parts);
  EXPECT_EQ(std::count(missing.begin(), missing.end(), true), 1);
}

TEST_F(SharedEntriesTest, AManifestOrIndexThatIsNoneIsForgotten) {
  for (const bool gone : {true, false}) {
    publish(tokens_of(200), {"a", "b"});
    const auto found = entries.find(tokens_of(200), 1, kAny);
    ASSERT_TRUE(found);
    for (const std::string& key : redis.keys("m"))
      if (gone)
        redis.values.erase(key);
      else
        redis.values[key] += 'x';
    EXPECT_FALSE(entries.manifest(*found));
    EXPECT_FALSE(entries.find(tokens_of(200), 1, kAny));
    EXPECT_TRUE(redis.keys("i").empty());
  }
  publish(tokens_of(200), {"a"});
  for (const std::string& key : redis.keys("i")) redis.values[key] = "nonsense";
  EXPECT_FALSE(entries.find(tokens_of(200), 1, kAny));
}

TEST_F(SharedEntriesTest, TheOldestMakeRoom) {
  publish(tokens_of(100), {"a", "b", "c"});  // and a manifest
  publish(tokens_of(100, 1000), {"d", "e"});
  for (auto& [name, when] : redis.used) when -= 1000;  // before what follows, but not expired
  publish(tokens_of(100, 2000), {"f"});
  EXPECT_EQ(redis.used.size(), 9u);
  EXPECT_TRUE(entries.make_room(1));
  EXPECT_EQ(redis.used.size(), 9u) << "ten fit";
  EXPECT_TRUE(entries.make_room(8));
  EXPECT_EQ(redis.used.size(), 2u);
  EXPECT_EQ(redis.keys("p").size(), 1u);
  EXPECT_EQ(redis.keys("m").size(), 1u);
  EXPECT_TRUE(entries.manifest(*entries.find(tokens_of(100, 2000), 1, kAny)));
  EXPECT_FALSE(entries.make_room(11)) << "more than there may ever be";
  EXPECT_EQ(redis.used.size(), 2u);
}

TEST_F(SharedEntriesTest, ARedisThatSaysNoIsAnError) {
  redis.answers = 0;
  EXPECT_THROW(entries.find(tokens_of(100), 1, kAny), RedisError);
  EXPECT_THROW(entries.check(), RedisError);
}

}  // namespace
}  // namespace snug
