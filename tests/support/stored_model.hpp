#pragma once
/// A model file on the disk, for what lies beside it.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <span>
#include <string>

#include "base/file.hpp"

namespace snug::testing_support {

/// In a folder of its own.
class StoredModel {
public:
  explicit StoredModel(const std::string& bytes) : folder_(testing::TempDir() + "/snug-" + std::to_string(getpid())) {
    std::filesystem::create_directories(folder_);
    write_atomically(path(), [&](const auto& append) { append(std::as_bytes(std::span(bytes))); });
  }
  ~StoredModel() { std::filesystem::remove_all(folder_); }

  std::string path() const { return folder_ + "/tiny.gguf"; }

private:
  std::string folder_;
};

}  // namespace snug::testing_support
