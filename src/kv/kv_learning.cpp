#include "kv/kv_learning.hpp"

#include <mutex>

namespace snug {

KvTables learn_sides(const KvLearning& from, const std::function<KvArrays(std::size_t layer, KvSide side)>& learn) {
  const auto& shapes = from.model.shapes;
  std::vector<KvArrays> found(2 * shapes.size());
  std::mutex mutex;
  std::size_t done = 0;
  const auto side_of = [](std::size_t job) { return job % 2 == 0 ? KvSide::keys : KvSide::values; };
  from.pool.parallel_for(found.size(), 1, [&](std::size_t begin, std::size_t end, unsigned) {
    for (std::size_t job = begin; job < end; ++job) {
      if (shapes[job / 2].kv_heads > 0) found[job] = learn(job / 2, side_of(job));
      const std::lock_guard lock(mutex);
      from.report(++done, found.size());
    }
  });
  KvTables tables;
  for (std::size_t job = 0; job < found.size(); ++job)
    for (auto& [name, values] : found[job])
      tables.add(job / 2, side_name(side_of(job)).append(name), std::move(values));
  return tables;
}

std::vector<float> channel_means(std::span<const bf16_t> samples, std::size_t channels) {
  std::vector<double> sums(channels);
  for (std::size_t i = 0; i < samples.size(); ++i) sums[i % channels] += float_of(samples[i]);
  std::vector<float> means;
  for (const double sum : sums)
    means.push_back(static_cast<float>(sum / static_cast<double>(samples.size() / channels)));
  return means;
}

}  // namespace snug
