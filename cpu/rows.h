// What a session does with rows of activations, split over the threads: projections, norms, attention, draws. Apart from
// the session, so that single-operation.cc runs one of them by itself in the very same way. Which thread takes what never
// changes a result.
#pragma once

#include <vector>

#include "kernels.h"
#include "parvis/model.h"
#include "parvis/step.h"
#include "threads.h"
#include "weights.h"

namespace parvis::cpu {

inline Element elementOf(Precision precision) { return precision == Precision::float32 ? Element::float32 : Element::bfloat16; }

// Where the keys and values of heads lie that have so many slots.
struct CacheLayout {
  CacheLayout() = default;
  CacheLayout(int slots, int headSize, Element element);
  int slots = 0;  // rounded up to 32
  size_t keyBytes = 0, valueBytes = 0;  // of one head
  size_t bytes() const { return keyBytes + valueBytes; }
  CacheHead head(uint8_t* heads, size_t index) const;
};

// Cosines and sines of rotation cells, as far as they have been asked for.
class Angles {
 public:
  void grow(const TransformerModel& model, int last);  // rows and columns 0..last
  const float* cosine() const { return cosine_.data(); }
  const float* sine() const { return sine_.data(); }

 private:
  std::vector<float> cosine_, sine_;  // [positions, headSize / 2], two numbers a pair
};

// Attention of one layer: `count` rows of each stream, which see the cache of their own stream.
struct LayerAttention {
  const float* qkv;  // [streams count, qkvStride]: queries of all heads, keys, values
  ptrdiff_t qkvStride;
  const AttentionRow* rows;  // [count], the same for every stream
  int count, streams, heads, kvHeads, headSize;
  CacheLayout layout;
  uint8_t* cache;  // heads [streams, kvHeads]
  const Angles* angles;
  void* out;  // elements [streams count, outStride]
  ptrdiff_t outStride;
  uint8_t* scratch;  // scratchBytes a thread, at least attentionScratch
  size_t scratchBytes;
};

// Queries that attention answers between two looks at a cancellation, of so much work each: whole tiles.
int inTiles(int64_t work, int rows);

class Rows {
 public:
  // cancel: looked at every few tens of milliseconds; what comes out after it is of no use.
  Rows(Threads& threads, Element element, const Cancel& cancel) : threads_(threads), element_(element), cancel_(cancel) {}
  // x [rows, xStride] elements; y or out [rows, yStride], see Matmul
  void matmul(const Packed& w, const void* x, ptrdiff_t xStride, int rows, Epilogue epilogue, float* y, void* out, ptrdiff_t yStride) const;
  // x [rows, stride], weight [dim] -> out [rows, stride] elements
  void norm(const float* x, ptrdiff_t stride, int rows, const float* weight, int dim, float eps, void* out) const;
  void attention(const LayerAttention& a) const;

 private:
  Threads& threads_;
  Element element_;
  const Cancel& cancel_;
};

// One draw needs scratch: guided logits and weights.
size_t drawScratch(int vocabulary);
// conditional, unconditional (or null): [vocabulary]
Draw drawOf(const StepRule& rule, int vocabulary, const float* conditional, const float* unconditional, uint64_t seed, int index, uint8_t* scratch);

}  // namespace parvis::cpu
