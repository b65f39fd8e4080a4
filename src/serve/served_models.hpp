#pragma once
/// The models that the APIs answer with: one, or several of which some are not in memory.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "serve/scheduler.hpp"

namespace snug {

class ServedModel;

/// What is known of a model, also while it is not loaded.
struct ModelState {
  std::string name, architecture, size_label;
  std::string_view state;  ///< hot: all of it that its budget allows is in memory; warm: loaded; cold: on the disk
  std::size_t context = 0;
  Bytes file_bytes = 0;
  Bytes weights = 0, weights_all = 0;  ///< in memory; 0 when it is cold and never was loaded
  Bytes kv = 0;
  std::int64_t created = 0;
  std::uint64_t switches = 0;  ///< times that it took its turn after another
  Bytes switch_bytes = 0;      ///< the last time: read from the disk,
  double switch_seconds = 0;   ///< and how long that and all else took
};

/// Thread-safe.
class ServedModels {
public:
  using Lease = std::shared_ptr<ServedModel>;  ///< while it is held the model stays loaded

  virtual ~ServedModels() = default;
  /// Keys, one of which a request must have; none: everybody is served.
  virtual const std::vector<std::string>& keys() const = 0;
  /// The one that requests without a name mean.
  virtual const std::string& usual() const = 0;
  /// Whether it matters which name a request has, and whether this is one.
  virtual bool several() const = 0;
  virtual bool has(const std::string& name) const = 0;
  virtual std::vector<ModelState> states() const = 0;
  /// Of all of them together.
  virtual SchedulerStats stats() const = 0;
  /// Null: it is not loaded. "": one that is.
  virtual Lease find(const std::string& name) = 0;
  /// Loads it if need be, and calls `done` on another thread, with null and the reason when it cannot be.
  virtual void load(const std::string& name, std::function<void(Lease, const std::string& error)> done) = 0;
  /// Lets go of what waits; nothing is done any more.
  virtual void stop() = 0;
};

/// A model that has the server to itself, and answers to any name.
class OneModel final : public ServedModels {
public:
  /// `model` outlives it.
  explicit OneModel(ServedModel& model) : model_(model) {}
  const std::vector<std::string>& keys() const override;
  const std::string& usual() const override;
  bool several() const override { return false; }
  bool has(const std::string&) const override { return true; }
  std::vector<ModelState> states() const override;
  SchedulerStats stats() const override;
  Lease find(const std::string&) override { return {std::shared_ptr<void>(), &model_}; }
  void load(const std::string&, std::function<void(Lease, const std::string&)> done) override { done(find({}), {}); }
  void stop() override;

private:
  ServedModel& model_;
};

/// All that are served beside this one, and itself.
std::vector<ModelState> models_with(const ServedModel& model);
/// Of all of them.
SchedulerStats stats_with(const ServedModel& model);
/// Adds counts up, and puts lists one after the other.
void add_stats(SchedulerStats& to, const SchedulerStats& more);
/// A text that a body of JSON has in this field, without reading what follows; "": there is none.
std::string text_in(const std::string& body, std::string_view field);

}  // namespace snug
