// A pool of seats on the CPU: key/value caches, activations, tokens and random numbers of sequences that run together.
#pragma once

#include "../common/passes.h"
#include "../common/steps.h"
#include "rows.h"
#include "transformer.h"

namespace parvis::cpu {

// Where a session's memory has what. Strides are padded to 32 so that a panel can always be stored whole. Rows are
// those of a step, at most maxRows.
struct SessionLayout {
  SessionLayout() = default;
  SessionLayout(const TransformerModel& model, const Numbers& numbers, int threads, const SessionOptions& options);
  int dimStride = 0, qkvStride = 0, widthStride = 0, ffStride = 0, vocabularyStride = 0;
  int chunk = 0;                        // rows of logits that exist at a time
  CacheLayout cache;                    // of a head
  size_t scratchBytes = 0;              // of one thread
  size_t tokensEach = 0, keptEach = 0;  // numbers of one seat
  // Bytes from the start of the memory.
  size_t x = 0, normed = 0, qkv = 0, attended = 0, gated = 0, logits = 0, gathered = 0, scratch = 0, caches = 0,
         tokens = 0, logProbs = 0, kept = 0;
  size_t bytes = 0;
};

// [begin, end)
struct Range {
  int begin, end;
  int count() const { return end - begin; }
};

class CpuSession : public Session {
 public:
  CpuSession(std::shared_ptr<CpuTransformer> transformer, const SessionOptions& options)
      : transformer_(std::move(transformer)), o_(options) {}
  Status allocate();
  size_t bytes() const override { return memory_.bytes(); }
  Status enter(int seat, const Sequence& sequence) override;
  Status leave(int seat) override;
  Status step(const Step& step, const Cancel& cancel, std::vector<int32_t>& failed) override;
  Status plan(int seat, SequencePlan plan) override;
  Status pass(const std::vector<PassPart>& parts, const Cancel& cancel, PassResult& result) override;
  Status readTokens(int seat, int32_t* out) override;
  Status readLogProbs(int seat, float* out) override;
  Status readLogits(int seat, float* out) override;

 private:
  void embed(const Step& step);
  void rotate(float* x, const Row& row) const;
  Status runLayers(const Rows& run, const Step& step, Range rows, Range layers, const Cancel& cancel);
  void share(const Rows& run, const Step& step, Range rows);
  RowNorm norm(NormKind kind, const NormWeights& weights) const;
  // heads: of queries; 0: keys and values are appended, and nothing is asked
  void attention(const Rows& run, const Step& step, Range rows, int heads, int cache);
  Status predict(const Rows& run, const Step& step, const Cancel& cancel);
  bool draw(const Prediction& prediction, const SamplingRule& rule, int seat, const float* conditional,
            const float* unconditional, uint8_t* scratch);
  Status broken(const Step& step);
  Status readable(int seat) const;
  template <class T>
  Status read(int seat, const T* from, size_t each, T* out) const;

  std::shared_ptr<CpuTransformer> transformer_;
  SessionOptions o_;
  Seats seats_;
  Passes passes_;
  Memory memory_;
  SessionLayout layout_;
  float* x_ = nullptr;          // residual stream [rows, dimStride]
  void* normed_ = nullptr;      // elements [rows, dimStride]
  float* qkv_ = nullptr;        // [rows, qkvStride]
  void* attended_ = nullptr;    // elements [rows, widthStride]
  void* gated_ = nullptr;       // elements [rows, ffStride]
  float* logits_ = nullptr;     // [chunk, vocabularyStride]
  void* gathered_ = nullptr;    // elements [chunk, dimStride]
  uint8_t* scratch_ = nullptr;  // a thread's each
  uint8_t* cache_ = nullptr;    // heads [cacheCount(model), streams, kvHeads]
  std::vector<AttentionRow> rows_;
  std::vector<Group> groups_;  // of the rows that run now, counted from the first of them
  Angles angles_;
  int32_t* tokens_ = nullptr;  // [seats, tokens]
  float* logProbs_ = nullptr;  // [seats, tokens]
  float* kept_ = nullptr;      // [seats, kept, vocabulary]
};

}  // namespace parvis::cpu
