// Responses are kept for who made them, within bounds.

#include "serve/response_store.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "support/fake_redis.hpp"

namespace snug {
namespace {

TEST(ResponseStoreTest, TheLastOnesAreKept) {
  ResponseStore store(3, kMiB);
  for (const char* id : {"a", "b", "c"}) store.put(id, "", std::string("said ") + id);
  EXPECT_EQ(store.get("a", ""), "said a");  // used last now
  store.put("d", "", "said d");
  EXPECT_EQ(store.get("b", ""), std::nullopt);
  EXPECT_EQ(store.get("a", ""), "said a");
  EXPECT_EQ(store.size(), 3u);
}

TEST(ResponseStoreTest, OnlyTheirOwnerGetsThem) {
  ResponseStore store;
  store.put("a", "key one", "secret");
  EXPECT_EQ(store.get("a", "key two"), std::nullopt);
  EXPECT_EQ(store.get("a", ""), std::nullopt);
  EXPECT_EQ(store.get("a", "key one"), "secret");
}

TEST(ResponseStoreTest, TheirBytesAreBounded) {
  ResponseStore store(1000, 100 * kKiB);
  for (int i = 0; i < 50; ++i) store.put(std::to_string(i), "", std::string(10 * kKiB, 'x'));
  EXPECT_EQ(store.size(), 9u);
  store.put("large", "", std::string(200 * kKiB, 'x'));
  EXPECT_EQ(store.get("large", ""), std::nullopt);
  EXPECT_EQ(store.size(), 9u);
}

TEST(ResponseStoreTest, OtherReplicasGoOnFromThem) {
  using namespace testing_support;
  FakeRedis redis;
  const auto store_on = [&redis] {
    auto store = std::make_unique<ResponseStore>();
    store->share(
        std::make_shared<SharedResponses>(std::make_unique<FakeLink>(redis), "snug", std::chrono::seconds(60)));
    return store;
  };
  const auto first = store_on(), second = store_on();
  first->put("a", "Bearer key", "said a");
  while (redis.keys("r").empty()) std::this_thread::yield();  // it is sent by the way
  EXPECT_EQ(second->get("a", "Bearer other"), std::nullopt);
  EXPECT_EQ(second->get("a", "Bearer key"), "said a");
  EXPECT_EQ(redis.values.begin()->second.find("Bearer"), std::string::npos) << "keys are not written";
  redis.values.clear();
  EXPECT_EQ(second->get("a", "Bearer key"), "said a") << "kept here, too, now";
  redis.answers = 0;
  EXPECT_EQ(second->get("b", "Bearer key"), std::nullopt);
}

}  // namespace
}  // namespace snug
