#pragma once
/// What the processor takes while the model is at work, by its own counters (RAPL). An estimate: other programs' share
/// of that time is in it, the disk's and the memory's often are not.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace snug {

/// The counters of all processor packages. Not thread-safe.
class EnergyMeter {
public:
  /// `root`: where the system shows them.
  explicit EnergyMeter(const std::string& root = "/sys/class/powercap");
  /// Whether there are any that this process may read.
  bool known() const { return !packages_.empty(); }
  /// Since the last call (at first: since it was made). None: a counter could not be read.
  std::optional<double> joules();

private:
  struct Package {
    std::string path;
    std::uint64_t last = 0, range = 0;  ///< microjoules; a counter begins anew after `range`
  };
  std::vector<Package> packages_;
};

/// What a model did up to now.
struct EnergyLoad {
  double busy_seconds = 0;
  std::uint64_t tokens = 0;
};
struct EnergyReport {
  double joules = 0;
  std::uint64_t tokens = 0;
  double joules_per_token() const { return joules / static_cast<double>(tokens); }
};

/// Adds up what was taken, second by second, by the share of it in which the model was at work.
class EnergyAccount {
public:
  using Clock = std::chrono::steady_clock;
  /// `load`: what was done so far, asked on a thread of its own every `period`; 0: never, sample() does it.
  EnergyAccount(EnergyMeter meter, std::function<EnergyLoad()> load,
                std::chrono::milliseconds period = std::chrono::seconds(1));
  ~EnergyAccount();
  EnergyAccount(const EnergyAccount&) = delete;
  EnergyAccount& operator=(const EnergyAccount&) = delete;

  void sample(Clock::time_point now = Clock::now());
  EnergyReport report() const;

private:
  EnergyMeter meter_;
  std::function<EnergyLoad()> load_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  EnergyLoad first_, last_;
  Clock::time_point when_;
  double joules_ = 0;
  std::thread thread_;
};

}  // namespace snug
