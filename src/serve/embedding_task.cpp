#include "serve/embedding_task.hpp"

#include <algorithm>
#include <cmath>

namespace snug {

EmbeddingTask::EmbeddingTask(std::vector<std::vector<TokenId>> inputs, Done done)
    : inputs_(std::move(inputs)), done_(std::move(done)), vectors_(inputs_.size()) {}

bool EmbeddingTask::step(Model& model, PrefixStore&, std::size_t most_rows) {
  if (cancelled_) return false;
  while (reading_.size() < at_once_ && next_ < inputs_.size()) {
    reading_.push_back({next_, model.new_sequence(inputs_[next_].size()), {}});
    ++next_;
  }
  const std::size_t width = model.config().width;
  std::vector<Row> rows;
  std::vector<std::size_t> owners;  // of each row, in reading_
  for (std::size_t i = 0; i < reading_.size(); ++i) {
    Sequence& sequence = *reading_[i].sequence;
    const std::vector<TokenId>& tokens = inputs_[reading_[i].input];
    const std::size_t first = sequence.length();
    const std::size_t count =
        std::min({tokens.size() - first, model.most_rows(sequence), most_rows - std::min(most_rows, rows.size())});
    for (std::size_t t = first; t < first + count; ++t) rows.push_back({tokens[t], &sequence, true});
    owners.insert(owners.end(), count, i);
  }
  states_.resize(rows.size() * width);
  model.hidden(rows, states_);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::vector<double>& sum = reading_[owners[r]].sum;
    sum.resize(width);
    for (std::size_t i = 0; i < width; ++i) sum[i] += static_cast<double>(states_[r * width + i]);
  }
  std::erase_if(reading_, [&](const Reading& r) {
    if (r.sequence->length() < inputs_[r.input].size()) return false;
    std::vector<float>& vector = vectors_[r.input];
    for (const double s : r.sum) vector.push_back(static_cast<float>(s / static_cast<double>(r.sequence->length())));
    normalise_length(vector);
    return true;
  });
  if (!reading_.empty() || next_ < inputs_.size()) return true;
  done_(std::move(vectors_), {});
  return false;
}

bool EmbeddingTask::give_back() {
  if (reading_.empty()) return false;
  next_ = reading_.front().input;
  for (const Reading& r : reading_) next_ = std::min(next_, r.input);
  // Inputs after it that were done already are done again: they are few.
  for (std::size_t i = next_; i < vectors_.size(); ++i) vectors_[i].clear();
  reading_.clear();
  at_once_ = 1;
  return true;
}

void EmbeddingTask::fail(const std::string& why) {
  done_({}, why);
}

void normalise_length(std::vector<float>& vector) {
  double sum = 0;
  for (const float v : vector) sum += static_cast<double>(v) * static_cast<double>(v);
  if (!(sum > 0)) return;
  const double scale = 1 / std::sqrt(sum);
  for (float& v : vector) v = static_cast<float>(static_cast<double>(v) * scale);
}

}  // namespace snug
