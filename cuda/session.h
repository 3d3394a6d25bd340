// A pool of seats on a device. step() enqueues and returns: tokens, caches and random numbers stay on the device, and
// nothing waits for it but a step that would run more than `depth` ahead, and a pass whose sequences may be at their
// end. What a step has to say of its logits is therefore said by a later one, or by the call that reads its results.
//   A step's tables go into a ring that the device reads by itself, with a counter that lies there too: so a step is
//   one graph, captured when a step of the same plan comes a second time and replayed from then on.
#pragma once

#include "../common/passes.h"
#include "../common/steps.h"
#include "ahead.h"
#include "rows.h"
#include "transformer.h"
#include "workspace.h"

namespace parvis::cuda {

// What the rows of a step see, for its profile.
struct SeenInStep {
  SeenSlots layers, crossLayers;
};

class CudaSession : public Session {
 public:
  CudaSession(std::shared_ptr<CudaTransformer> transformer, const SessionOptions& options)
      : transformer_(std::move(transformer)), o_(options) {}
  ~CudaSession() override;
  Status allocate();  // or what the last session of this shape has left
  size_t bytes() const override { return w_ ? w_->bytes() : 0; }
  Status enter(int seat, const Sequence& sequence) override;
  Status leave(int seat) override;
  Status step(const Step& step, const Cancel& cancel, std::vector<int32_t>& failed) override;
  Status plan(int seat, SequencePlan plan) override;
  Status pass(const std::vector<PassPart>& parts, const Cancel& cancel, PassResult& result) override;
  Status readTokens(int seat, int32_t* out) override;
  Status readLogProbs(int seat, float* out) override;
  Status readLogits(int seat, float* out) override;

 private:
  struct Stack;
  cudaError_t enqueue(Launcher& launch, const StepPlan& plan, const SeenInStep& seen);
  void begin(Launcher& launch, const Stack& stack);
  void run(Launcher& launch, const Stack& stack);
  void share(Launcher& launch, const Stack& stack);
  Rotation rotation(const RowTable& rows, int heads, int kvHeads, const Cache& cache) const;
  Cache cacheOf(int index) const;
  SeenInStep seenIn(const Step& step) const;
  void predict(Launcher& launch, const StepPlan& plan, const Stack& stack);
  Status capture(Workspace::Captured& captured);
  cudaError_t captureAs(Launches way, Workspace::Captured& captured);
  void collectFailures();
  Status ready(const Cancel& cancel);
  Status launch(const StepPlan& plan, const SeenInStep& seen);
  Status passAhead(std::vector<PassPart> parts, const Cancel& cancel, PassResult& result);
  Status goAhead(int seat);
  void hear(const std::vector<PassPart>& parts);
  Status settle(const std::vector<PassPart>& parts);
  Status read(int seat, void* to, const void* from, size_t bytes);

  std::shared_ptr<CudaTransformer> transformer_;
  SessionOptions o_;
  Seats seats_;
  Passes passes_;
  std::unique_ptr<Workspace> w_;
  uint32_t steps_ = 0;
  Ahead ahead_;
  std::vector<uint32_t> enteredAt_;  // [seats]: steps that had been enqueued by then
  Status failed_;                    // of a step that ran in part: the device has counted it, so no other can follow
};

}  // namespace parvis::cuda
