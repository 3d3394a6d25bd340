// The VQ tokenizer on the CPU: NHWC float32 pictures between operations, the multiplied type inside them.
#pragma once

#include <memory>
#include <vector>

#include "parvis/backend.h"
#include "picture.h"
#include "weights.h"

namespace parvis::cpu {

struct GroupNorm {
  float* scale = nullptr;  // [channels]
  float* shift = nullptr;
  int channels = 0;
};

struct ConvolutionWeights {
  Packed w;
  float* bias = nullptr;
  int channels = 0, padded = 0, outputs = 0, kernel = 0;
};

struct Residual {
  GroupNorm norm1, norm2;
  ConvolutionWeights conv1, conv2, shortcut;  // shortcut.outputs = 0: none
};

struct SelfAttention {
  GroupNorm norm;
  ConvolutionWeights q, k, v, out;
};

struct Level {
  std::vector<Residual> residuals;
  std::vector<SelfAttention> attentions;
  ConvolutionWeights resample;  // outputs = 0: none
};

struct Half {  // encoder or decoder
  ConvolutionWeights in, out;
  Residual mid0, mid2;
  SelfAttention mid1;
  std::vector<Level> levels;
  GroupNorm norm;
};

class CpuTokenizer : public Tokenizer {
 public:
  static Status load(std::shared_ptr<Threads> threads, const std::string& file, const std::vector<TensorSource>& tensors,
                     const TokenizerModel& model, Precision precision, const Cancel& cancel, std::shared_ptr<Tokenizer>& out);
  size_t bytes() const override { return memory_.bytes(); }
  const TokenizerModel& model() const override { return model_; }
  Status decode(const int32_t* tokens, const DecodeOptions& options, uint8_t* bytes, float* floats, const Cancel& cancel) override;
  Status encode(const float* pixels, int count, int height, int width, int32_t* tokens, const Cancel& cancel) override;

 private:
  Status decodeOne(const int32_t* tokens, const DecodeOptions& options, uint8_t* bytes, float* floats, Operations& run) const;
  Status encodeOne(const float* pixels, int height, int width, int32_t* tokens, Operations& run) const;

  TokenizerModel model_;
  Element element_ = Element::float32;
  std::shared_ptr<Threads> threads_;
  Memory memory_;
  Half encoder_, decoder_;
  ConvolutionWeights quant_, postQuant_;
  float* codebookStored_ = nullptr;  // [codebook, codeSize]
  std::vector<float> codebook_;      // rows of length 1
};

}  // namespace parvis::cpu
