#include "serve/batch_journal.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "base/error.hpp"
#include "support/temporary_folder.hpp"

namespace snug {
namespace {

using testing_support::TemporaryFolder;

class BatchJournalTest : public ::testing::Test {
protected:
  BatchJournal& open(const nlohmann::ordered_json& belongs = {{"input", "x"}}) {
    journal_.reset();
    journal_.emplace(out_);
    journal_->begin(belongs, 4);
    return *journal_;
  }
  void close() { journal_.reset(); }

  TemporaryFolder folder_;
  std::string out_ = folder_.file("out.jsonl"), part_ = out_ + ".part";
  std::optional<BatchJournal> journal_;
};

TEST_F(BatchJournalTest, ResultsAreInOrderAndTheJournalGoes) {
  BatchJournal& journal = open();
  for (const std::size_t i : {2u, 0u, 3u}) journal.add(i, 200, "result " + std::to_string(i));
  journal.sync();
  BatchJournal& again = open();
  EXPECT_EQ(again.size(), 3u);
  EXPECT_FALSE(again.has(1));
  again.add(1, 0, "result 1");
  again.finish();
  EXPECT_EQ(read_text_file(out_), "result 0\nresult 1\nresult 2\nresult 3\n");
  EXPECT_FALSE(std::filesystem::exists(part_));
}

TEST_F(BatchJournalTest, ErrorsOfTheServerAreAskedAgain) {
  BatchJournal& journal = open();
  journal.add(0, 503, "no memory"), journal.add(1, 400, "wrong"), journal.add(2, 500, "?");
  journal.sync();
  BatchJournal& again = open();
  EXPECT_FALSE(again.has(0));
  EXPECT_TRUE(again.has(1));
  for (const std::size_t i : {0u, 2u, 3u}) again.add(i, 200, "well");
  again.finish();
  EXPECT_EQ(read_text_file(out_), "well\nwrong\nwell\nwell\n");
}

TEST_F(BatchJournalTest, WhatIsTornOrDamagedIsDropped) {
  open().add(0, 200, "first");
  journal_->sync();
  const auto one = std::filesystem::file_size(part_);
  journal_->add(1, 200, "second"), journal_->add(2, 200, "third");
  journal_->sync();
  close();
  const std::string sound = read_text_file(part_);
  for (auto size = one; size < sound.size(); ++size) {
    std::ofstream(part_, std::ios::trunc) << sound.substr(0, size);
    const std::size_t whole = sound.find('\n', one) < size ? 2 : 1;
    EXPECT_EQ(open().size(), whole) << size;
    journal_->add(3, 200, "fourth");
    journal_->sync();
    EXPECT_EQ(open().size(), whole + 1) << size;  // written where the torn line was
    EXPECT_TRUE(journal_->has(0) && journal_->has(3));
    close();
  }
  for (auto at = one; at < sound.size(); ++at) {
    std::string damaged = sound;
    damaged[at] ^= 0x15;
    std::ofstream(part_, std::ios::trunc) << damaged;
    EXPECT_LT(open().size(), 3u) << at;
    EXPECT_TRUE(journal_->has(0));
    close();
  }
  // Not even its first line came whole.
  std::ofstream(part_, std::ios::trunc) << sound.substr(0, 20);
  EXPECT_EQ(open().size(), 0u);
}

TEST_F(BatchJournalTest, OfSomethingElse) {
  open();
  close();
  EXPECT_THROW(open({{"input", "y"}}), Error);
  EXPECT_THROW(BatchJournal{out_}, Error);  // one at a time
  close();
  for (const char* text : {"{\"snug_batch\": \"x\"}\n", "notes\n", "notes"}) {
    std::ofstream(part_, std::ios::trunc) << text;
    EXPECT_THROW(open(), Error);
    close();
    EXPECT_EQ(read_text_file(part_), text);
  }
}

}  // namespace
}  // namespace snug
