// The VQ tokenizer on a CUDA device. Images are decoded a few at a time, as many as keep the device busy within bounded
// memory; each is computed as if it were alone, so how many does not show.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "loader.h"
#include "parvis/backend.h"
#include "picture-runner.h"

namespace parvis::cuda {

class CudaTokenizer : public Tokenizer, private Reclaimable {
 public:
  CudaTokenizer() = default;
  ~CudaTokenizer() override;
  static Status load(std::shared_ptr<Device> device, const CheckpointFile& file,
                     const std::vector<WeightSource>& weights, const TokenizerModel& model, Precision precision,
                     const Cancel& cancel, std::shared_ptr<Tokenizer>& out);
  size_t bytes() const override { return memory_.bytes(); }
  const TokenizerModel& model() const override { return model_; }
  Status decode(const int32_t* tokens, const DecodeOptions& options, uint8_t* bytes, float* floats,
                const Cancel& cancel) override;
  Status encode(const float* pixels, int count, int height, int width, int32_t* tokens, const Cancel& cancel) override;

 private:
  bool reclaim() override;
  size_t reclaimableBytes() override;
  void decodePass(PictureRunner& run, const int32_t* tokens, const DecodeOptions& options, uint8_t* bytes,
                  float* floats, int* nonFinite) const;
  void encodePass(PictureRunner& run, const float* pixels, int height, int width, int32_t* tokens) const;
  // Calls pass(run, first image) for `count` images, some at a time.
  template <class Pass>
  Status passes(int count, const Cancel& cancel, Pass&& pass);
  template <class Pass>
  Status usedPasses(int count, const Cancel& cancel, Pass&& pass);

  TokenizerModel model_;
  Element element_ = Element::float32;
  std::shared_ptr<Device> device_;
  DeviceMemory memory_;   // weights
  DeviceMemory scratch_;  // pictures of the last call, kept where it is small
  HostMemory staging_;    // through which they go to the host
  std::mutex scratchLock_;
  bool busy_ = false;  // a call uses scratch_: nobody else does
  std::vector<PictureLayer<VqNorm, VqFilter>> encoder_, decoder_;
  const float* codebook_ = nullptr;  // [codebook, codeSize], rows of length 1
  bool codebookFinite_ = true;
};

}  // namespace parvis::cuda
