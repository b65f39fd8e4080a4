// Coded pages in the store: what is charged is what the codec says, what is coded is freed, and failures leave nothing.

#include "kv/kv_codec.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/error.hpp"
#include "kv/kv_store.hpp"
#include "support/feed_store.hpp"
#include "support/kv_learning.hpp"

namespace snug {
namespace {

using testing_support::feed_store;
using testing_support::format_of;

const KvShape kShape{2, 64, 64, 0}, kWindow{1, 64, 32, 256};

TEST(KvCodecTest, NamesAndPairsOfNames) {
  EXPECT_FALSE(parse_kv_choice("").coded());
  EXPECT_FALSE(parse_kv_choice("bf16").coded());
  for (const KvMethod& method : kv_methods()) EXPECT_EQ(parse_kv_choice(method.name).name(), method.name);
  EXPECT_EQ(parse_kv_choice("q8/kivi-2").name(), "q8/kivi-2");
  EXPECT_EQ(parse_kv_choice("bf16/q8").name(), "bf16/q8");
  EXPECT_THROW(parse_kv_choice("q9"), UsageError);
  EXPECT_THROW(parse_kv_choice("q8/"), UsageError);
}

TEST(KvCodecTest, LayersAndAges) {
  for (const char* name : {"q8,kivi-2/q4:3", "bf16,q8:0-3,q4:7", "q8,cq-1@4096", "q8,bf16:0,gear-2:2-9,kivi-2/q4@256"})
    EXPECT_EQ(parse_kv_choice(name).name(), name);
  for (const char* name :
       {"q8,", ",q8", "q8,q4", "q8,q4:", "q8,q4:x", "q8,q4:3-1", "q8,q4:-3", "q8,q4:1-2-3", "q8,q9:1", "q8,q4@",
        "q8,q4@255", "q8,q4@1k", "q8,q4@512,kivi-2@1024", "q8,q4@99999999999999999999"})
    EXPECT_THROW(parse_kv_choice(name), UsageError) << name;
  const auto format = [](const char* name) { return format_of(name, {kShape, kShape, kShape}); };
  EXPECT_THROW(format("q8,q4:2-3"), UsageError);
  EXPECT_THROW(format("q8,minicache:1"), UsageError);
  EXPECT_THROW(format("aqua-2,q8:1"), UsageError);
  EXPECT_THROW(format("q8,aqua-2@512"), UsageError);
  EXPECT_THROW(format("q8,think-40@512"), UsageError);
  const KvFormat mixed = format("kivi-2,q8:1,cq-1@512");
  EXPECT_EQ(mixed.name, "kivi-2,q8:1,cq-1@512");
  EXPECT_EQ(mixed.page_bytes(0), format("kivi-2").page_bytes(0));
  EXPECT_EQ(mixed.page_bytes(1), format("q8").page_bytes(1));
  EXPECT_EQ(mixed.cold_bytes(1), format("cq-1").page_bytes(1));
}

TEST(KvCodecTest, PagesBecomeColdAtStepsAndCannotGoBackBeyondThem) {
  ThreadPool pool(2);
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kShape}, format_of("q8,kivi-2@600", {kShape}));
  const KvFormat& format = pools.format();
  EXPECT_EQ(format.cold_pages(1023), 0u);
  EXPECT_EQ(format.cold_pages(1024), 6u);
  EXPECT_EQ(format.cold_pages(1535), 6u);
  EXPECT_EQ(format.cold_since(6), 1024u);
  EXPECT_EQ(format.most_rows(1000), 24u);
  KvStore store(pools, 64);
  const auto cold = [&] { return store.held(0).cold_pages(); };
  feed_store(store, pool, 0, 1024);
  EXPECT_EQ(cold(), 0u);
  EXPECT_EQ(store.oldest_restorable(1024), (13 + kRecentPages) * kPageTokens);
  feed_store(store, pool, 1024, 1060);
  EXPECT_EQ(cold(), 6 - kFirstPages);
  EXPECT_EQ(store.held(0).coded_begin, 6u);
  EXPECT_EQ(store.oldest_restorable(1060), 1024u);
}

TEST(KvCodecTest, BitsAreThoseOfTheName) {
  const auto bits = [](const char* name, KvSide side) {
    const KvFormat format = format_of(name, {kShape});
    return 8.0 * static_cast<double>((side == KvSide::keys ? format.keys : format.values)->page_bytes(0)) /
           (kShape.kv_heads * 64 * 64);
  };
  for (const KvSide side : {KvSide::keys, KvSide::values}) {
    EXPECT_EQ(bits("q8", side), 8.5);
    EXPECT_EQ(bits("q4", side), 4.5);
    EXPECT_EQ(bits("kivi-4", side), 5.0);
    EXPECT_EQ(bits("kivi-2", side), 3.0);
  }
}

TEST(KvCodecTest, MemoryFollowsTheCodec) {
  ThreadPool pool(2);
  for (const std::string& name : testing_support::kv_names()) {
    if (name == "bf16") continue;
    Ledger ledger(Ledger::kUnlimited);
    KvPools pools(ledger, {kShape, kWindow}, format_of(name, {kShape, kWindow}));
    const Bytes tables = ledger.report().used;
    {
      KvStore store(pools, 64);
      feed_store(store, pool, 0, 64 * 40, 100);
      const Bytes said = pools.bytes(64 * 40), held = store.memory_bytes();
      // A window keeps the slack behind it, and the page at either end whole.
      const Bytes slack = 4 * (pools.format().raw_page_bytes(kWindow) + pools.format().page_bytes(1));
      EXPECT_LE(said, held) << name;
      EXPECT_LE(held, said + slack) << name;
      EXPECT_LE(ledger.report().used, held + pools.slack_bytes());
      feed_store(store, pool, 64 * 40, 64 * 40 + 1, 1);
      store.trim(100);
      EXPECT_LE(store.memory_bytes(), 2 * pools.format().raw_page_bytes(kShape) + slack);
    }
    EXPECT_EQ(ledger.report().used, tables);
  }
}

TEST(KvCodecTest, RowsMayBeTakenBackByAPage) {
  ThreadPool pool(1);
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kShape}, format_of("q8", {kShape}));
  KvStore store(pools, 64);
  feed_store(store, pool, 0, 1000, 512);
  const std::size_t oldest = store.oldest_restorable(1000);
  EXPECT_LE(oldest, 1000u - kPageTokens);
  store.trim(oldest);
  // All that rows from there on see in bf16 is there.
  for (std::size_t page = KvFormat::coded_pages(oldest); page * kPageTokens < oldest; ++page)
    EXPECT_NE(store.key_tile(0, 0, page * kPageTiles), nullptr) << page;
}

TEST(KvCodecTest, WhatAFailedCallCodedIsCodedAgain) {
  ThreadPool pool(1);
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kShape}, format_of("bf16/q8", {kShape}));
  KvStore store(pools, 64);
  std::vector<bf16_t> memory(2 * kPartTokens * 64);
  const auto decoded = [&](bf16_t value) {
    for (std::size_t tile = 0; tile < kPageTiles; ++tile)
      std::fill_n(store.key_tile(0, 0, kFirstPages * kPageTiles + tile), kv_tile_values(64), value);
    store.prepare(pool, 0, kFirstPages + 1);
    KvStore::PartTiles tiles;
    store.part(0, 0, 0, 256, tiles);
    store.coded_part(0, 0, 0, kFirstPages + 1, {memory.data(), nullptr, true}, tiles);
    EXPECT_EQ(tiles.coded_values, 1u << kFirstPages);
    return tiles.keys[kFirstPages * kPageTiles][0];
  };
  constexpr bf16_t kOne = 0x3f80, kTwo = 0x4000;
  store.reserve(320);
  EXPECT_EQ(decoded(kOne), kOne);
  store.forget_codes(0);  // the call had failed
  store.reserve(320);
  EXPECT_EQ(decoded(kTwo), kTwo);
}

}  // namespace
}  // namespace snug
