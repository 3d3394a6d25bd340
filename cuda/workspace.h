// What a session works in: memory of one shape, and the steps captured on it. A transformer keeps that of its last session, and
// the next one of the same shape finds memory taken and graphs ready: some milliseconds (predicted, not measured) of each image
// against memory that stays taken between images. It is given up before an allocation on the device is refused (device.h), and where it is
// larger than `mostKept` at once.
#pragma once

#include <deque>

#include "../common/steps.h"
#include "device.h"
#include "kernels.cuh"
#include "parvis/backend.h"
#include "rows.h"

namespace parvis::cuda {

struct Shape {
  int sequences = 0;
  bool guided = false;
  int slots = 0, tokens = 0, maxRows = 0;
  size_t positions = 0;  // whose logits are kept
  bool operator==(const Shape& o) const {
    return sequences == o.sequences && guided == o.guided && slots == o.slots && tokens == o.tokens && maxRows == o.maxRows && positions == o.positions;
  }
  int branches() const { return guided ? 2 : 1; }
  int streams() const { return sequences * branches(); }
};

class Workspace {
 public:
  static constexpr int depth = 3;              // steps enqueued at a time: one runs, the next is ready, a third while somebody wakes up
  static constexpr size_t mostKinds = 6;       // of steps whose tables and graphs are kept
  static constexpr size_t mostKept = 4ull << 30;  // bytes that stay taken between sessions

  // Steps that differ in their rows' contents only: the same launches with the same arguments.
  struct Kind {
    int count = 0;
    std::vector<int> predicting;  // rows, ascending
    StepRule rule;
    // Its tables as they are copied to the device, which may read them as late as it gets there.
    std::vector<Prediction> predicted;
    std::vector<int32_t> gathering;
    int uses = 0;
    size_t table = 0;             // which part of the tables it has
    cudaGraphExec_t graph = nullptr;
    bool same(int rows, const std::vector<int>& which, const StepRule& r) const;
  };

  Workspace(std::shared_ptr<Device> device, Shape shape) : shape(shape), device_(std::move(device)) {}
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace();
  Status allocate(const TransformerModel& model, Element element);
  // As if nothing had run in it. `options` are of its shape.
  Status reset(const TransformerModel& model, const SessionOptions& options);
  // The kind of step that these rows are, with its tables on the device.
  Status kindOf(const Row* rows, int count, const StepRule& rule, Kind*& out);
  size_t bytes() const { return memory_.bytes(); }

  const Shape shape;
  bool idle = false;             // what ran in it has been waited for: any thread may destroy it
  // Strides of rows, padded to 16 elements; rows are stream-major (kernels.cuh).
  ptrdiff_t xStride = 0, wideStride = 0, ffStride = 0, vocabularyStride = 0;
  size_t cacheBytes = 0;         // keys or values of one layer
  int chunk = 0;                 // predictions whose logits exist at a time
  Row* ring = nullptr;           // [depth, maxRows], the host's, read by the device
  int* flag = nullptr;           // the host's: nonFinite as of the step before
  Row* rows = nullptr;           // [maxRows], of the running step
  uint32_t* counter = nullptr;   // steps done
  int* nonFinite = nullptr;
  float* x = nullptr;            // [rows, xStride]
  Behind behind{};               // the next norm: [rows]
  void* queries = nullptr;       // elements [rows, heads, padded head size]
  void* attended = nullptr;      // elements [rows, wideStride]
  void* gated = nullptr;         // elements [rows, ffStride]
  float* logits = nullptr;       // [branches chunk, vocabularyStride]
  Behind gathered{};             // the last norm, of rows that predict: [branches chunk]
  float* guided = nullptr;       // [chunk, vocabulary], where logits are kept
  uint8_t* cache = nullptr;      // [layers][keys, values]
  float* partial = nullptr;
  uint32_t* counters = nullptr;
  int32_t* classIds = nullptr;   // [sequences]
  uint64_t* seeds = nullptr;     // the same
  int32_t* tokens = nullptr;     // [sequences, tokens]
  float* logProbs = nullptr;     // the same
  float* kept = nullptr;         // [sequences, positions, vocabulary]
  Prediction* predictions = nullptr;  // [kinds][sequences maxRows]
  int32_t* gather = nullptr;          // [kinds][branches sequences maxRows]
  Event events[depth];

 private:
  std::shared_ptr<Device> device_;
  DeviceMemory memory_;
  HostMemory host_;
  size_t counterBytes_ = 0;
  std::deque<Kind> kinds_;  // the one used last behind
};

}  // namespace parvis::cuda
