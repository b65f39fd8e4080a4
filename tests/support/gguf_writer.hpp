#pragma once
/// Builds small GGUF files in memory, and files that fail on purpose.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/file.hpp"
#include "kernels/dtype.hpp"

namespace snug::testing_support {

/// A file in memory; reads that reach `fail_from` fail as a broken disk would.
class MemoryFile final : public RandomAccessFile {
public:
  explicit MemoryFile(std::string bytes, Bytes fail_from = ~Bytes{0})
      : bytes_(std::move(bytes)), fail_from_(fail_from) {}
  Bytes size() const override { return bytes_.size(); }
  const std::string& path() const override { return path_; }
  void read(Bytes offset, std::span<std::byte> into) const override {
    if (offset > bytes_.size() || into.size() > bytes_.size() - offset) fail<IoError>("memory.gguf: read past the end");
    if (offset + into.size() > fail_from_) fail<IoError>("memory.gguf: read error");
    if (!into.empty()) std::memcpy(into.data(), bytes_.data() + offset, into.size());
  }

private:
  std::string bytes_, path_ = "memory.gguf";
  Bytes fail_from_;
};

class GgufWriter {
public:
  explicit GgufWriter(std::uint32_t version = 3) : version_(version) {}

  void add_u32(const std::string& key, std::uint32_t v) { begin(key, 4), number(metadata_, v); }
  void add_f32(const std::string& key, float v) { begin(key, 6), number(metadata_, v); }
  void add_bool(const std::string& key, bool v) { begin(key, 7), metadata_ += static_cast<char>(v); }
  void add_string(const std::string& key, const std::string& v) { begin(key, 8), string(metadata_, v); }
  void add_strings(const std::string& key, const std::vector<std::string>& values) {
    begin_array(key, 8, values.size());
    for (const std::string& v : values) string(metadata_, v);
  }
  template <class T>
  void add_numbers(const std::string& key, std::uint32_t type, const std::vector<T>& values) {
    begin_array(key, type, values.size());
    for (const T v : values) number(metadata_, v);
  }
  template <class T>
  void add_raw(const std::string& key, std::uint32_t type, T v) {
    begin(key, type), number(metadata_, v);
  }

  void add_tensor(const std::string& name, const std::vector<std::uint64_t>& shape, DType type,
                  const std::string& bytes) {
    string(tensors_, name);
    number(tensors_, static_cast<std::uint32_t>(shape.size()));
    for (const std::uint64_t n : shape) number(tensors_, n);
    number(tensors_, static_cast<std::uint32_t>(type));
    number(tensors_, static_cast<std::uint64_t>(data_.size()));
    data_ += bytes;
    data_.resize((data_.size() + 31) / 32 * 32);
    ++tensor_count_;
  }
  void add_tensor(const std::string& name, const std::vector<std::uint64_t>& shape, const std::vector<float>& values) {
    add_tensor(name, shape, DType::f32, {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)});
  }

  std::string bytes() const {
    std::string out = "GGUF";
    number(out, version_);
    number(out, tensor_count_);
    number(out, metadata_count_);
    out += metadata_ + tensors_;
    out.resize((out.size() + 31) / 32 * 32);
    return out + data_;
  }

private:
  template <class T>
  static void number(std::string& out, T v) {
    out.append(reinterpret_cast<const char*>(&v), sizeof(v));
  }
  static void string(std::string& out, const std::string& v) {
    number(out, static_cast<std::uint64_t>(v.size()));
    out += v;
  }
  void begin(const std::string& key, std::uint32_t type) {
    string(metadata_, key);
    number(metadata_, type);
    ++metadata_count_;
  }
  void begin_array(const std::string& key, std::uint32_t type, std::size_t count) {
    begin(key, 9);
    number(metadata_, type);
    number(metadata_, static_cast<std::uint64_t>(count));
  }

  std::uint32_t version_;
  std::uint64_t tensor_count_ = 0, metadata_count_ = 0;
  std::string metadata_, tensors_, data_;
};

}  // namespace snug::testing_support
