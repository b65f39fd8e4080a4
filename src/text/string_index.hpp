#pragma once
/// A hash table from strings that live elsewhere to their index: one flat array, built in one pass.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace snug {

class StringIndex {
public:
  StringIndex() = default;
  /// `strings` must outlive the index and stay where it is. Of equal strings the first counts.
  explicit StringIndex(const std::vector<std::string>& strings) : strings_(&strings) {
    std::size_t size = 16;
    while (size < strings.size() * 2) size *= 2;
    slots_.assign(size, 0);
    for (std::size_t i = 0; i < strings.size(); ++i) {
      std::uint32_t& slot = slots_[locate(strings[i])];
      if (slot == 0) slot = static_cast<std::uint32_t>(i + 1);
    }
  }

  /// -1 when absent.
  std::int32_t find(std::string_view text) const {
    return slots_.empty() ? -1 : static_cast<std::int32_t>(slots_[locate(text)]) - 1;
  }
  std::size_t memory_bytes() const { return slots_.size() * sizeof(slots_[0]); }

private:
  std::size_t locate(std::string_view text) const {
    std::size_t at = std::hash<std::string_view>()(text) & (slots_.size() - 1);
    while (slots_[at] != 0 && (*strings_)[slots_[at] - 1] != text) at = (at + 1) & (slots_.size() - 1);
    return at;
  }
  const std::vector<std::string>* strings_ = nullptr;
  std::vector<std::uint32_t> slots_;
};

}  // namespace snug
