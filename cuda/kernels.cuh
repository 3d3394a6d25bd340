// The kernel families: raw pointers to device memory and a stream in, a status out. Nothing here allocates, waits for
// the device or knows of sessions. Each function enqueues one operation; `threads` is the block size, so that tests can
// run small blocks. Sizes that a kernel cannot run are cudaErrorInvalidValue.
#pragma once

#include "parvis/model.h"
#include "parvis/step.h"
#include "ptx.cuh"
#include "sizes.h"

namespace parvis::cuda {

constexpr uint32_t fullWarp = 0xffffffffu;  // the mask of a warp whose lanes all take part

// Rows of one step. Their number is rounded up, so that steps of about the same size share a captured graph; padding
// rows have slot -1 and belong to no group: what is computed of them goes nowhere. Rows of activations have the same
// order, strides are padded to 16 elements, and what pads a row is zero from the start.
struct RowTable {
  const Row* rows;
  int count;
  __device__ Row at(int i) const {
    const uint4* const from = reinterpret_cast<const uint4*>(rows + i);
    const uint4 part[2] = {ptx::loadFresh(from), ptx::loadFresh(from + 1)};
    Row row;
    static_assert(sizeof row == sizeof part);
    __builtin_memcpy(&row, part, sizeof row);
    return row;
  }
  __device__ int32_t seenBy(int i) const { return ptx::loadFresh(&rows[i].sees); }
  __device__ int32_t slotOf(int i) const { return ptx::loadFresh(&rows[i].slot); }
};

constexpr int maxHeadSize = 128;
constexpr int maxSharedLogits = 48 << 10;  // on any device: a row of logits in shared memory

// ---- norm.cu: RMSNorm ---------------------------------------------------------------------------------------

// Whole rows: RMSNorm in float32, LayerNorm in either precision.
struct Norm {
  NormKind kind;
  const float* x;  // [any, xStride]
  ptrdiff_t xStride;
  const int32_t* from;  // [rows]: which row of x; null: the same
  int rows, dim;
  const float* weight;  // [dim]
  const float* bias;    // [dim]: LayerNorm
  float eps;
  Element element;
  void* out;            // elements [rows, outStride]; may be x where nothing is gathered and elements are float32
  ptrdiff_t outStride;  // even
  int threads;          // a warp a row
};
cudaError_t norm(const Norm& n, StepStream stream);

// In bfloat16, RMSNorm is fused into its neighbours. The kernel that writes rows of x (embed, a projection that adds to
// it) also stores x * weight of the norm that comes next, and partial sums of squares. The projection that follows the
// norm multiplies the unscaled rows and scales its sums by 1 / rms, which is one number a row. This saves a launch and
// one rounding, and no kernel waits for a whole row before its first product.
struct NormInput {
  const float* weight;  // [dim], and zeroes to a multiple of 16; null: no norm comes next
  uint16_t* elements;   // bfloat16 [rows, stride]: x weight
  ptrdiff_t stride;     // even
  float* squares;       // [rows, squaresStride(dim)]: sums of squares of 16 elements of x each; what pads a row is zero
};

// Of rows of x, the bits that other kernels leave of them.
struct Weighing {
  const float* x;       // [any, xStride]
  ptrdiff_t xStride;    // even
  const int32_t* from;  // [rows]: which row of x; null: the same
  int rows, dim;
  NormInput to;
  int threads;  // a warp a row
};
cudaError_t weigh(const Weighing& w, StepStream stream);

// ---- embed.cu: the rows and inputs of a step ----------------------------------------------------------------

// Tables of steps in flight, one part each, in the host's memory, which the device reads.
struct Ring {
  const int32_t* parts;  // [depth, stride]: a part ends with a PartEnd
  int depth, stride;     // ints
  uint32_t* counter;     // steps so far: which part is next
  int32_t* ahead;  // [stride], the device's: the part of the next step, if its PartEnd says so; null: there is none
  __host__ __device__ const int32_t* part(uint32_t step) const {
    return parts + static_cast<ptrdiff_t>(step % static_cast<uint32_t>(depth)) * stride;
  }
  __host__ __device__ const PartEnd* endOf(const int32_t* part) const {
    return reinterpret_cast<const PartEnd*>(part + stride - partEndInts);
  }
};

// The tables of a step, from the ring to where the step's kernels find them; counts the step.
struct TakeStep {
  struct Table {
    int32_t* to;
    int from, count;  // ints: where it begins in its part of the ring, and its length
  };
  Ring ring;
  Table tables[4];
  const int* nonFinite;  // [seats]
  int* flags;            // [seats], the host's: gets nonFinite as the steps before left it
  int seats;
};
cudaError_t takeStep(const TakeStep& t, StepStream stream);

// ---- compose.cu: passes of several steps -----------------------------------------------------------------------

// What the device knows of the passes of all seats (common/passes.h).
struct PassTables {
  const int32_t* plans;  // [seats, planStride]: a PlanHeader and what is behind it
  ptrdiff_t planStride;  // ints
  SeatPass* seats;       // [seats]
  int32_t* read;         // [seats, maxSplitQueries]: tokens that the pass before read and drew again, by its rows
  int32_t* tokens;       // [seats, tokensEach]
  int tokensEach, vocabulary;
  int maxTogether;     // rows of a stream that a pass with guesses has at most, at most maxSplitQueries
  uint64_t* progress;  // [seats], the host's: passes that were looked at << 32 | steps that were done by then
};

// In place of takeStep: what the pass before has drawn says where each sequence stands, and its next steps become the
// tables of this one. Rows whose number is not known to the host have as many places as they may need; places that
// nobody takes are padding.
struct ComposePass {
  Ring ring;  // a part begins with its entries
  int parts;  // entries
  Row* rows;
  int layerRows, crossRows;  // of either kind; those of the cross layers lie behind the others, as their groups do
  StreamRows* groups;
  int layerGroups, crossGroups;
  Drawing* drawings;
  int drawingCount;
  int32_t* gather;
  int gatherCount;  // 0: logits of all rows that can predict are computed, in their order
  bool crosses;     // the model has cross layers
  int streamsEach;
  PassTables tables;
  const int* nonFinite;
  int* flags;
  int seatCount;
};
cudaError_t composePass(const ComposePass& c, StepStream stream);
// Looks at the last pass of a seat, and tells the host.
cudaError_t settlePass(const PassTables& t, int seat, cudaStream_t stream);

struct Embedding {
  RowTable rows;
  int streamsEach;        // of a seat
  const int32_t* tokens;  // [seats, tokensEach]
  int tokensEach;
  const int32_t* classIds;    // [seats]
  int classes;                // the unconditional class
  const void* classTable;     // elements [classes + 1, dim]
  const void* tokenTable;     // elements [vocabulary, dim]
  const void* specialTable;   // elements [specials, dim]
  const void* positionTable;  // elements [positions, dim]: learned positions
  Element element;
  int dim;
  int headSize;  // of special vectors that are rotated by the row's cell; 0: they are not
  int pairs[3];  // as Rotation has them
  const float *cosine, *sine;
  float* x;  // [rows, xStride]
  ptrdiff_t xStride;
  NormInput next;  // threads is a multiple of 32 where there is one
  int threads;
};
cudaError_t embed(const Embedding& e, StepStream stream);

// ---- rotate.cuh: rotation, and keys and values into the cache -------------------------------------------------

// One layer. Head sizes are padded to 16 elements: 100 -> 112.
struct Cache {
  void* keys;    // elements [streams, kvHeads, slots, padded head size]
  void* values;  // the same
  int slots;
};

struct Rotation {
  RowTable rows;
  int heads, kvHeads, headSize;  // kvHeads 0: queries alone; heads 0: keys and values alone
  int pairs[3];         // of a head, turned by frame, row and column of the cell, in this order; the rest stays
  const float* cosine;  // [positions, all turned pairs]
  const float* sine;
  Element element;
  void* queries;  // elements [rows, heads, padded head size]
  Cache cache;
};

// ---- pack.cu, project.cu, tile.cu: projections ----------------------------------------------------------------

struct Packing {
  const void* low;   // [lowRows] rows, `stride` elements apart: pairs of one matrix (stride 2 inputs), or gates
  const void* high;  // [highRows]
  ptrdiff_t stride;
  int lowRows, highRows;
  Element element;  // of the source
};
cudaError_t pack(const Packing& from, const Packed& to, int threads, cudaStream_t stream);
// The same of integers and their scales: tiles of `to` from firstTile on, as many as there are rows.
struct IntegerPacking {
  const int8_t *low, *high;  // rows `stride` bytes apart
  ptrdiff_t stride;
  const float *lowScales, *highScales;  // [rows, groups], rows `scaleStride` floats apart
  ptrdiff_t scaleStride;
  int lowRows, highRows;
};
cudaError_t packIntegers(const IntegerPacking& from, const Packed& to, int firstTile, int threads, cudaStream_t stream);
// Stored elements to those of the model (float32 or bfloat16).
cudaError_t convert(const void* from, Element fromElement, void* to, Element toElement, size_t count, int threads,
                    cudaStream_t stream);

enum class Epilogue {
  store,   // y = product
  add,     // y += product
  swiglu,  // out[pair] = silu(low) high; there is no bias
  append,  // rotation, queries and cache
  gelu,    // out = gelu(product), by the error function
};

// Logits of the model's head: those of predictions are guided and lie where their conditional rows do, no others are
// stored.
struct Guides {
  const Drawing* table;  // [predictions]: rows are those of the projection; null: logits of all rows, as they are
  int predictions;
};

struct Projection {
  const void* elements;  // [rows, xStride]: bfloat16; float32 where plain
  ptrdiff_t xStride;     // at least inputs rounded up to 16; a multiple of 8
  const float* squares;  // of the rows behind a norm (NormInput), [rows, squaresStride(inputs)]; null: there is no norm
  float eps;
  int rows;  // 1 .. maxSkinnyRows(weights.format); any number where tiled
  Packed weights;
  const float* bias;  // [outputs rounded up to 2]: what a product begins with; null: nothing
  Epilogue epilogue;
  float* y;            // [rows, yStride]: store, add
  void* out;           // elements [rows, yStride]: swiglu, gelu
  ptrdiff_t yStride;   // even
  NormInput next;      // add: of the norm that comes next
  Rotation rotation;   // append
  Guides guides;       // store; not where tiled
  int processors;      // of the device; 0: 132. Costs time where it is wrong, no bits
  size_t sharedBytes;  // of a multiprocessor's shared memory; costs time where it is wrong, no bits
  int tilesABlock;     // 1, 2, 4 (bfloat16 up to 32 rows, int8 up to 8): for tests and measurements; 0: chosen
  size_t prefetched;   // bytes of weights that its blocks together may bring into the second-level cache before they
                       // wait (platform.cuh), beside what registers hold. Not where tiled
};
// Few rows: bound by reading the weights.
cudaError_t project(const Projection& p, StepStream stream);
// More rows: bound by arithmetic. A row's bits are those that `project` gives. Also right for fewer rows, but
// slower. Blocks of 128 x 128 (not int8) or 64 x 64 outputs and rows: the same bits.
enum class Tile { fitting, small, large };
cudaError_t projectTiled(const Projection& p, StepStream stream, Tile tile = Tile::fitting);

// ---- attend.cu, attend-rows.cu: queries over the cache --------------------------------------------------------

// Rows see prefixes; keys behind the longest prefix of a tile of queries are not read. A key/value head's queries in a
// group are its rows times the heads that share the key. Which kernel answers a group is decided by the group alone, so
// that a row's bits do not depend on what else is in the step: groups of other sizes are passed over.
struct Attention {
  RowTable rows;
  const StreamRows* groups;  // [groupCount]
  int groupCount;
  int maxQueries;    // of the largest group that this launch answers
  int leastQueries;  // of the smallest one
  int heads, kvHeads, headSize;
  const void* queries;  // bfloat16 [rows, heads, padded head size]
  Cache cache;
  void* out;  // bfloat16 [rows, outStride], heads side by side without padding
  ptrdiff_t outStride;
  float* partial;      // `attend`: attentionPartials floats, and
  uint32_t* counters;  // attentionCounters numbers that are zero (and are zero again afterwards)
};
// The groups of sampling: keys are split over blocks. headSize and outStride even. Right for any number of rows, but
// partials grow with rows times slots.
cudaError_t attend(const Attention& a, StepStream stream);
// Large groups, such as full sequences: a block goes over all keys of 64 queries; no partials and no counters. headSize
// and outStride even. Not the bits of `attend`, but the same in every batch.
cudaError_t attendRows(const Attention& a, StepStream stream);

// ---- plain.cu: the same in float32, for checks ----------------------------------------------------------------

// Elements are float32 everywhere; weights as they are in the checkpoint (`p.weights` is not looked at), the norm apart
// (`p.squares` and `p.next` are null).
cudaError_t projectPlain(const Projection& p, const Packing& weights, int inputs, StepStream stream);
cudaError_t attendPlain(const Attention& a, StepStream stream);  // needs no partials and no counters

// ---- sample.cu: logits to tokens ----------------------------------------------------------------------------

struct Sampling {
  float* logits;       // [rows, stride]
  int firstRow, rows;  // these rows of logits exist; predictions of others are passed over
  ptrdiff_t stride;    // a multiple of 4, as far as rows may be read
  int predictions, vocabulary;
  const Drawing* table;   // [predictions]
  const uint64_t* seeds;  // [seats]
  int tokensEach;
  int32_t* tokens;  // [seats, tokensEach]: drawn, or read where scored
  float* logProbs;  // [seats, tokensEach]: scores
  float* kept;      // [seats, keptEach, vocabulary]: guided logits
  int keptEach;
  int* nonFinite;  // [seats]: becomes 1 where a logit is NaN or infinite; the token is then -1
  int threads;
  bool inPlace;  // guided logits take the place of the conditional ones, else they lie in shared memory
  bool guided;   // the head has guided the logits already
  Ring ring;     // whose next part the first kernel of a step that draws brings ahead; without `ahead`: none
};
// Logits that a device holds in shared memory, given its bytes a block: a row and 3 KB. 99 KB: 24576, 163 KB: 40960.
constexpr size_t samplingBytes = 3 << 10;
constexpr int sharedLogits(size_t sharedBytes) {
  const size_t most = sharedBytes < samplingBytes ? 0 : (sharedBytes - samplingBytes) / 4;
  return most < static_cast<size_t>(maxSharedLogits) ? static_cast<int>(most) : maxSharedLogits;
}
// Each takes the predictions of its mode and passes over the others.
cudaError_t sample(const Sampling& s, Mode mode, StepStream stream);
cudaError_t score(const Sampling& s, StepStream stream);

// ---- ceiling.cu: what the device can do at most ----------------------------------------------------------------

// Reads everything once; `out` is hardly ever written. blocksEach: blocks a processor.
cudaError_t readAll(const void* from, size_t bytes, uint4* out, int processors, int blocksEach, cudaStream_t stream);

}  // namespace parvis::cuda
