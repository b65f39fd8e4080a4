#include "measure/quality.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "kernels/kernels.hpp"

namespace snug {

namespace {

/// The tokens of window `index`, beginning with BOS where the model wants one.
std::vector<TokenId> window_of(const Model& model, const std::vector<TokenId>& tokens, std::size_t index,
                               std::size_t context) {
  const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(index * context);
  std::vector<TokenId> window(begin, begin + static_cast<std::ptrdiff_t>(context));
  if (model.tokenizer().adds_bos()) window[0] = model.tokenizer().bos();
  return window;
}

/// Feeds a window in chunks of `chunk` rows and hands over the logits of positions >= `first`, position by position.
template <class F>
void run_window(Model& model, const std::vector<TokenId>& window, std::size_t first, std::size_t chunk, F&& on_logits) {
  const std::size_t vocab = model.config().vocab_size;
  const auto sequence = model.new_sequence(window.size());
  std::vector<float> logits;
  for (std::size_t at = 0; at < window.size();) {
    std::vector<Row> rows;
    std::size_t wanted = 0;
    const std::size_t end = std::min(window.size(), at + std::min(chunk, model.most_rows(*sequence)));
    for (std::size_t i = at; i < end; ++i) {
      rows.push_back({window[i], sequence.get(), i >= first});
      wanted += i >= first;
    }
    logits.resize(wanted * vocab);
    model.forward(rows, logits);
    for (std::size_t i = 0; i < wanted; ++i)
      on_logits(end - wanted + i, std::span<const float>(logits.data() + i * vocab, vocab));
    at = end;
  }
}

std::size_t count_windows(const std::vector<TokenId>& tokens, const TextWindows& windows) {
  const std::size_t usable = windows.max_tokens ? std::min(windows.max_tokens, tokens.size()) : tokens.size();
  if (usable < windows.context)
    fail("the text has {} tokens, less than one window of {}: use a longer text or a smaller --context", usable,
         windows.context);
  return usable / windows.context;
}

constexpr std::size_t kLogitRows = 64;  // logits of a large vocabulary are a megabyte a row

}  // namespace

PerplexityResult perplexity(Model& model, const std::vector<TokenId>& tokens, const TextWindows& windows) {
  const std::size_t count = count_windows(tokens, windows), context = windows.context, first = context / 2;
  double sum = 0, squares = 0;
  PerplexityResult result;
  for (std::size_t w = 0; w < count; ++w) {
    const std::vector<TokenId> window = window_of(model, tokens, w, context);
    run_window(model, window, first, windows.one_by_one ? 1 : std::min(kLogitRows, model.max_rows()),
               [&](std::size_t position, std::span<const float> logits) {
                 if (position + 1 >= context) return;
                 const auto next = static_cast<std::size_t>(tokens[w * context + position + 1]);
                 const double nll = kernels().log_sum_exp(logits.data(), logits.size()) - logits[next];
                 sum += nll;
                 squares += nll * nll;
                 ++result.tokens;
               });
    if (windows.progress) windows.progress(w + 1, count);
  }
  const auto n = static_cast<double>(result.tokens);
  result.nll = sum / n;
  result.perplexity = std::exp(result.nll);
  result.standard_error =
      result.perplexity * std::sqrt(std::max(0.0, squares / n - result.nll * result.nll) / std::max(1.0, n - 1));
  return result;
}

double divergence(std::span<const float> p, std::span<const float> q) {
  const double p_sum = kernels().log_sum_exp(p.data(), p.size()), q_sum = kernels().log_sum_exp(q.data(), q.size());
  double total = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double log_p = p[i] - p_sum;
    total += std::exp(log_p) * (log_p - (q[i] - q_sum));
  }
  return total;
}

DivergenceResult divergence(Model& model, Model& reference, const std::vector<TokenId>& tokens,
                            const TextWindows& windows) {
  const std::size_t count = count_windows(tokens, windows), context = windows.context;
  const std::size_t chunk = std::min({kLogitRows, model.max_rows(), reference.max_rows()});
  DivergenceResult result;
  std::size_t same = 0;
  for (std::size_t w = 0; w < count; ++w) {
    const std::vector<TokenId> window = window_of(model, tokens, w, context);
    std::vector<std::vector<float>> expected;
    run_window(reference, window, 0, chunk, [&](std::size_t, std::span<const float> logits) {
      expected.emplace_back(logits.begin(), logits.end());
    });
    run_window(model, window, 0, windows.one_by_one ? 1 : chunk,
               [&](std::size_t position, std::span<const float> logits) {
                 const std::vector<float>& p = expected[position];
                 const double kl = divergence(p, logits);
                 result.mean_kl += kl;
                 result.max_kl = std::max(result.max_kl, kl);
                 same += std::max_element(p.begin(), p.end()) - p.begin() ==
                         std::max_element(logits.begin(), logits.end()) - logits.begin();
                 ++result.tokens;
               });
    if (windows.progress) windows.progress(w + 1, count);
  }
  result.mean_kl /= static_cast<double>(result.tokens);
  result.same_top = static_cast<double>(same) / static_cast<double>(result.tokens);
  return result;
}

}  // namespace snug
