#pragma once
/// Several models in one budget, loaded when they are asked for (as experts are composed in Samba-CoE,
/// arXiv 2405.07518): one computes at a time, and the others keep what it leaves them. What it lacks they give up:
/// first what is made anew in no time, then weights, of the model that was used least (and nobody waits for) first, so
/// that most of them stay where most is asked for; then kept beginnings, then the memory of requests, which go to the
/// disk.

#include <optional>

#include "serve/housed_model.hpp"
#include "serve/turns.hpp"

namespace snug {

struct HousePlace {
  std::string name, path;  ///< as clients know it; of the file
};

struct HouseOptions {
  ModelOptions model;
  SchedulerOptions scheduler;
  ApiOptions api;               ///< what all have in common
  std::size_t most_loaded = 0;  ///< models that are not cold; 0: as many as there is memory for
  /// Fills in what depends on the model.
  std::function<void(const Model&, ApiOptions&)> describe;
};

class ModelHouse final : public ServedModels {
public:
  /// Reads what there is to know of each file. Throws Error with what is wrong with them.
  ModelHouse(std::vector<HousePlace> places, Ledger& ledger, ThreadPool& pool, HouseOptions options);
  ~ModelHouse() override;
  ModelHouse(const ModelHouse&) = delete;
  ModelHouse& operator=(const ModelHouse&) = delete;

  /// Loads the first. `energy` may be null, or asks energy_load(). REQUIRES: before everything below. Throws Error.
  void open(std::shared_ptr<EnergyAccount> energy = nullptr);

  const std::vector<std::string>& keys() const override { return options_.api.keys; }
  const std::string& usual() const override;
  bool several() const override { return true; }
  bool has(const std::string& name) const override;
  std::vector<ModelState> states() const override;
  SchedulerStats stats() const override;
  /// What was computed so far, by all of them.
  EnergyLoad energy_load() const;
  Lease find(const std::string& name) override;
  void load(const std::string& name, std::function<void(Lease, const std::string& error)> done) override;
  /// Requests fail from now on.
  void stop() override;

  /// Another limit for the ledger, between two steps; what does not fit any more goes. Throws Error when less is needed
  /// now, IoError.
  void resize(Bytes budget);
  /// Among the events.
  void note(std::string_view kind, const std::string& what);

private:
  class Turn;
  struct Entry {
    HousePlace place;
    std::unique_ptr<Turn> turn;
    ModelState facts;                     ///< of mutex_
    std::shared_ptr<HousedModel> housed;  ///< null: cold. Changed with the turn and mutex_; read with either
    std::size_t users = 0;                ///< leases; of mutex_
    double use = 0;                       ///< fades from turn to turn (LRFU); of the turn
  };

  static constexpr std::size_t kNobody = ~std::size_t{0};
  std::size_t index_of(const std::string& name) const;
  Lease lease(std::size_t index);
  Lease load_now(std::size_t index);
  std::unique_ptr<Model> try_to_load(const Entry& entry, std::string& error);
  /// One that nobody uses leaves memory. Returns false when there is none. REQUIRES: not the turn.
  bool unload_one(std::size_t but);

  // REQUIRES: the turn.
  std::string take_over(std::size_t index);
  /// Makes others give up memory; returns what they did.
  Bytes take_from_others(Bytes wanted, std::size_t but);
  Bytes others_bytes(std::size_t but) const;
  static void rest(HousedModel& housed);
  void update_facts();

  Ledger& ledger_;
  ThreadPool& pool_;
  HouseOptions options_;
  PageStock stock_;
  Turns turns_;
  std::vector<Entry> entries_;
  std::size_t active_ = kNobody;  ///< whose turn it was last; of the turn
  std::size_t but_ = kNobody;     ///< who gives nothing to the ledger; of the turn
  std::shared_ptr<void> holder_;
  mutable std::mutex mutex_;  ///< taken after the turn, never before
  SchedulerStats unloaded_;   ///< counts of models that have gone
  Worker loader_;
};

}  // namespace snug
