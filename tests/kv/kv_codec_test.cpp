// Coded pages in the store: what is charged is what the codec says, what is coded is freed, and failures leave nothing.

#include "kv/kv_codec.hpp"

#include <gtest/gtest.h>

#include <random>

#include "base/error.hpp"
#include "kv/kv_store.hpp"
#include "support/kv_learning.hpp"

namespace snug {
namespace {

using testing_support::format_of;

const KvShape kShape{2, 64, 64, 0}, kWindow{1, 64, 32, 256};

/// Feeds `tokens` tokens in calls of `rows`, as a model does.
void feed(KvStore& store, ThreadPool& pool, std::size_t layers, std::size_t from, std::size_t tokens,
          std::size_t rows) {
  const KvFormat& format = store.format();
  for (std::size_t at = from, end; at < tokens; at = end) {
    end = std::min(tokens, at + std::min(rows, format.most_rows(at)));
    store.forget_codes(at);
    store.reserve(end);
    if (format.late()) store.encode_late(pool, format.coded_between_calls(end));
    for (std::size_t layer = 0; layer < layers && !format.late(); ++layer)
      store.encode(pool, layer, KvFormat::coded_pages(end - 1));
    store.trim(end);
  }
}

TEST(KvCodecTest, NamesAndPairsOfNames) {
  EXPECT_FALSE(parse_kv_choice("").coded());
  EXPECT_FALSE(parse_kv_choice("bf16").coded());
  for (const KvMethod& method : kv_methods()) EXPECT_EQ(parse_kv_choice(method.name).name(), method.name);
  EXPECT_EQ(parse_kv_choice("q8/kivi-2").name(), "q8/kivi-2");
  EXPECT_EQ(parse_kv_choice("bf16/q8").name(), "bf16/q8");
  EXPECT_THROW(parse_kv_choice("q9"), UsageError);
  EXPECT_THROW(parse_kv_choice("q8/"), UsageError);
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
  for (const KvMethod& method : kv_methods()) {
    if (method.name == "bf16") continue;
    Ledger ledger(Ledger::kUnlimited);
    KvPools pools(ledger, {kShape, kWindow}, format_of(method.name, {kShape, kWindow}));
    const Bytes tables = ledger.report().used;
    {
      KvStore store(pools, 64);
      feed(store, pool, 2, 0, 64 * 40, 100);
      const Bytes said = pools.bytes(64 * 40), held = store.memory_bytes();
      // A window keeps the slack behind it, and the page at either end whole.
      const Bytes slack = 4 * (pools.format().raw_page_bytes(kWindow) + pools.format().page_bytes(1));
      EXPECT_LE(said, held) << method.name;
      EXPECT_LE(held, said + slack) << method.name;
      EXPECT_LE(ledger.report().used, held + pools.slack_bytes());
      feed(store, pool, 2, 64 * 40, 64 * 40 + 1, 1);
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
  feed(store, pool, 1, 0, 1000, 512);
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
    store.encode(pool, 0, kFirstPages + 1);
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
