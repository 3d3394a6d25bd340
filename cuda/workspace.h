// What a session works in: memory of one shape, and the steps captured on it. A transformer keeps that of its last
// session, and the next one of the same shape finds memory taken and graphs ready: some milliseconds (predicted, not
// measured) of each image against memory that stays taken between images. It is given up before an allocation on the
// device is refused (device.h), and where it is larger than `maxKeptBytes` at once.
#pragma once

#include <deque>

#include "../common/passes.h"
#include "../common/steps.h"
#include "device.h"
#include "kernels.cuh"
#include "parvis/backend.h"
#include "rows.h"

namespace parvis::cuda {

// What the launches of a step depend on: counts, rounded up, so that steps of about the same size are the same graph.
// What differs between two such steps (classes, seeds, guidance, sampling rules, places, company) is data.
struct StepPlan {
  // Rows that run through the same layers. Those of the cross layers lie behind the others, as their groups do.
  struct Part {
    int rows = 0, groups = 0;
    int maxSmall = 0;  // queries of a key/value head, in the largest group that attend() answers; 0: there is none
    int maxLarge = 0;  // the same of attendRows()
    bool operator==(const Part& o) const {
      return rows == o.rows && groups == o.groups && maxSmall == o.maxSmall && maxLarge == o.maxLarge;
    }
  };
  Part layers, crossLayers;
  int predictions = 0;
  int logitRows = 0;  // whose logits are gathered; 0: those of all rows that can predict are computed, in their order
  bool sampled = false, raced = false, scored = false;
  int composed = 0;  // sequences of a pass that the device puts together; 0: the host does
  bool operator==(const StepPlan& o) const {
    return layers == o.layers && crossLayers == o.crossLayers && predictions == o.predictions &&
           composed == o.composed && logitRows == o.logitRows && sampled == o.sampled && raced == o.raced &&
           scored == o.scored;
  }
};

class Workspace {
 public:
  static constexpr int depth = WorkspaceLayout::depth;
  static constexpr size_t maxPlans = 16;              // whose graphs are kept
  static constexpr size_t maxKeptBytes = 4ull << 30;  // that stay taken between sessions

  struct Captured {
    StepPlan plan;
    int uses = 0;
    cudaGraphExec_t graph = nullptr;
  };

  Workspace(std::shared_ptr<Device> device, const SessionOptions& options)
      : options(options), device_(std::move(device)) {}
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace();
  Status allocate(const TransformerModel& model, Element element);
  // As if no step had run in it.
  Status reset();
  // Writes the tables of a checked step into part `index` of the ring, padding included, and says what they need.
  // head: what the matrix of the head is kept in.
  StepPlan write(const Step& step, const TransformerModel& model, WeightFormat head, const Seats& seats,
                 uint32_t index);
  // The same of a pass that the device puts together.
  void write(const std::vector<PassEntry>& entries, uint32_t index);
  // A plan on its way to the device.
  Status stage(int seat, const Passes& passes);
  // The entry for a plan; the one that was not used for longest goes where there are too many.
  Status find(const StepPlan& plan, Captured*& out);
  TakeStep taking(const StepPlan& plan) const;
  ComposePass composing(const StepPlan& plan, const TransformerModel& model) const;
  PassTables passTables(const TransformerModel& model) const;
  bool fits(const SessionOptions& o) const;
  size_t bytes() const { return memory_.bytes(); }

  const SessionOptions options;
  bool idle = false;  // what ran in it has been waited for: any thread may destroy it
  WorkspaceLayout layout;
  volatile int* flags = nullptr;  // [seats], the host's: nonFinite as of a step before
  // Of the running step: rows, groups, predictions, rows whose logits are gathered.
  Row* rows = nullptr;
  StreamRows* groups = nullptr;
  Drawing* drawings = nullptr;
  int32_t* gather = nullptr;
  Ring ring{};               // of tables, with the number of steps that are done
  int* nonFinite = nullptr;  // [seats]
  float* x = nullptr;        // [rows, xStride]
  NormedRows normed{};       // x as the next projection takes it: [rows]
  void* queries = nullptr;   // elements [rows, heads, padded head size]
  void* attended = nullptr;  // elements [rows, wideStride]
  void* gated = nullptr;     // elements [rows, ffStride]
  float* logits = nullptr;   // [chunk, vocabularyStride]
  NormedRows gathered{};     // [chunk]
  uint8_t* cache = nullptr;  // [cacheCount(model)][keys, values]
  float* partial = nullptr;
  uint32_t* counters = nullptr;
  int32_t* classIds = nullptr;  // [seats]
  uint64_t* seeds = nullptr;    // the same
  int32_t* tokens = nullptr;    // [seats, tokens]
  float* logProbs = nullptr;    // the same
  float* kept = nullptr;        // [seats, kept, vocabulary]
  Event events[depth];
  // What sequences bring along, the host's, until the device has it.
  SeatEntry* entries = nullptr;  // [seats]
  int32_t* known = nullptr;      // [seats, tokens]
  std::vector<Event> entered;    // [seats]
  // Of passes that the device puts together (PassTables).
  int32_t* plans = nullptr;
  SeatPass* seatPasses = nullptr;
  int32_t* read = nullptr;
  volatile uint64_t* progress = nullptr;  // the host's

 private:
  // Tables of `count` ints at `from` in part `index` are whole: the device may take them ahead of the step.
  void mayTake(uint32_t index, const int (&from)[4], const int (&count)[4]);
  StepPlan::Part writePart(const Step& step, int begin, int end, int shared, Row* toRows, StreamRows* toGroups);
  std::shared_ptr<Device> device_;
  DeviceMemory memory_;
  HostMemory host_;
  int32_t* stagedPlans_ = nullptr;  // [seats, layout.planInts], the host's
  std::vector<Event> staged_;       // [seats]
  int32_t* parts_ = nullptr;        // the tables of steps in flight, the host's
  std::vector<Group> found_;
  std::deque<Captured> captured_;  // the one used last behind
};

}  // namespace parvis::cuda
