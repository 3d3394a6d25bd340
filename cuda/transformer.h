// The transformer's weights on a device, and the rotation tables that its sessions share.
#pragma once

#include <mutex>

#include "device.h"
#include "kernels.cuh"
#include "loader.h"
#include "parvis/backend.h"
#include "workspace.h"

namespace parvis::cuda {

struct NormWeights {
  const float *weight = nullptr, *bias = nullptr;  // [dim], and zeroes to a multiple of 16
};

struct Layer {
  NormWeights attentionNorm, feedForwardNorm;
  Matrix qkv;              // [(heads + 2 kvHeads) headSize, dim]; of a cross layer [heads headSize, dim]
  Matrix attentionOutput;  // [dim, heads headSize]
  Matrix up;               // [feedForward, dim]; swiglu: gates and ups, as many each
  Matrix down;             // [dim, feedForward]
};

class CudaTransformer : public Transformer, private Reclaimable {
 public:
  CudaTransformer() = default;
  ~CudaTransformer() override;
  static Status load(std::shared_ptr<Device> device, const CheckpointFile& file,
                     const std::vector<WeightSource>& weights, const TransformerModel& model, Precision precision,
                     const Cancel& cancel, std::shared_ptr<Transformer>& out);
  size_t bytes() const override { return memory_.bytes() + angles_.bytes(); }
  const TransformerModel& model() const override { return model_; }
  Status createSession(const SessionOptions& options, std::unique_ptr<Session>& out) override;
  // What the last session leaves for the next one of its shape; null where there is nothing. Anything of another shape
  // goes.
  std::unique_ptr<Workspace> takeKept(const SessionOptions& options);
  void keep(std::unique_ptr<Workspace> workspace);  // which has been waited for
  // Rotation tables that reach the last of these positions; their place does not change.
  Status growAngles(int positions);

  std::shared_ptr<Device> device_;
  TransformerModel model_;
  Element element_ = Element::bfloat16;
  DeviceMemory memory_, angles_;
  std::vector<Layer> layers_;        // cross layers behind the others
  const void* classes_ = nullptr;    // elements [classes + 1, dim]
  const void* tokens_ = nullptr;     // elements [vocabulary, dim]
  const void* specials_ = nullptr;   // elements [specials, dim]
  const void* positions_ = nullptr;  // elements [positions, dim]
  NormWeights embeddingNorm_, sharedNorm_, finalNorm_;
  Matrix sharedKeysValues_;                    // [2 kvHeads headSize, dim]
  Matrix head_;                                // [vocabulary, dim]
  float *cosine_ = nullptr, *sine_ = nullptr;  // [maxPosition, rotated pairs], filled as far as angledPositions_
  int angledPositions_ = 0;
  std::vector<std::vector<float>> angleTables_;  // as they are copied, which may be as late as the device gets there

 private:
  bool reclaim() override { return exchangeKept(nullptr) != nullptr; }
  size_t reclaimableBytes() override;
  std::unique_ptr<Workspace> exchangeKept(std::unique_ptr<Workspace> workspace);
  std::mutex keptLock_;
  std::unique_ptr<Workspace> kept_;
};

}  // namespace parvis::cuda
