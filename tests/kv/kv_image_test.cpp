// A sequence in parts: the bytes of a saved session, cut so that those who begin alike have the same parts.

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "kv/kv_file.hpp"
#include "support/feed_store.hpp"
#include "support/kv_seed.hpp"
#include "support/temporary_folder.hpp"

namespace snug {
namespace {

using namespace testing_support;

std::string bytes_of(const KvImage::Part& part) {
  std::string bytes;
  for (const auto& piece : part) bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  return bytes;
}

std::vector<std::int32_t> tokens_of(std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = static_cast<std::int32_t>(i);
  return tokens;
}

/// Layers whose pages are smaller and larger than a part, one with a window and one without any.
KvFormat format_of(const std::string& name, std::vector<KvShape>& shapes) {
  auto model = std::make_shared<KvModel>();
  shapes = {{8, 128, 128, 0}, {}, {2, 16, 32, 0}, {1, 16, 16, 64}};
  model->shapes = shapes;
  model->ropes.resize(shapes.size());
  return make_kv_format(parse_kv_choice(name), model);
}

class KvImageTest : public ::testing::TestWithParam<std::string> {
protected:
  KvImageTest() : pool(1), pools(ledger, (format = format_of(GetParam(), shapes), shapes), std::move(format)) {}
  std::unique_ptr<KvStore> store_of(std::size_t tokens) {
    auto store = std::make_unique<KvStore>(pools, 64);
    feed_store(*store, pool, 0, tokens);
    for (std::size_t layer = 0; layer < shapes.size(); ++layer) {
      std::size_t number = 0;
      store->each_page(layer, [&](std::span<std::byte> page) {
        for (std::size_t i = 0; i < page.size(); ++i)
          page[i] = static_cast<std::byte>((number * 31 + layer * 7 + i * i) % 251);
        ++number;
      });
    }
    return store;
  }
  Ledger ledger{Ledger::kUnlimited};
  ThreadPool pool;
  std::vector<KvShape> shapes;
  KvFormat format;
  KvPools pools;
};

TEST_P(KvImageTest, HasTheBytesOfTheFile) {
  const TemporaryFolder folder;
  const auto tokens = tokens_of(700);
  const auto store = store_of(tokens.size());
  const std::vector<std::byte> recurrent(300'000, std::byte{5});
  KvImage image(7, tokens, *store, recurrent);
  std::size_t times = 1;
  while (image.prepare(100'000)) ++times;
  EXPECT_GT(times, 10u);
  std::string all;
  for (const KvImage::Part& part : image.parts()) {
    const std::string bytes = bytes_of(part);
    EXPECT_LE(bytes.size(), kKvPartBytes);
    EXPECT_FALSE(bytes.empty());
    all += bytes;
  }
  const std::string path = folder.file("session.kv");
  write_kv_file(path, 7, tokens, *store, recurrent);
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(all == std::string(std::istreambuf_iterator<char>(in), {}));
  EXPECT_EQ(image.bytes(), all.size());

  // And back.
  const KvFile file = KvFile::open(path);
  KvStore other(pools, 64);
  std::vector<std::byte> state(recurrent.size());
  std::size_t at = image.head_bytes();
  for (const std::span<std::byte> page : file.prepare(7, other, state)) {
    ASSERT_LE(at + page.size(), all.size());
    std::memcpy(page.data(), all.data() + at, page.size());
    at += page.size();
  }
  EXPECT_EQ(at, all.size());
  EXPECT_EQ(state, recurrent);
}

TEST_P(KvImageTest, WhoBeginsAlikeHasTheSameParts) {
  const auto store = store_of(1100);
  KvImage image(7, tokens_of(1100), *store, {});
  // The same pages, and more of them.
  const auto longer = store->fork();
  feed_store(*longer, pool, 1100, 1500);
  KvImage more(7, tokens_of(1500), *longer, {});
  while (image.prepare(kMiB)) {
  }
  while (more.prepare(kMiB)) {
  }
  std::set<std::string> there;
  for (const auto& part : more.parts()) there.insert(bytes_of(part));
  std::size_t shared = 0;
  for (const auto& part : image.parts()) shared += there.contains(bytes_of(part));
  // Of the first layer's 17 whole pages two parts each, but for those that are coded or given back meanwhile.
  EXPECT_GE(shared, GetParam() == "bf16" ? 34u : 4u);
}

INSTANTIATE_TEST_SUITE_P(Kv, KvImageTest, ::testing::Values("bf16", "q8,q4@256"),
                         [](const auto& info) { return std::string(info.param == "bf16" ? "bf16" : "coded"); });

}  // namespace
}  // namespace snug
