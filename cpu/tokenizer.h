// The VQ tokenizer on the CPU: NHWC float32 pictures between operations, the multiplied type inside them.
#pragma once

#include <memory>
#include <vector>

#include "parvis/backend.h"
#include "picture.h"
#include "weights.h"

namespace parvis::cpu {

// Asks a loader for the parts of a tokenizer.
class LayerPlan {
 public:
  LayerPlan(Loader& loader, Element element) : loader_(loader), element_(element) {}
  void norm(GroupNorm& n, const std::string& name, int channels);
  void convolution(ConvolutionWeights& c, const std::string& name, int channels, int outputs, int kernel);

 private:
  Loader& loader_;
  Element element_;
};

class CpuTokenizer : public Tokenizer {
 public:
  static Status load(std::shared_ptr<Threads> threads, const CheckpointFile& file,
                     const std::vector<WeightSource>& weights, const TokenizerModel& model, Precision precision,
                     const Cancel& cancel, std::shared_ptr<Tokenizer>& out);
  size_t bytes() const override { return memory_.bytes(); }
  const TokenizerModel& model() const override { return model_; }
  Status decode(const int32_t* tokens, const DecodeOptions& options, uint8_t* bytes, float* floats,
                const Cancel& cancel) override;
  Status encode(const float* pixels, int count, int height, int width, int32_t* tokens, const Cancel& cancel) override;

 private:
  Status decodeOne(const int32_t* tokens, const DecodeOptions& options, uint8_t* bytes, float* floats,
                   PictureRunner& run) const;
  Status encodeOne(const float* pixels, int height, int width, int32_t* tokens, PictureRunner& run) const;
  // The decoded picture in the size and the type that were asked for: one of `bytes` and `floats` is null.
  Status output(const Picture& decoded, const DecodeOptions& options, uint8_t* bytes, float* floats,
                PictureRunner& run) const;
  void nearest(const Picture& x, int32_t* tokens, const Cancel& cancel) const;

  TokenizerModel model_;
  Element element_ = Element::float32;
  std::shared_ptr<Threads> threads_;
  Memory memory_;
  std::vector<PictureLayer<GroupNorm, ConvolutionWeights>> encoder_, decoder_;
  float* codebookStored_ = nullptr;  // [codebook, codeSize]
  std::vector<float> codebook_;      // rows of length 1
  bool codebookFinite_ = true;
  Pool pool_;  // calls come one after another
};

}  // namespace parvis::cpu
