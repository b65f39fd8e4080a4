#include "plan/machine_profile.hpp"

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/log.hpp"
#include "kernels/kernels.hpp"
#include "measure/disk_speed.hpp"
#include "measure/machine_limits.hpp"

namespace snug {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kBlocks[] = {64 * kKiB, kStreamBlock, 1024 * kKiB};

std::string cache_file() {
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (cache && *cache) return std::string(cache) + "/snug/machine.json";
  return home && *home ? std::string(home) + "/.cache/snug/machine.json" : "";
}

/// What the remembered figures depend on.
std::string profile_key(const ThreadPool& pool, const std::string& path) {
  struct stat info{};
  if (stat(path.c_str(), &info) != 0) fail<IoError>("cannot open {}", path);
  return fmt::format("{} x{} disk {:x}", kernels().name, pool.size(), info.st_dev);
}

nlohmann::json read_cache(const std::string& file) {
  std::error_code error;
  if (file.empty() || !fs::exists(file, error)) return nlohmann::json::object();
  const auto json = nlohmann::json::parse(read_text_file(file, kMiB), nullptr, false);
  return json.is_object() ? json : nlohmann::json::object();
}

/// False when it is not what store() writes.
bool load(const nlohmann::json& json, MachineProfile& profile) {
  try {
    profile.memory_bytes_s = json.at("memory_bytes_s").get<double>();
    profile.decode_bytes_s = json.at("decode_bytes_s").get<double>();
    profile.int8_ops_s = json.at("int8_ops_s").get<double>();
    for (const auto& [block, rate] : json.at("disk_bytes_s").items())
      profile.disk_bytes_s[std::stoul(block)] = rate.get<double>();
  } catch (const std::exception&) {
    return false;
  }
  return profile.memory_bytes_s > 0 && profile.decode_bytes_s > 0 && profile.int8_ops_s > 0 &&
         profile.disk_bytes_s.contains(kStreamBlock);
}

void store(const std::string& file, nlohmann::json all, const std::string& key, const MachineProfile& profile) {
  nlohmann::json disk;
  for (const auto& [block, rate] : profile.disk_bytes_s) disk[std::to_string(block)] = rate;
  all[key] = {{"memory_bytes_s", profile.memory_bytes_s},
              {"decode_bytes_s", profile.decode_bytes_s},
              {"int8_ops_s", profile.int8_ops_s},
              {"disk_bytes_s", disk}};
  try {
    fs::create_directories(fs::path(file).parent_path());
    const std::string text = all.dump(2);
    write_atomically(file, [&](const auto& append) { append(std::as_bytes(std::span(text))); });
  } catch (const std::exception& e) {
    log(LogLevel::debug, "the machine's profile is not remembered: {}", e.what());
  }
}

MachineProfile probe_machine(ThreadPool& pool, const std::string& path, Bytes memory) {
  MachineProfile profile;
  Ledger ledger(Ledger::kUnlimited);
  profile.memory_bytes_s = measure_read_bandwidth(pool, ledger, memory, 5);
  profile.decode_bytes_s = measure_decode_bandwidth(pool, ledger, memory, 15);
  profile.int8_ops_s = measure_int8_peak(pool);
  for (const std::size_t block : kBlocks) profile.disk_bytes_s[block] = measure_disk_read(path, block);
  return profile;
}

}  // namespace

MachineProfile machine_profile(ThreadPool& pool, const std::string& path, Bytes memory, bool again) {
  const std::string file = cache_file(), key = profile_key(pool, path);
  nlohmann::json all = read_cache(file);
  MachineProfile profile;
  if (!again && all.contains(key) && load(all[key], profile)) {
    Ledger ledger(Ledger::kUnlimited);
    profile.decode_bytes_s = measure_decode_bandwidth(pool, ledger, memory, 9);
    profile.disk_bytes_s[kStreamBlock] = measure_disk_read(path, kStreamBlock, 0.15);
    return profile;
  }
  profile = probe_machine(pool, path, memory);
  if (!file.empty()) store(file, std::move(all), key, profile);
  return profile;
}

}  // namespace snug
