#pragma once
/// Texts as vectors: the mean of what the model's last layer says of each token, of length 1.

#include <atomic>
#include <functional>

#include "serve/scheduler_task.hpp"

namespace snug {

class EmbeddingTask final : public SchedulerTask {
public:
  /// Vectors of config().width values, one for each input; or why there are none. Called once, on the scheduler's
  /// thread.
  using Done = std::function<void(std::vector<std::vector<float>> vectors, const std::string& error)>;

  /// REQUIRES: inputs are not empty.
  EmbeddingTask(std::vector<std::vector<TokenId>> inputs, Done done);

  bool step(Model& model, PrefixStore& prefixes, std::size_t most_rows) override;
  bool give_back() override;
  void fail(const std::string& why) override;
  /// Nobody waits for it any more. Thread-safe.
  void cancel() { cancelled_ = true; }

private:
  /// An input that is being read.
  struct Reading {
    std::size_t input;
    std::unique_ptr<Sequence> sequence;
    std::vector<double> sum;
  };

  std::vector<std::vector<TokenId>> inputs_;
  Done done_;
  std::vector<std::vector<float>> vectors_;
  std::vector<Reading> reading_;
  std::size_t next_ = 0;      ///< input that is begun next
  std::size_t at_once_ = 16;  ///< inputs in one call
  std::vector<float> states_;
  std::atomic<bool> cancelled_{false};
};

/// Makes its length 1.
void normalise_length(std::vector<float>& vector);

}  // namespace snug
