// One generation or scoring run of a batch of sequences on a device. step() enqueues and returns: tokens, cache and random
// numbers stay on the device, and nothing waits for it but a step that would run more than `depth` ahead. What a failed
// step has to say is therefore said by a later one, or by the call that reads its results.
//   A step's rows go into a ring that the device reads by itself, with a counter that lies there too: so a step is one
// graph, captured when the same kind of step comes a second time and replayed from then on.
#pragma once

#include "../common/steps.h"
#include "transformer.h"
#include "workspace.h"

namespace parvis::cuda {

class CudaSession : public Session {
 public:
  CudaSession(std::shared_ptr<CudaTransformer> transformer, SessionOptions options) : transformer_(std::move(transformer)), o_(std::move(options)) {}
  ~CudaSession() override;
  Status allocate();  // or what the last session of this shape has left
  Status step(const Row* rows, int count, const StepRule& rule, const Cancel& cancel) override;
  Status readTokens(int32_t* out) override;
  Status readLogProbs(float* out) override;
  Status readLogits(float* out) override;

 private:
  using Kind = Workspace::Kind;

  int sequences() const { return static_cast<int>(o_.classIds.size()); }
  int streams() const { return sequences() * (o_.guided ? 2 : 1); }
  cudaError_t enqueue(const Kind& kind, const Row* rows);
  cudaError_t predict(const Kind& kind, RowTable table, const Row* rows);
  Status capture(Kind& kind);
  Status read(void* to, const void* from, size_t bytes);

  std::shared_ptr<CudaTransformer> transformer_;
  SessionOptions o_;
  Known known_;
  std::unique_ptr<Workspace> w_;
  bool sound_ = true;  // results were read after the last step, and all numbers are finite
  uint32_t steps_ = 0;
  Status failed_;  // of a step that ran in part: the device has counted it, so no other can follow
};

}  // namespace parvis::cuda
