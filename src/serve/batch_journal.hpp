#pragma once
/// What a batch has answered so far, in OUT.part: a line for each result as it comes, so that a run that was killed
/// goes on from there. At the end results are written to OUT in the order of the input.

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/descriptor.hpp"
#include "base/file.hpp"

namespace snug {

class BatchJournal {
public:
  /// Throws IoError when it cannot be written, and Error when another process is at it.
  explicit BatchJournal(std::string out);

  /// `belongs`: names and values of what the results depend on. Reads what is there: a torn end is dropped, and results
  /// of a server's errors (status 500 and more) are asked for again. Throws Error when it is of something else.
  void begin(const nlohmann::ordered_json& belongs, std::size_t requests);
  bool has(std::size_t index) const { return places_[index].size > 0; }
  /// Requests that it has results of.
  std::size_t size() const { return size_; }

  /// One line of JSON; in the file after the next sync(). Status 0: no HTTP status.
  void add(std::size_t index, int status, const std::string& result);
  /// Throws IoError.
  void sync();
  /// REQUIRES: results of all requests. Writes OUT and removes the journal.
  void finish();

private:
  struct Place {
    Bytes offset = 0, size = 0;  ///< of the result in the file
  };
  void read();
  void sync_folder() const;
  void put(std::size_t index, Bytes offset, Bytes size);

  std::string out_, path_;
  Descriptor fd_;
  Bytes end_ = 0;  ///< of the file
  std::string fresh_;
  std::vector<Place> places_;
  std::size_t size_ = 0;
};

}  // namespace snug
