// One generation or scoring run of a batch of sequences: KV cache, activations, tokens and random numbers.
#pragma once

#include "../common/steps.h"
#include "rows.h"
#include "transformer.h"

namespace parvis::cpu {

class CpuSession : public Session {
 public:
  CpuSession(std::shared_ptr<CpuTransformer> transformer, SessionOptions options)
      : transformer_(std::move(transformer)), o_(std::move(options)) {}
  Status allocate();
  Status step(const Row* rows, int count, const StepRule& rule, const Cancel& cancel) override;
  Status readTokens(int32_t* out) override;
  Status readLogProbs(float* out) override;
  Status readLogits(float* out) override;

 private:
  struct Prediction {
    int sequence, row;
  };
  void embed(const Row* rows, int count);
  void attention(const Rows& run, int layer, int count);
  Status predict(const Row* rows, int count, const StepRule& rule, const Cancel& cancel);
  int sequences() const { return static_cast<int>(o_.classIds.size()); }
  int streams() const { return sequences() * (o_.guided ? 2 : 1); }
  Rows run(const Cancel& cancel) const { return {*transformer_->threads_, transformer_->element_, cancel}; }

  std::shared_ptr<CpuTransformer> transformer_;
  SessionOptions o_;
  Memory memory_;
  // Strides are padded to 32 so that a panel can always be stored whole. Rows: streams * maxRows, stream-major;
  // stream = branch * sequences + sequence, the conditional branch first.
  int dimStride_ = 0, qkvStride_ = 0, widthStride_ = 0, ffStride_ = 0, vocabularyStride_ = 0;
  CacheLayout layout_;
  size_t scratchBytes_ = 0;    // of one thread
  float* x_ = nullptr;         // residual stream [rows, dimStride]
  void* normed_ = nullptr;     // elements [rows, dimStride]
  float* qkv_ = nullptr;       // [rows, qkvStride]
  void* attended_ = nullptr;   // elements [rows, widthStride]
  void* gated_ = nullptr;      // elements [rows, ffStride]
  float* logits_ = nullptr;    // [chunk, vocabularyStride]
  void* gathered_ = nullptr;   // elements [chunk, dimStride]
  uint8_t* scratch_ = nullptr; // a thread's each
  uint8_t* cache_ = nullptr;   // heads [layers, streams, kvHeads]
  int chunk_ = 0;
  std::vector<AttentionRow> meta_;
  Angles angles_;
  Known known_;
  std::vector<int32_t> tokens_;
  std::vector<float> logProbs_, kept_;
};

}  // namespace parvis::cpu
