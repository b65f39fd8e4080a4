// Forks share pages until one of them writes; then only that page is copied.

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.hpp"
#include "kv/kv_store.hpp"
#include "support/feed_store.hpp"
#include "support/kv_learning.hpp"

namespace snug {
namespace {

using testing_support::format_of;

const KvShape kFull{2, 32, 32, 0}, kWindow{1, 32, 32, 128};

Bytes kv_used(const Ledger& ledger) {
  return ledger.report().by_tag[static_cast<std::size_t>(Tag::kv)];
}

void grow(KvStore& store, std::size_t tokens) {
  store.reserve(tokens);
  store.trim(tokens);
}

TEST(KvForkTest, NoPageIsCopiedUntilItIsWrittenTo) {
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kFull, kFull});
  KvStore store(pools, 64);
  grow(store, 4096 + 10);
  const Bytes before = kv_used(ledger);
  std::vector<std::unique_ptr<KvStore>> forks;
  for (int i = 0; i < 50; ++i) forks.push_back(store.fork());
  EXPECT_EQ(kv_used(ledger), before);
  for (std::size_t tile = 0; tile < 4096 / kTileTokens; ++tile)
    ASSERT_EQ(forks[0]->key_tile(1, 1, tile), store.key_tile(1, 1, tile));
  // Fifty pages of each layer, where copies of all would be 3250.
  for (auto& fork : forks) grow(*fork, 4096 + 11);
  EXPECT_LE(kv_used(ledger), before + 2 * 50 * kFull.page_bytes() + pools.slack_bytes());
  forks.clear();
  EXPECT_EQ(kv_used(ledger), before);
}

TEST(KvForkTest, WhatOneWritesTheOtherDoesNotSee) {
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kFull});
  auto store = std::make_unique<KvStore>(pools, 64);
  grow(*store, 70);
  bf16_t* tile = store->key_tile(0, 0, 4);
  std::fill_n(tile, kv_tile_values(32), bf16_t{1});
  const auto fork = store->fork();
  grow(*fork, 71);
  EXPECT_EQ(store->key_tile(0, 0, 4), tile);
  EXPECT_EQ(fork->key_tile(0, 0, 0), store->key_tile(0, 0, 0));
  bf16_t* copied = fork->key_tile(0, 0, 4);
  ASSERT_NE(copied, tile);
  EXPECT_EQ(copied[0], 1);
  copied[key_index(6, 0)] = 2;
  EXPECT_EQ(tile[key_index(6, 0)], 1);
  store.reset();
  EXPECT_EQ(fork->key_tile(0, 0, 0)[0], 0);
  grow(*fork, 72);
  EXPECT_EQ(fork->key_tile(0, 0, 4), copied);  // its own by now
}

TEST(KvForkTest, AReservationThatDoesNotFitChangesNothing) {
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kFull, kFull});
  KvStore store(pools, 64);
  grow(store, 100);
  const auto fork = store.fork();
  ledger.set_limit(ledger.report().used + (2 << 20));
  EXPECT_THROW(fork->reserve(1 << 16), OutOfBudget);
  EXPECT_EQ(fork->memory_bytes(), store.memory_bytes());
  EXPECT_EQ(fork->key_tile(0, 0, 5), store.key_tile(0, 0, 5));
  grow(*fork, 200);
  EXPECT_NE(fork->key_tile(0, 0, 5), store.key_tile(0, 0, 5));
}

TEST(KvForkTest, WindowsAndTruncationLeaveTheOtherAlone) {
  Ledger ledger(Ledger::kUnlimited);
  KvPools pools(ledger, {kFull, kWindow});
  KvStore store(pools, 64);
  grow(store, 1000);
  const auto fork = store.fork();
  grow(*fork, 2000);
  EXPECT_EQ(fork->key_tile(1, 0, 0), nullptr);
  EXPECT_NE(store.key_tile(1, 0, (1000 - 128) / kTileTokens), nullptr);
  fork->trim(64);
  grow(*fork, 65);
  grow(store, 1001);
  EXPECT_EQ(fork->key_tile(0, 0, 0), store.key_tile(0, 0, 0));
  EXPECT_NE(fork->key_tile(0, 0, 4), store.key_tile(0, 0, 4));
}

TEST(KvForkTest, CodedPagesAreSharedToo) {
  ThreadPool pool(1);
  for (const std::string& name : testing_support::kv_names()) {
    if (name == "bf16") continue;
    Ledger ledger(Ledger::kUnlimited);
    KvPools pools(ledger, {kFull, kWindow}, format_of(name, {kFull, kWindow}));
    KvStore store(pools, 64);
    testing_support::feed_store(store, pool, 0, 4096);
    const Bytes before = kv_used(ledger);
    std::vector<std::unique_ptr<KvStore>> forks;
    for (int i = 0; i < 20; ++i) {
      forks.push_back(store.fork());
      testing_support::feed_store(*forks.back(), pool, 4096, 4096 + 64);
    }
    // A page in bf16 and a coded one for each.
    const Bytes raw = pools.format().raw_page_bytes(kFull) + pools.format().raw_page_bytes(kWindow);
    Bytes each = raw + pools.format().page_bytes(0) + pools.format().page_bytes(1);
    // Each makes pages cold for itself.
    for (const std::size_t layer : {0, 1}) each += kColdStep / kPageTokens * pools.format().cold_bytes(layer);
    // Layers that are decoded one from the other need memory of each sequence's own for that.
    if (pools.format().chained()) each += KvFormat::coded_pages(4096 + 63) * raw;
    EXPECT_LE(kv_used(ledger), before + 20 * each + pools.slack_bytes()) << name;
    forks.clear();
    EXPECT_EQ(kv_used(ledger), before) << name;
  }
}

}  // namespace
}  // namespace snug
