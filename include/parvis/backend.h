// The seam: what a backend implements. Calls come from one thread at a time per backend (its executor thread in
// `binding/`), each runs to its end, and none throws. Sessions keep their transformer alive.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model.h"
#include "products.h"
#include "profile.h"
#include "status.h"
#include "step.h"

namespace parvis {

// A pool of seats (step.h). Seats are numbered from 0. A profile records the launches of steps.
class Session : public Profiled {
 public:
  virtual ~Session() = default;
  virtual size_t bytes() const = 0;
  virtual Status enter(int seat, const Sequence& sequence) = 0;
  // Steps that were enqueued before run to their end.
  virtual Status leave(int seat) = 0;
  // failed: seats whose logits are not finite, as far as that is known by now. They stay taken until they leave, and
  // the others go on.
  virtual Status step(const Step& step, const Cancel& cancel, std::vector<int32_t>& failed) = 0;
  // What the seat runs in passes from now on.
  virtual Status plan(int seat, SequencePlan plan) = 0;
  // Runs the next step of each part, and those behind it on guesses (common/passes.h): as many as part.steps says, or
  // as fit in `maxRows`. On a GPU a seat that was in a pass with guesses, its own or another one's, takes no steps and
  // no other plan.
  virtual Status pass(const std::vector<PassPart>& parts, const Cancel& cancel, PassResult& result) = 0;
  // NON_FINITE where the seat's logits were not finite.
  virtual Status readTokens(int seat, int32_t* out) = 0;  // [tokens], -1 where unknown
  virtual Status readLogProbs(int seat, float* out) = 0;  // [tokens], NaN where not scored
  virtual Status readLogits(int seat, float* out) = 0;    // [kept, vocabulary], guided; NaN where not kept
};

// Bytes that a model and a session of it take, worked out by the code that takes them.
struct MemoryPlan {
  size_t weights = 0;
  size_t session = 0;  // 0 where no session was asked for
};

class Transformer : public std::enable_shared_from_this<Transformer> {
 public:
  virtual ~Transformer() = default;
  virtual size_t bytes() const = 0;
  virtual const TransformerModel& model() const = 0;
  virtual Status createSession(const SessionOptions& options, std::unique_ptr<Session>& out) = 0;
};

struct DecodeOptions {
  int count = 1, gridHeight = 0, gridWidth = 0;
  int outHeight = 0, outWidth = 0;  // bicubic where not the tokenizer's own size
};

class Tokenizer : public Profiled {
 public:
  virtual ~Tokenizer() = default;
  virtual size_t bytes() const = 0;
  virtual const TokenizerModel& model() const = 0;
  // tokens [count, gridHeight gridWidth], raster order -> RGB [count, outHeight, outWidth, 3]; one of the outputs is
  // null
  virtual Status decode(const int32_t* tokens, const DecodeOptions& options, uint8_t* bytes, float* floats,
                        const Cancel& cancel) = 0;
  // RGB [count, height, width, 3] in -1..1 -> tokens [count, (height / factor) (width / factor)]
  virtual Status encode(const float* pixels, int count, int height, int width, int32_t* tokens,
                        const Cancel& cancel) = 0;
};

// One video on its way to pixels. It keeps its tokenizer alive; after a call that failed or was cancelled it is of no
// more use.
class VideoDecoder {
 public:
  virtual ~VideoDecoder() = default;
  // tokens of the next latent frame, [rows columns], raster order -> RGB of the frames that it completes, [frames,
  // height, width, 3]: one frame of the first, factorTime of every other one. One of the outputs is null; floats are
  // nominally 0..1.
  virtual Status decode(const int32_t* tokens, uint8_t* bytes, float* floats, const Cancel& cancel) = 0;
};

// One video on its way to tokens, frame by frame.
class VideoEncoder {
 public:
  virtual ~VideoEncoder() = default;
  // RGB of the next frame, [height, width, 3] in 0..1. tokens: of the latent frame that it completes, [rows columns];
  // the first frame completes one, and then every factorTime-th.
  virtual Status encode(const float* pixels, int32_t* tokens, bool& completed, const Cancel& cancel) = 0;
};

class VideoTokenizer : public std::enable_shared_from_this<VideoTokenizer>, public Profiled {
 public:
  virtual ~VideoTokenizer() = default;
  virtual size_t bytes() const = 0;
  virtual const VideoTokenizerModel& model() const = 0;
  // rows, columns: of tokens
  virtual Status createDecoder(int rows, int columns, std::unique_ptr<VideoDecoder>& out) = 0;
  virtual Status createEncoder(int rows, int columns, std::unique_ptr<VideoEncoder>& out) = 0;
};

struct CpuInfo {
  std::string isa;                      // that is used
  std::vector<std::string> isas;        // that the processor can run
  bool bfloat16 = false;                // products are made of bfloat16 numbers
  int cores = 1;                        // that the process may run on
  int threads = 1;                      // that an engine starts where none are asked for: no more than the quota gives
  double quota = 0;                     // processors' worth of time; 0: no quota
  std::string quotaGroup;               // the control group that has it
  uint64_t memory = 0, freeMemory = 0;  // bytes, by the tightest limit; 0: unknown
  std::string memoryGroup;              // the control group with that limit; empty: the machine
  bool memoryChecked = true;            // allocations are compared with what is free
};

// What the device can do at most, measured: a second or two.
struct Ceilings {
  double readBytesPerSecond = 0, float32Flops = 0, bfloat16Flops = 0;  // of all threads or processors together
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string isa() const = 0;
  virtual int threads() const = 0;
  // How steps are launched on a GPU: graphs, plain graphs, kernels; empty on a CPU.
  virtual std::string launches() const { return {}; }
  virtual Status loadTransformer(const CheckpointFile& file, const std::vector<WeightSource>& weights,
                                 const TransformerModel& model, Precision precision, const Cancel& cancel,
                                 std::shared_ptr<Transformer>& out) = 0;
  virtual Status loadTokenizer(const CheckpointFile& file, const std::vector<WeightSource>& weights,
                               const TokenizerModel& model, Precision precision, const Cancel& cancel,
                               std::shared_ptr<Tokenizer>& out) = 0;
  virtual Status loadVideoTokenizer(const CheckpointFile& file, const std::vector<WeightSource>& weights,
                                    const VideoTokenizerModel& model, Precision precision, const Cancel& cancel,
                                    std::shared_ptr<VideoTokenizer>& out) = 0;
  virtual Status measureCeilings(Ceilings& out) = 0;
};

// root: the folder in which /proc and /sys are looked for; tests have trees of their own.
CpuInfo cpuInfo(const std::string& root = "");

// Bytes of the machine's memory that this process may still take, as far as its limits and what it has promised already
// leave them; 0: unknown.
uint64_t freeMemory();

// What the CPU backend with so many threads, or the CUDA backend, would take; that one also where it was not compiled
// in, or has no device. session: may be null.
MemoryPlan planCpu(const TransformerModel& model, Precision precision, int threads, const SessionOptions* session);
MemoryPlan planCuda(const TransformerModel& model, Precision precision, const SessionOptions* session);

// threads 0: as CpuInfo::threads says, or as many as the system grants. Null where as many as asked for could not be
// started.
std::unique_ptr<Backend> createCpuBackend(int threads);

// Converts stored floats, rounding to nearest even. Sizes are those of `count` elements.
void convertFloats(const void* from, DType fromType, void* to, DType toType, size_t count);

}  // namespace parvis
