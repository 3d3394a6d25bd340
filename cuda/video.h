// The causal tokenizer of videos on a GPU: as cpu/video.h has it, frame after frame, with what each filter needs of the
// two frames before it kept on the device.
#pragma once

#include <memory>
#include <vector>

#include "../common/video-layers.h"
#include "device.h"
#include "loader.h"
#include "parvis/backend.h"
#include "video-layers.cuh"

namespace parvis::cuda {

struct DeviceVideoNorm {
  const float *weight = nullptr, *bias = nullptr, *slope = nullptr;  // [channels]; slope: of the swish behind it
  int channels = 0;
};

class CudaVideoTokenizer : public VideoTokenizer {
 public:
  using Layers = std::vector<VideoLayerWeights<DeviceVideoNorm, video::Filter>>;
  static Status load(std::shared_ptr<Device> device, const CheckpointFile& file,
                     const std::vector<WeightSource>& weights, const VideoTokenizerModel& model, Precision precision,
                     const Cancel& cancel, std::shared_ptr<VideoTokenizer>& out);
  size_t bytes() const override { return memory_.bytes(); }
  const VideoTokenizerModel& model() const override { return model_; }
  Status createDecoder(int rows, int columns, std::unique_ptr<VideoDecoder>& out) override;
  Status createEncoder(int rows, int columns, std::unique_ptr<VideoEncoder>& out) override;

  const std::shared_ptr<Device>& device() const { return device_; }
  Element element() const { return element_; }
  const Layers& layers(bool encoder) const { return encoder ? encoder_ : decoder_; }
  Profile* profile() { return recording(); }

 private:
  VideoTokenizerModel model_;
  Element element_ = Element::float32;
  std::shared_ptr<Device> device_;
  DeviceMemory memory_;
  Layers encoder_, decoder_;
};

}  // namespace parvis::cuda
