#pragma once
/// A request on its way through the scheduler.

#include <set>

#include "generate/stop_filter.hpp"
#include "serve/scheduler.hpp"

namespace snug {

struct Scheduler::Job {
  Job(std::uint64_t number, ServeRequest r, Sink s)
      : id(number),
        request(std::move(r)),
        sink(std::move(s)),
        sampler(request.sampler),
        filter(request.stop),
        history(request.prompt) {
    if (request.kept) branches.insert(request.kept->begin(), request.kept->end());
  }

  std::uint64_t id;
  ServeRequest request;
  Sink sink;
  Sampler sampler;
  StreamDecoder decoder;
  StopFilter filter;
  std::vector<TokenId> history;        ///< the prompt and what was chosen
  std::unique_ptr<Sequence> sequence;  ///< holds the first of these; null: none
  std::shared_ptr<const KvTransfer> coming;
  std::shared_ptr<SharedFetch> fetch;  ///< it waits for what other replicas may have
  bool asked = false;                  ///< once is enough
  std::set<std::size_t> branches;      ///< lengths at which others leave it
  std::uint64_t place = 0;             ///< among those that wait
  std::size_t turn = 0;                ///< tokens since it was let in
  Time arrived = std::chrono::steady_clock::now();
  ServeEvent event;  ///< what comes next

  RequestStatus status(bool waits) const {
    const std::size_t prompt = request.prompt.size();
    const bool swapped = sequence && sequence->swapped();
    return {id, waits, swapped, prompt, std::min(prompt, fed()), generated(), sequence ? sequence->memory_bytes() : 0};
  }
  /// Tokens that the sequence holds.
  std::vector<TokenId> held() const { return {history.begin(), history.begin() + static_cast<std::ptrdiff_t>(fed())}; }
  std::size_t fed() const { return sequence ? sequence->length() : 0; }
  std::size_t left() const { return history.size() - fed(); }
  std::size_t generated() const { return history.size() - request.prompt.size(); }
};

}  // namespace snug
