#pragma once
/// Text files of one record a line, in pieces, however long they are.

#include <functional>
#include <string>

#include "base/file.hpp"

namespace snug {

struct Line {
  Bytes offset = 0;
  Bytes size = 0;      ///< without the end of the line
  std::string text;    ///< at most as much as was asked for
  bool ended = false;  ///< the last one may lack its "\n"
};

/// Calls f(line) with each line; `most`: bytes of text. An f that returns false ends it.
void for_each_line(const RandomAccessFile& file, std::size_t most, const std::function<bool(const Line&)>& f);

}  // namespace snug
