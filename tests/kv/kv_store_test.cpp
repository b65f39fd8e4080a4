// Pages of the KV store: windows give back, failed reservations leave nothing behind, everything is charged.

#include "kv/kv_store.hpp"

#include <gtest/gtest.h>

#include <set>

#include "base/error.hpp"

namespace snug {
namespace {

const KvShape kFull{2, 32, 32, 0}, kWindow{1, 32, 32, 128}, kNone{};

TEST(KvStoreTest, PagesGrowWithTheTokensAndAreCharged) {
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kFull, kNone, kWindow});
  {
    KvStore store(pools, 64);
    EXPECT_EQ(store.memory_bytes(), 0u);
    store.reserve(1);
    EXPECT_EQ(store.memory_bytes(), kFull.page_bytes() + kWindow.page_bytes());
    store.reserve(kPageTokens);
    EXPECT_EQ(store.memory_bytes(), kFull.page_bytes() + kWindow.page_bytes());
    store.reserve(kPageTokens + 1);
    EXPECT_EQ(store.memory_bytes(), 2 * (kFull.page_bytes() + kWindow.page_bytes()));
    EXPECT_GE(ledger.report().by_tag[static_cast<std::size_t>(Tag::kv)], store.memory_bytes());
  }
  EXPECT_EQ(ledger.report().used, 0u);
}

TEST(KvStoreTest, TilesAreDistinctAndPartsFindThem) {
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kFull, kWindow});
  KvStore store(pools, 64);
  const std::size_t tokens = 300, tiles = (tokens + kTileTokens - 1) / kTileTokens;
  store.reserve(tokens);
  std::set<const bf16_t*> seen;
  for (std::size_t head = 0; head < 2; ++head)
    for (std::size_t tile = 0; tile < tiles; ++tile) {
      KvStore::PartTiles part;
      const std::size_t count = store.part(0, head, tile / kPartTiles, tokens, part);
      ASSERT_LT(tile % kPartTiles, count);
      EXPECT_EQ(part.keys[tile % kPartTiles], store.key_tile(0, head, tile));
      EXPECT_EQ(part.values[tile % kPartTiles], store.value_tile(0, head, tile));
      EXPECT_TRUE(seen.insert(store.key_tile(0, head, tile)).second);
      EXPECT_TRUE(seen.insert(store.value_tile(0, head, tile)).second);
    }
}

TEST(KvStoreTest, WindowsGiveBackWhatIsBehindThem) {
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kWindow});
  KvStore store(pools, 64);
  for (std::size_t tokens = 1; tokens <= 4000; ++tokens) {
    store.reserve(tokens);
    store.trim(tokens);
    // The window, the slack, and the page that is not full yet at either end.
    ASSERT_LE(store.memory_bytes(), (128 + 64 + 2 * kPageTokens) / kPageTokens * kWindow.page_bytes());
  }
  EXPECT_EQ(store.oldest_restorable(4000), 4000u - 64);
  KvStore::PartTiles part;
  store.part(0, 0, 0, 4000, part);
  EXPECT_EQ(part.keys[0], nullptr);
  EXPECT_NE(store.key_tile(0, 0, (4000 - 128) / kTileTokens), nullptr);
}

TEST(KvStoreTest, AReservationThatDoesNotFitChangesNothing) {
  Ledger ledger(Bytes{4} << 20);
  KvPools pools(ledger, {kFull, kFull});
  KvStore store(pools, 64);
  store.reserve(100);
  const Bytes before = store.memory_bytes();
  EXPECT_THROW(store.reserve(1 << 20), OutOfBudget);
  EXPECT_EQ(store.memory_bytes(), before);
  store.reserve(200);
  EXPECT_GT(store.memory_bytes(), before);
}

TEST(KvStoreTest, FreedPagesServeAnotherSequence) {
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kFull});
  Bytes peak = 0;
  for (int round = 0; round < 5; ++round) {
    KvStore store(pools, 64);
    store.reserve(5000);
    if (round == 0) peak = ledger.report().peak;
  }
  EXPECT_EQ(ledger.report().peak, peak);
}

}  // namespace
}  // namespace snug
