// The transformer's weights on a device, and the rotation tables that its sessions share.
#pragma once

#include <mutex>

#include "device.h"
#include "kernels.cuh"
#include "loader.h"
#include "parvis/backend.h"
#include "workspace.h"

namespace parvis::cuda {

struct Layer {
  const float* attentionNorm = nullptr;    // [dim], and zeroes to a multiple of 16
  const float* feedForwardNorm = nullptr;  // the same
  Matrix qkv;     // [(heads + 2 kvHeads) headSize, dim]
  Matrix wo;      // [dim, heads headSize]
  Matrix gateUp;  // gates and ups, [feedForward, dim] each
  Matrix down;    // [dim, feedForward]
};

class CudaTransformer : public Transformer, private Spare {
 public:
  CudaTransformer() = default;
  ~CudaTransformer() override;
  static Status load(std::shared_ptr<Device> device, const CheckpointFile& file, const std::vector<TensorSource>& tensors, const TransformerModel& model,
                     Precision precision, const Cancel& cancel, std::shared_ptr<Transformer>& out);
  size_t bytes() const override { return memory_.bytes(); }
  const TransformerModel& model() const override { return model_; }
  Status createSession(SessionOptions options, std::unique_ptr<Session>& out) override;
  // What the last session leaves for the next one of its shape; null where there is nothing. Anything of another shape goes.
  std::unique_ptr<Workspace> takeKept(const Shape& shape);
  void keep(std::unique_ptr<Workspace> workspace);  // which has been waited for
  // Rotation tables that reach the last of these positions; their place does not change.
  Status growAngles(int positions);

  std::shared_ptr<Device> device_;
  TransformerModel model_;
  Element element_ = Element::bfloat16;
  DeviceMemory memory_, angles_;
  std::vector<Layer> layers_;
  const void* classes_ = nullptr;      // elements [classes + 1, dim]
  const void* tokens_ = nullptr;       // elements [vocabulary, dim]
  const void* transitions_ = nullptr;  // elements [transitions, dim]
  const float* norm_ = nullptr;        // [dim]
  Matrix output_;                      // [vocabulary, dim]
  float *cosine_ = nullptr, *sine_ = nullptr;  // [maxPosition, headSize / 4], filled as far as positions_
  int positions_ = 0;
  std::vector<std::vector<float>> angleTables_;  // as they are copied, which may be as late as the device gets there

 private:
  bool giveUp() override { return exchangeKept(nullptr) != nullptr; }
  size_t spareBytes() override;
  std::unique_ptr<Workspace> exchangeKept(std::unique_ptr<Workspace> workspace);
  std::mutex keptLock_;
  std::unique_ptr<Workspace> kept_;
};

}  // namespace parvis::cuda
