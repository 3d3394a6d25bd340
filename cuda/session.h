// One generation or scoring run of a batch of sequences on a device. step() enqueues and returns: tokens, cache and random
// numbers stay on the device, and nothing waits for it but a step that would run more than `depth` ahead. What a failed
// step has to say is therefore said by a later one, or by the call that reads its results.
//   A step's rows go into a ring that the device reads by itself, with a counter that lies there too: so a step is one
// graph, captured when the same kind of step comes a second time and replayed from then on.
#pragma once

#include <deque>

#include "../common/steps.h"
#include "transformer.h"

namespace parvis::cuda {

class CudaSession : public Session {
 public:
  CudaSession(std::shared_ptr<CudaTransformer> transformer, SessionOptions options) : transformer_(std::move(transformer)), o_(std::move(options)) {}
  ~CudaSession() override;
  Status allocate();
  Status step(const Row* rows, int count, const StepRule& rule, const Cancel& cancel) override;
  Status readTokens(int32_t* out) override;
  Status readLogProbs(float* out) override;
  Status readLogits(float* out) override;

 private:
  static constexpr int depth = 3;       // steps enqueued at a time: one runs, the next is ready, a third while somebody wakes up
  static constexpr size_t kinds = 6;    // of steps whose tables and graphs are kept

  // Steps that differ in their rows' contents only: the same launches with the same arguments.
  struct Kind {
    int count = 0;
    std::vector<int> predicting;  // rows, ascending
    StepRule rule;
    int uses = 0;
    size_t table = 0;             // which part of the tables it has
    cudaGraphExec_t graph = nullptr;
    bool same(int rows, const std::vector<int>& which, const StepRule& r) const;
  };

  int sequences() const { return static_cast<int>(o_.classIds.size()); }
  int streams() const { return sequences() * (o_.guided ? 2 : 1); }
  Status kindOf(const Row* rows, int count, const StepRule& rule, Kind*& out);
  cudaError_t enqueue(const Kind& kind, const Row* rows);
  cudaError_t multiply(const Projection& p, const Matrix& w);
  cudaError_t predict(const Kind& kind, RowTable table, const Row* rows);
  Status capture(Kind& kind);
  Status read(void* to, const void* from, size_t bytes);

  std::shared_ptr<CudaTransformer> transformer_;
  SessionOptions o_;
  Known known_;
  DeviceMemory memory_;
  HostMemory host_;
  // Strides of rows, padded to 16 elements; rows are stream-major (kernels.cuh).
  ptrdiff_t xStride_ = 0, wideStride_ = 0, ffStride_ = 0, vocabularyStride_ = 0;
  size_t cacheBytes_ = 0;         // keys or values of one layer
  int chunk_ = 0;                 // predictions whose logits exist at a time
  Row* ring_ = nullptr;           // [depth, maxRows], the host's, read by the device
  int* flag_ = nullptr;           // the host's: nonFinite_ as of the step before
  Row* rows_ = nullptr;           // [maxRows]
  uint32_t* counter_ = nullptr;   // steps done
  int* nonFinite_ = nullptr;
  float* x_ = nullptr;            // [rows, xStride]
  void* normed_ = nullptr;        // elements [rows, xStride]
  void* queries_ = nullptr;       // elements [rows, heads, padded head size]
  void* attended_ = nullptr;      // elements [rows, wideStride]
  void* gated_ = nullptr;         // elements [rows, ffStride]
  float* logits_ = nullptr;       // [branches chunk, vocabularyStride]
  void* gathered_ = nullptr;      // elements [branches chunk, xStride]
  float* guided_ = nullptr;       // [chunk, vocabulary], where logits are kept
  uint8_t* cache_ = nullptr;      // [layers][keys, values]
  float* partial_ = nullptr;
  uint32_t* counters_ = nullptr;
  int32_t* classIds_ = nullptr;
  uint64_t* seeds_ = nullptr;
  int32_t* tokens_ = nullptr;     // [sequences, tokens]
  float* logProbs_ = nullptr;     // the same
  float* kept_ = nullptr;         // [sequences, kept positions, vocabulary]
  Prediction* predictions_ = nullptr;  // [kinds][sequences maxRows]
  int32_t* gather_ = nullptr;          // [kinds][branches sequences maxRows]
  std::deque<Kind> kinds_;
  Event events_[depth];
  uint32_t steps_ = 0;
  Status failed_;  // of a step that ran in part: the device has counted it, so no other can follow
};

}  // namespace parvis::cuda
