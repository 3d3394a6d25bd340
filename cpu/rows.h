// What a session does with rows of activations, split over the threads: projections, norms, attention, draws. Apart
// from the session, so that test/operations-addon runs one of them by itself in the very same way. Which thread takes
// what never changes a result.
#pragma once

#include <vector>

#include "../common/steps.h"
#include "kernels.h"
#include "parvis/model.h"
#include "parvis/profile.h"
#include "parvis/step.h"
#include "threads.h"
#include "weights.h"

namespace parvis::cpu {

// Where the keys and values of heads lie that have so many slots.
struct CacheLayout {
  CacheLayout() = default;
  CacheLayout(int slots, int headSize, Element element);
  int slots = 0;                        // rounded up to 32
  size_t keyBytes = 0, valueBytes = 0;  // of one head
  size_t bytes() const { return keyBytes + valueBytes; }
  CacheHead head(uint8_t* heads, size_t index) const;
};

// Cosines and sines of rotation cells, as far as they have been asked for.
class Angles {
 public:
  void grow(const TransformerModel& model, int last);  // positions 0..last of every axis
  Rotation of(const TransformerModel& model) const;

 private:
  int positions_ = 0;
  std::vector<float> cosine_, sine_;  // [positions, rotated pairs], two numbers a pair
};

// Attention of one layer: groups of rows, each of which sees the cache of its own stream.
struct LayerAttention {
  const float* qkv;  // [rows, qkvStride]: queries of all heads, keys, values
  ptrdiff_t qkvStride;
  const AttentionRow* rows;
  const Group* groups;
  int groupCount, heads, kvHeads, headSize;
  CacheLayout layout;
  uint8_t* cache;  // heads [streams, kvHeads]
  Rotation rotation;
  void* out;  // elements [rows, outStride]
  ptrdiff_t outStride;
  uint8_t* scratch;  // scratchBytes a thread, at least attentionScratch
  size_t scratchBytes;
};

// Queries that attention answers between two looks at a cancellation, of so much work each.
int inTiles(int64_t work, int rows);

// How rows are normalised: weights [dim], and biases [dim] where it is a LayerNorm.
struct RowNorm {
  NormKind kind;
  const float *weight, *bias;
  int dim;
  float eps;
  Norm of(const float* x, void* out) const { return {kind == NormKind::layer, x, weight, bias, out, dim, eps}; }
};

class Rows {
 public:
  // cancel: looked at every few tens of milliseconds; what comes out after it is of no use. profile: where launches are
  // recorded, or null.
  Rows(Threads& threads, const Numbers& numbers, const Cancel& cancel, Profile* profile = nullptr)
      : threads_(threads), numbers_(numbers), cancel_(cancel), profile_(profile) {}
  // x [rows, xStride] elements; y or out [rows, yStride], see Matmul
  void matmul(const Matrix& w, const void* x, ptrdiff_t xStride, int rows, Epilogue epilogue, float* y, void* out,
              ptrdiff_t yStride) const;
  // x [rows, stride] -> out [rows, stride] elements
  void norm(const float* x, ptrdiff_t stride, int rows, const RowNorm& norm, void* out) const;
  void attention(const LayerAttention& a) const;
  Profile* profile() const { return profile_; }

 private:
  void multiply(const Matrix& w, const void* x, ptrdiff_t xStride, int rows, Epilogue epilogue, float* y, void* out,
                ptrdiff_t yStride) const;
  Threads& threads_;
  Numbers numbers_;
  const Cancel& cancel_;
  Profile* profile_;
};

// One draw needs scratch: guided logits and weights.
size_t drawScratch(int vocabulary);
// conditional, unconditional (or null): [vocabulary]. The guided logits are in the result's `logits` once it was drawn.
Draw drawOf(const SamplingRule& rule, float guidance, int vocabulary, const float* conditional,
            const float* unconditional, uint64_t seed, int index, uint8_t* scratch);

}  // namespace parvis::cpu
