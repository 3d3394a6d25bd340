// The causal tokenizer of videos on the CPU. A frame runs through all layers before the next one comes: each
// convolution keeps the two frames before it, as its filter reads them, so a video of any length takes the memory of a
// few frames, and a frame is final as soon as its tokens are known.
#pragma once

#include <memory>
#include <vector>

#include "../common/video-layers.h"
#include "parvis/backend.h"
#include "picture.h"
#include "weights.h"

namespace parvis::cpu {

struct VideoNorm {
  GroupNorm norm;
  float* slope = nullptr;  // [channels], of the swish behind it
};

class CpuVideoTokenizer : public VideoTokenizer {
 public:
  static Status load(std::shared_ptr<Threads> threads, const CheckpointFile& file,
                     const std::vector<WeightSource>& weights, const VideoTokenizerModel& model, Precision precision,
                     const Cancel& cancel, std::shared_ptr<VideoTokenizer>& out);
  size_t bytes() const override { return memory_.bytes(); }
  const VideoTokenizerModel& model() const override { return model_; }
  Status createDecoder(int rows, int columns, std::unique_ptr<VideoDecoder>& out) override;
  Status createEncoder(int rows, int columns, std::unique_ptr<VideoEncoder>& out) override;

  Threads& threads() const { return *threads_; }
  Element element() const { return element_; }
  using Layers = std::vector<VideoLayerWeights<VideoNorm, ConvolutionWeights>>;
  const Layers& layers(bool encoder) const { return encoder ? encoder_ : decoder_; }
  Profile* profile() { return recording(); }

 private:
  VideoTokenizerModel model_;
  Element element_ = Element::float32;
  std::shared_ptr<Threads> threads_;
  Memory memory_;
  Layers encoder_, decoder_;
};

}  // namespace parvis::cpu
