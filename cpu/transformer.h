// The transformer's weights in packed form, and the session that steps through them.
#pragma once

#include <memory>
#include <vector>

#include "parvis/backend.h"
#include "weights.h"

namespace parvis::cpu {

struct NormWeights {
  float *weight = nullptr, *bias = nullptr;  // [dim]
};

struct Layer {
  NormWeights attentionNorm;
  Matrix qkv;              // [(heads + 2 kvHeads) headSize, dim]; of a cross layer [heads headSize, dim]
  Matrix attentionOutput;  // [dim, heads headSize]
  NormWeights feedForwardNorm;
  Matrix up;    // panels as its epilogue takes them (kernels.h)
  Matrix down;  // [dim, feedForward]
};

class CpuTransformer : public Transformer {
 public:
  static Status load(std::shared_ptr<Threads> threads, const CheckpointFile& file,
                     const std::vector<WeightSource>& weights, const TransformerModel& model, Precision precision,
                     const Cancel& cancel, std::shared_ptr<Transformer>& out);
  size_t bytes() const override { return memory_.bytes(); }
  const TransformerModel& model() const override { return model_; }
  Status createSession(const SessionOptions& options, std::unique_ptr<Session>& out) override;

  TransformerModel model_;
  Numbers numbers_;
  std::shared_ptr<Threads> threads_;
  Memory memory_;
  std::vector<Layer> layers_;  // cross layers behind the others
  void* classes_ = nullptr;    // [classes + 1, dim], kept elements
  void* tokens_ = nullptr;     // [vocabulary, dim]
  void* specials_ = nullptr;   // [specials, dim]
  void* positions_ = nullptr;  // [positions, dim]
  NormWeights embeddingNorm_, sharedNorm_, finalNorm_;
  Matrix sharedKeysValues_;  // [2 kvHeads headSize, dim]
  Matrix head_;              // [vocabulary, dim]
};

}  // namespace parvis::cpu
