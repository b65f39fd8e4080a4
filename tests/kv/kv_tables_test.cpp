// What codecs learned comes back as it was written; anything else is refused with a reason.

#include "kv/kv_tables.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "support/temporary_folder.hpp"

namespace snug {
namespace {

using testing_support::TemporaryFolder;

KvModel model_at(const TemporaryFolder& folder, std::uint64_t fingerprint = 7) {
  return {.shapes = {}, .ropes = {}, .path = folder.file("m.gguf"), .fingerprint = fingerprint};
}

KvTables some_tables() {
  KvTables tables;
  tables.add(0, "key.centroids", {1, 2, 3});
  tables.add(3, "value.centroids", {4});
  tables.add(3, "value.nothing", {});
  return tables;
}

TEST(KvTablesTest, ComeBackAsWritten) {
  const TemporaryFolder folder;
  const KvModel model = model_at(folder);
  some_tables().write(kv_tables_path(model, "cq-2"), 7);
  const KvTables tables = read_kv_tables(model, "cq-2");
  EXPECT_EQ(tables.get(0, "key.centroids", 3)[2], 3);
  EXPECT_EQ(tables.get(3, "value.centroids", 1)[0], 4);
  EXPECT_TRUE(tables.find(1, "key.centroids").empty());
  EXPECT_EQ(tables.bytes(), 16u);
  EXPECT_THROW(tables.get(0, "key.centroids", 4), FormatError);
  EXPECT_THROW(tables.get(1, "key.centroids", 3), FormatError);
}

TEST(KvTablesTest, ValuesThatAreNotNumbersAreRefused) {
  KvTables tables;
  tables.add(0, "key.centroids", {1, NAN});
  EXPECT_THROW(tables.get(0, "key.centroids", 2), FormatError);
}

TEST(KvTablesTest, AMissingFileSaysWhatMakesIt) {
  const TemporaryFolder folder;
  try {
    read_kv_tables(model_at(folder), "cq-2");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.what(),
              folder.file("m.gguf.kv-cq-2") + " is missing: snug calibrate MODEL --text FILE --kv cq-2 makes it");
  }
}

TEST(KvTablesTest, AnotherModelsAreRefused) {
  const TemporaryFolder folder;
  some_tables().write(folder.file("m.gguf.kv-x"), 7);
  EXPECT_THROW(read_kv_tables(model_at(folder, 8), "x"), FormatError);
}

TEST(KvTablesTest, EveryDamageIsFound) {
  const TemporaryFolder folder;
  const std::string path = folder.file("m.gguf.kv-x");
  some_tables().write(path, 7);
  const std::string sound = read_text_file(path);
  for (std::size_t i = 0; i < sound.size(); ++i) {
    folder.write("m.gguf.kv-x", sound.substr(0, i));
    EXPECT_THROW(read_kv_tables(model_at(folder), "x"), FormatError) << "cut at " << i;
    for (const int bit : {1, 0x80}) {
      std::string bytes = sound;
      bytes[i] = static_cast<char>(bytes[i] ^ bit);
      folder.write("m.gguf.kv-x", bytes);
      EXPECT_THROW(read_kv_tables(model_at(folder), "x"), FormatError) << "byte " << i;
    }
  }
}

}  // namespace
}  // namespace snug
