// The kernel families: raw pointers to device memory and a stream in, a status out. Nothing here allocates, waits for the
// device or knows of sessions. Each function enqueues one operation; `threads` is the block size, so that tests can run
// small blocks. Sizes that a kernel cannot run are cudaErrorInvalidValue.
#pragma once

#include "parvis/step.h"
#include "platform.cuh"

namespace parvis::cuda {

enum class Element { float32, bfloat16, float16 };  // both halves as uint16_t; float16 only where pack.cu reads what is stored
constexpr size_t sizeOf(Element e) { return e == Element::float32 ? 4 : 2; }

// The rows of all steps lie on the device; `step` counts there, so that one captured graph serves every step.
struct RowTable {
  const Row* rows;  // [steps, count]
  int count;        // rows a step, of each stream
  const int* step;  // null: 0
  __device__ const Row& at(int i) const { return rows[(step ? static_cast<ptrdiff_t>(*step) * count : 0) + i]; }
};
// Rows of activations are stream-major: row = stream * count + i, stream = branch * sequences + sequence, the
// conditional branch first. Their strides are padded to 16 elements, and what pads them is zero from the start.

constexpr int mostHeadSize = 128;
constexpr int mostSplitQueries = 64;      // queries of a key/value head in a step: up to here attend, above it attendRows
constexpr int mostVocabulary = 48 << 10;  // anywhere: a row of logits must fit into shared memory

// ---- norm.cu: RMSNorm ---------------------------------------------------------------------------------------

// For float32.
struct Norm {
  const float* x;        // [any, xStride]
  ptrdiff_t xStride;
  const int32_t* from;   // [rows]: which row of x; null: the same
  int rows, dim;
  const float* weight;   // [dim]
  float eps;
  float* out;            // [rows, outStride]
  ptrdiff_t outStride;
  int threads;           // a warp a row
};
cudaError_t norm(const Norm& n, StepStream stream);

// For bfloat16 no norm is ever whole. Its 1 / rms is one number a row, and products are linear: whoever makes a row of x (embed,
// a projection that adds to it) leaves it times the weight of the norm that comes next, and sums of squares; the projection
// behind the norm multiplies rows without their 1 / rms, and its sums by it. So a norm is no launch, nobody waits for a whole
// row before the first product, and elements are rounded once, not twice.
struct Weighted {
  const float* weight;   // [dim], and zeroes to a multiple of 16; null: no norm comes next
  uint16_t* elements;    // bfloat16 [rows, stride]: x weight
  ptrdiff_t stride;      // even
  float* squares;        // [rows, squaresStride(dim)]: sums of squares of 16 elements of x each; what pads a row is zero
};
__host__ __device__ constexpr int squaresStride(int dim) { return (dim + 63) / 64 * 4; }

// Of rows of x, the bits that other kernels leave of them.
struct Weighing {
  const float* x;        // [any, xStride]
  ptrdiff_t xStride;     // even
  const int32_t* from;   // [rows]: which row of x; null: the same
  int rows, dim;
  Weighted to;
  int threads;           // a warp a row
};
cudaError_t weigh(const Weighing& w, StepStream stream);

// ---- embed.cu: the rows and inputs of a step ----------------------------------------------------------------

// From a ring on the host, which the device reads, to where the step's kernels find them; counts the step.
struct TakeRows {
  const Row* ring;     // [depth, stride], the host's
  int depth, stride, count;
  uint32_t* counter;   // steps so far: which part of the ring is next
  Row* rows;           // [count]
  const int* nonFinite;
  int* flag;           // the host's: gets nonFinite as the steps before left it
};
cudaError_t takeRows(const TakeRows& t, StepStream stream);

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
  Weighted next;            // threads is a multiple of 32 where there is one
  int threads;
};
cudaError_t embed(const Embedding& e, StepStream stream);

// ---- rotate.cuh: rotation, and a group of keys and values into the cache -------------------------------------

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

// ---- pack.cu, project.cu, tile.cu: projections ----------------------------------------------------------------

// A matrix [2 pairs, inputs] in fragment order. Output pairs, not outputs, are what is counted: `low` and `high` of pair j
// are outputs 2j and 2j+1, or gate j and up j. Tile T holds pairs 8T .. 8T+7, low ones in the upper eight rows of the
// A operand, high ones in the lower eight: a lane then has both of a pair in its accumulators.
//   data [tiles][inputTiles][32 lanes][8] bfloat16, zero beyond the matrix
struct Packed {
  uint16_t* data;
  int pairs, inputs;
  __host__ __device__ int tiles() const { return (pairs + 7) / 8; }
  __host__ __device__ int inputTiles() const { return (inputs + 15) / 16; }
  __host__ __device__ size_t elements() const { return static_cast<size_t>(tiles()) * static_cast<size_t>(inputTiles()) * 256; }
};
struct Packing {
  const void* low;   // [lowRows] rows, `stride` elements apart: pairs of one matrix (stride 2 inputs), or gates
  const void* high;  // [highRows]
  ptrdiff_t stride;
  int lowRows, highRows;
  Element element;   // of the source
};
cudaError_t pack(const Packing& from, const Packed& to, int threads, cudaStream_t stream);
// Stored elements to those of the model (float32 or bfloat16).
cudaError_t convert(const void* from, Element fromElement, void* to, Element toElement, size_t count, int threads, cudaStream_t stream);

enum class Epilogue {
  store,   // y = product
  add,     // y += product
  swiglu,  // out[pair] = silu(low) high
  append,  // rotation, queries and cache
};

constexpr int mostSkinnyRows = 64;    // above it the arithmetic decides, not the stream of weights

struct Projection {
  const void* elements;      // [rows, xStride]: bfloat16; float32 where plain
  ptrdiff_t xStride;         // at least inputs rounded up to 16; a multiple of 8
  const float* squares;      // of the rows behind a norm (Weighted), [rows, squaresStride(inputs)]; null: there is no norm
  float eps;
  int rows;                  // 1 .. mostSkinnyRows; any number where tiled
  Packed weights;
  Epilogue epilogue;
  float* y;                  // [rows, yStride]: store, add
  void* out;                 // elements [rows, yStride]: swiglu
  ptrdiff_t yStride;         // even
  Weighted next;             // add: of the norm that comes next
  Rotation rotation;         // append
  int processors;            // of the device; 0: 132. Costs time where it is wrong, no bits
  int tilesABlock;           // 1, 2, 4 (up to 32 rows): for tests and measurements; 0: chosen
  size_t prefetched;         // bytes of weights that its blocks together may bring into the second-level cache before they wait
                             // (platform.cuh), beside what registers hold. Not where tiled
};
// Up to 64 rows: bound by reading the weights.
cudaError_t project(const Projection& p, StepStream stream);
// More than 64 rows: bound by arithmetic. A row's bits are those that `project` gives. Also right for fewer rows, but slower.
// Blocks of 128 x 128 or 64 x 64 outputs and rows: the same bits.
enum class Tile { fitting, small, large };
cudaError_t projectTiled(const Projection& p, StepStream stream, Tile tile = Tile::fitting);

// ---- attend.cu, attend-rows.cu: queries over the cache --------------------------------------------------------

// Rows see prefixes; keys behind the longest prefix of a tile of queries are not read.
struct Attention {
  RowTable rows;
  int streams, heads, kvHeads, headSize;
  const void* queries;      // bfloat16 [streams count, heads, padded head size]
  Cache cache;
  void* out;                // bfloat16 [streams count, outStride], heads side by side without padding
  ptrdiff_t outStride;
  float* partial;           // `attend`: attentionPartials floats, and
  uint32_t* counters;       // attentionCounters numbers that are zero (and are zero again afterwards)
};
size_t attentionPartials(const Attention& a);
size_t attentionCounters(const Attention& a);
// The groups of sampling, up to 63 queries a key/value head: keys are split over blocks. headSize and outStride even. Right for
// any number of rows, but partials grow with rows times slots.
cudaError_t attend(const Attention& a, StepStream stream);
// From 64 queries (rows times heads that share a key) on, such as full sequences: a block goes over all keys of 64 queries;
// no partials and no counters. headSize and outStride even. Not the bits of `attend`, but the same in every batch.
cudaError_t attendRows(const Attention& a, StepStream stream);

// ---- plain.cu: the same in float32, for checks ----------------------------------------------------------------

// Elements are float32 everywhere; weights as they are in the checkpoint (`p.weights` is not looked at), the norm apart
// (`p.squares` and `p.next` are null).
cudaError_t projectPlain(const Projection& p, const Packing& weights, int inputs, StepStream stream);
cudaError_t attendPlain(const Attention& a, StepStream stream);  // needs no partials and no counters

// ---- sample.cu: logits to tokens ----------------------------------------------------------------------------

struct Prediction {
  int32_t sequence, row;  // of the step
};

struct Sampling {
  const float* conditional;    // [predictions, stride]
  const float* unconditional;  // the same; null: no guidance
  ptrdiff_t stride;            // a multiple of 4, as far as rows may be read
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
// What a device holds, given its shared memory a block: a row of logits and 3 KB. 99 KB: 24576 tokens, 163 KB: 40960.
constexpr size_t samplingBytes = 3 << 10;
constexpr int vocabularyLimit(size_t sharedBytes) {
  const size_t most = sharedBytes < samplingBytes ? 0 : (sharedBytes - samplingBytes) / 4;
  return most < static_cast<size_t>(mostVocabulary) ? static_cast<int>(most) : mostVocabulary;
}
cudaError_t sample(const Sampling& s, StepStream stream);
cudaError_t score(const Sampling& s, StepStream stream);

// ---- ceiling.cu: what the device can do at most ----------------------------------------------------------------

// Reads everything once; `out` is hardly ever written. blocksEach: blocks a processor.
cudaError_t readAll(const void* from, size_t bytes, uint4* out, int processors, int blocksEach, cudaStream_t stream);

}  // namespace parvis::cuda
