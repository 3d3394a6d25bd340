// The kernel families: raw pointers to device memory and a stream in, a status out. Nothing here allocates, waits for the
// device or knows of sessions. Each function enqueues one operation; `threads` is the block size, so that tests can run
// small blocks. Sizes that a kernel cannot run are cudaErrorInvalidValue.
#pragma once

#include "parvis/step.h"
#include "platform.cuh"

namespace parvis::cuda {

enum class Element { float32, bfloat16 };  // bfloat16 as uint16_t

// The rows of all steps lie on the device; `step` counts there, so that one captured graph serves every step.
struct RowTable {
  const Row* rows;  // [steps, count]
  int count;        // rows a step, of each stream
  const int* step;  // null: 0
  __device__ const Row& at(int i) const { return rows[(step ? static_cast<ptrdiff_t>(*step) * count : 0) + i]; }
};
// Rows of activations are stream-major: row = stream * count + i, stream = branch * sequences + sequence, the
// conditional branch first. Their strides are padded to 16 elements, and what pads them is zero from the start.

// ---- embed.cu: the inputs of a step -------------------------------------------------------------------------

struct Embedding {
  RowTable rows;
  int sequences, streams;
  const int32_t* tokens;    // [sequences, tokensEach]
  int tokensEach;
  const int32_t* classIds;  // [sequences]
  int classes;              // the unconditional class
  const void* classTable;   // elements [classes + 1, dim]
  const void* tokenTable;   // elements [vocabulary, dim]
  const void* transitionTable;  // elements [transitions, dim]
  Element element;
  int dim;
  float* x;                 // [streams count, xStride]
  ptrdiff_t xStride;
  int threads;
};
cudaError_t embed(const Embedding& e, cudaStream_t stream);

// ---- norm.cu: RMSNorm ---------------------------------------------------------------------------------------

struct Norm {
  const float* x;        // [any, xStride]
  ptrdiff_t xStride;
  const int32_t* from;   // [rows]: which row of x; null: the same
  int rows, dim;
  const float* weight;   // [dim]
  float eps;
  Element element;
  void* out;             // elements [rows, outStride]
  ptrdiff_t outStride;
  int threads;           // a warp a row
};
cudaError_t norm(const Norm& n, cudaStream_t stream);

// ---- rotate.cu: rotation, and a group of keys and values into the cache --------------------------------------

// One layer. Head sizes are padded to 16 elements: 100 -> 112.
struct Cache {
  void* keys;    // elements [streams, kvHeads, slots, padded head size]
  void* values;  // the same
  int slots;
};
__host__ __device__ constexpr int paddedHead(int headSize) { return (headSize + 15) / 16 * 16; }

struct Rotation {
  RowTable rows;
  int streams, heads, kvHeads, headSize;
  const float* cosine;  // [positions, headSize / 4]
  const float* sine;
  Element element;
  void* queries;        // elements [streams count, heads, padded head size]
  Cache cache;
};
// qkv [streams count, qkvStride]: queries of all heads, keys, values.
cudaError_t rotate(const Rotation& r, const float* qkv, ptrdiff_t qkvStride, int threads, cudaStream_t stream);

// ---- sample.cu: logits to tokens ----------------------------------------------------------------------------

struct Prediction {
  int32_t sequence, row;  // of the step
};

struct Sampling {
  const float* conditional;    // [predictions, stride]
  const float* unconditional;  // the same; null: no guidance
  ptrdiff_t stride;
  int predictions, vocabulary;
  const Prediction* table;     // [predictions]
  RowTable rows;               // which position a row predicts
  const uint64_t* seeds;       // [sequences]
  int tokensEach;
  int32_t* tokens;             // [sequences, tokensEach]: drawn, or read where scored
  float* logProbs;             // [sequences, tokensEach]: scores
  float* guided;               // [predictions, vocabulary]: the guided logits; or null
  int* nonFinite;              // becomes 1 where a logit is NaN or infinite; the token is then -1
  float guidanceScale, temperature, topP;
  int topK;
  int threads;
};
cudaError_t sample(const Sampling& s, cudaStream_t stream);
cudaError_t score(const Sampling& s, cudaStream_t stream);

}  // namespace parvis::cuda
