#include "serve/energy.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace snug {

namespace {

namespace fs = std::filesystem;

std::optional<std::uint64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  if (!(file >> number)) return {};
  return number;
}

}  // namespace

EnergyMeter::EnergyMeter(const std::string& root) {
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(root, none)) {
    // intel-rapl:0 is a package (also AMD's), intel-rapl:0:1 a part of it; intel-rapl-mmio:0 counts the same again.
    const std::string name = entry.path().filename().string();
    constexpr std::string_view kBegin = "intel-rapl:";
    if (!name.starts_with(kBegin) || name.find(':', kBegin.size()) != name.npos) continue;
    std::string kind;
    std::ifstream(entry.path() / "name") >> kind;
    if (!kind.starts_with("package")) continue;  // "psys" has the packages in it
    const auto energy = number_in(entry.path() / "energy_uj"), range = number_in(entry.path() / "max_energy_range_uj");
    if (energy && range) packages_.push_back({entry.path() / "energy_uj", *energy, *range});
  }
}

std::optional<double> EnergyMeter::joules() {
  std::uint64_t all = 0;
  for (Package& p : packages_) {
    const auto now = number_in(p.path);
    if (!now) return {};
    all += *now >= p.last ? *now - p.last : *now + p.range - std::min(p.range, p.last);
    p.last = *now;
  }
  return static_cast<double>(all) * 1e-6;
}

EnergyAccount::EnergyAccount(EnergyMeter meter, std::function<EnergyLoad()> load, std::chrono::milliseconds period)
    : meter_(std::move(meter)), load_(std::move(load)), first_(load_()), last_(first_), when_(Clock::now()) {
  if (period.count() == 0) return;
  thread_ = std::thread([this, period] {
    std::unique_lock lock(mutex_);
    while (!wake_.wait_for(lock, period, [this] { return stop_; })) {
      lock.unlock();
      sample();
      lock.lock();
    }
  });
}

EnergyAccount::~EnergyAccount() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void EnergyAccount::sample(Clock::time_point now) {
  const EnergyLoad load = load_();
  const std::lock_guard lock(mutex_);
  const double seconds = std::chrono::duration<double>(now - when_).count();
  const auto taken = meter_.joules();
  if (taken && seconds > 0)
    joules_ += *taken * std::clamp((load.busy_seconds - last_.busy_seconds) / seconds, 0.0, 1.0);
  last_ = load;
  when_ = now;
}

EnergyReport EnergyAccount::report() const {
  const std::lock_guard lock(mutex_);
  return {joules_, last_.tokens - first_.tokens};
}

}  // namespace snug
