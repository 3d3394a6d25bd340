// One generation or scoring run of a batch of sequences: KV cache, activations, tokens and random numbers.
#pragma once

#include "../common/steps.h"
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
  void growAngles(const Row* rows, int count);
  void matmul(const Packed& w, const void* x, ptrdiff_t xStride, int rows, Epilogue epilogue, float* y, void* out, ptrdiff_t yStride);
  void norm(const float* weight, int rows);
  void attention(int layer, int count);
  Status predict(const Row* rows, int count, const StepRule& rule, const Cancel& cancel);
  int sequences() const { return static_cast<int>(o_.classIds.size()); }
  int streams() const { return sequences() * (o_.guided ? 2 : 1); }
  CacheHead cache(int layer, int stream, int head) const;

  std::shared_ptr<CpuTransformer> transformer_;
  SessionOptions o_;
  Memory memory_;
  // Strides are padded to 32 so that a panel can always be stored whole. Rows: streams * maxRows, stream-major;
  // stream = branch * sequences + sequence, the conditional branch first.
  int dimStride_ = 0, qkvStride_ = 0, widthStride_ = 0, ffStride_ = 0, vocabularyStride_ = 0;
  size_t keyBytes_ = 0, valueBytes_ = 0, scratchBytes_ = 0;  // of one cache head; of one thread
  float* x_ = nullptr;         // residual stream [rows, dimStride]
  void* normed_ = nullptr;     // elements [rows, dimStride]
  float* qkv_ = nullptr;       // [rows, qkvStride]
  void* attended_ = nullptr;   // elements [rows, widthStride]
  void* gated_ = nullptr;      // elements [rows, ffStride]
  float* logits_ = nullptr;    // [chunk, vocabularyStride]
  void* gathered_ = nullptr;   // elements [chunk, dimStride]
  uint8_t* scratch_ = nullptr; // a thread's each
  uint8_t* cache_ = nullptr;
  int chunk_ = 0;
  int slots_ = 0;
  std::vector<AttentionRow> meta_;
  std::vector<float> cosine_, sine_;  // [positions, headSize / 2], two numbers a pair
  Known known_;
  std::vector<int32_t> tokens_;
  std::vector<float> logProbs_, kept_;
};

}  // namespace parvis::cpu
