#pragma once
/// Strings that end an answer, found in text that comes piece by piece.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace snug {

/// Holds back text that could be the beginning of a stop string.
class StopFilter {
public:
  explicit StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  /// Text that may be given out; `stopped` once a stop string is complete.
  std::string push(std::string_view text) {
    pending_ += text;
    for (const std::string& stop : stops_)
      if (const auto at = pending_.find(stop); !stop.empty() && at != std::string::npos) {
        stopped = true;
        found = stop;
        pending_.resize(at);
      }
    std::size_t keep = 0;
    if (!stopped)
      for (const std::string& stop : stops_)
        for (std::size_t n = std::min(stop.size(), pending_.size()); n > keep; --n)
          if (std::string_view(pending_).substr(pending_.size() - n) == std::string_view(stop).substr(0, n)) keep = n;
    std::string out = pending_.substr(0, pending_.size() - keep);
    pending_.erase(0, pending_.size() - keep);
    return out;
  }
  std::string finish() { return std::exchange(pending_, {}); }
  bool stopped = false;
  std::string found;  ///< the stop string

private:
  std::vector<std::string> stops_;
  std::string pending_;
};

}  // namespace snug
