#include "weights/expert_policy.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace snug {

namespace {

/// Shape, clock and last uses, which all policies need.
class Base : public ExpertPolicy {
public:
  Base(std::size_t sets, std::size_t experts) : sets_(sets), experts_(experts), last_(sets * experts) {}

  void routed(std::uint32_t set, const ExpertUses& r) override {
    now_ = set;
    ++clock_;
    for (std::size_t e = 0; e < r.uses.size(); ++e)
      if (r.uses[e] > 0) last_[set * experts_ + e] = clock_;
  }

  std::size_t victim(std::span<const ExpertId> candidates) override {
    std::size_t best = 0;
    double worst = -1;
    for (std::size_t i = 0; i < candidates.size(); ++i)
      if (const double wait = expected_wait(candidates[i]); wait > worst) worst = wait, best = i;
    return best;
  }

protected:
  /// How long it will probably not be needed, in a unit of the policy's own; >= 0.
  virtual double expected_wait(ExpertId id) const = 0;
  std::size_t at(ExpertId id) const { return id.set * experts_ + id.expert; }
  double age(ExpertId id) const { return static_cast<double>(clock_ - last_[at(id)]); }

  std::size_t sets_, experts_;
  std::uint32_t now_ = 0;
  std::uint64_t clock_ = 0;
  std::vector<std::uint64_t> last_;
};

class LeastRecent final : public Base {
public:
  using Base::Base;

protected:
  double expected_wait(ExpertId id) const override { return age(id); }
};

/// Chance that a token uses an expert: an average over the last kMemory tokens or so of its layer.
class Frequencies : public Base {
public:
  Frequencies(std::size_t sets, std::size_t experts) : Base(sets, experts), chance_(sets * experts) {}

  void routed(std::uint32_t set, const ExpertUses& r) override {
    Base::routed(set, r);
    const double kept = std::pow(1 - 1 / kMemory, r.tokens);
    for (std::size_t e = 0; e < r.uses.size(); ++e) {
      double& chance = chance_[set * experts_ + e];
      chance = kept * chance + (1 - kept) * r.uses[e] / std::max(1u, r.tokens);
    }
  }

protected:
  static constexpr double kMemory = 64;
  double chance(ExpertId id) const { return std::max(1e-4, chance_[at(id)]); }

private:
  std::vector<double> chance_;
};

class LeastFrequent final : public Frequencies {
public:
  using Frequencies::Frequencies;

protected:
  double expected_wait(ExpertId id) const override { return 1 / chance(id); }
};

/// Frequency, recency and layer order (EdgeMoE, arXiv 2308.14352) as one figure: the passes until the expert is likely
/// to be chosen, counted in layers from the present one.
class NextUse : public Frequencies {
public:
  using Frequencies::Frequencies;

protected:
  double expected_wait(ExpertId id) const override {
    const std::size_t ahead = (id.set + sets_ - now_) % sets_;
    const double layers = ahead == 0 ? static_cast<double>(sets_) : static_cast<double>(ahead);
    return layers + (1 / chance(id) - 1) * static_cast<double>(sets_);
  }
};

/// One bit of advice per request (paging with succinct predictions, arXiv 2210.02775): what the router did not nearly
/// choose may be discarded, least recently used first; when all is to be kept, a new phase begins.
class Advised final : public Base {
public:
  Advised(std::size_t sets, std::size_t experts) : Base(sets, experts), keep_(sets * experts) {}

  void routed(std::uint32_t set, const ExpertUses& r) override {
    Base::routed(set, r);
    std::copy(r.likely.begin(), r.likely.end(), keep_.begin() + static_cast<std::ptrdiff_t>(set * experts_));
  }
  std::size_t victim(std::span<const ExpertId> candidates) override {
    if (std::all_of(candidates.begin(), candidates.end(), [&](ExpertId id) { return keep_[at(id)] != 0; }))
      std::fill(keep_.begin(), keep_.end(), std::uint8_t{0});
    return Base::victim(candidates);
  }

protected:
  double expected_wait(ExpertId id) const override { return keep_[at(id)] ? 0 : 1 + age(id); }

private:
  std::vector<std::uint8_t> keep_;
};

/// Static and dynamic information (LSM-GNN, arXiv 2407.15264): the half of a layer's experts that was used most since
/// the beginning leaves last.
class StaticSplit final : public NextUse {
public:
  StaticSplit(std::size_t sets, std::size_t experts)
      : NextUse(sets, experts), uses_(sets * experts), kept_(sets * experts) {}

  void routed(std::uint32_t set, const ExpertUses& r) override {
    NextUse::routed(set, r);
    auto* uses = uses_.data() + set * experts_;
    for (std::size_t e = 0; e < r.uses.size(); ++e) uses[e] += r.uses[e];
    std::vector<std::uint64_t> sorted(uses, uses + experts_);
    std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(experts_ / 2), sorted.end());
    for (std::size_t e = 0; e < experts_; ++e) kept_[set * experts_ + e] = uses[e] > sorted[experts_ / 2];
  }

protected:
  double expected_wait(ExpertId id) const override {
    const double wait = NextUse::expected_wait(id);
    return kept_[at(id)] ? wait / 4 : wait;
  }

private:
  std::vector<std::uint64_t> uses_;
  std::vector<std::uint8_t> kept_;
};

/// A victim buffer (LSM-GNN): what is given up waits among the last kBuffer, and stays when it is used meanwhile.
class VictimBuffer final : public NextUse {
public:
  using NextUse::NextUse;

  std::size_t victim(std::span<const ExpertId> candidates) override {
    std::erase_if(waiting_, [&](const Waiting& w) {
      return last_[at(w.id)] > w.since || std::find(candidates.begin(), candidates.end(), w.id) == candidates.end();
    });
    std::vector<ExpertId> others(candidates.begin(), candidates.end());
    std::erase_if(others, [&](ExpertId id) {
      return std::any_of(waiting_.begin(), waiting_.end(), [id](const Waiting& w) { return w.id == id; });
    });
    while (waiting_.size() < std::min(kBuffer, candidates.size()) && !others.empty()) {
      const std::size_t chosen = NextUse::victim(others);
      waiting_.push_back({others[chosen], clock_});
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(chosen));
    }
    const ExpertId out = waiting_.front().id;
    waiting_.erase(waiting_.begin());
    return static_cast<std::size_t>(std::find(candidates.begin(), candidates.end(), out) - candidates.begin());
  }

private:
  static constexpr std::size_t kBuffer = 32;
  struct Waiting {
    ExpertId id;
    std::uint64_t since;
  };
  std::vector<Waiting> waiting_;
};

template <class Policy>
std::unique_ptr<ExpertPolicy> create(std::size_t sets, std::size_t experts) {
  return std::make_unique<Policy>(sets, experts);
}

constexpr ExpertPolicyInfo kPolicies[] = {
    {"lru", "least recently used", create<LeastRecent>},
    {"lfu", "least frequently used, of late", create<LeastFrequent>},
    {"next-use", "longest expected wait, from frequency, recency and layer order", create<NextUse>},
    {"advice", "one bit of advice from the router, then least recently used", create<Advised>},
    {"static-split", "next-use, but the half used most since the beginning leaves last", create<StaticSplit>},
    {"victim-buffer", "next-use with a buffer of what is about to leave", create<VictimBuffer>},
};

}  // namespace

std::span<const ExpertPolicyInfo> expert_policies() {
  return kPolicies;
}

std::unique_ptr<ExpertPolicy> make_expert_policy(std::string_view name, std::size_t sets, std::size_t experts) {
  std::string names;
  for (const ExpertPolicyInfo& info : kPolicies) {
    if (info.name == name) return info.create(sets, experts);
    names += (names.empty() ? "" : ", ") + std::string(info.name);
  }
  fail<UsageError>("unknown expert policy {}: choose from {}", name, names);
}

}  // namespace snug
