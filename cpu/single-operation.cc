// Every operation is built of what sessions and tokenizers are built of: their loader packs the weights, Rows and Operations
// run them. Here is only what surrounds that: numbers where nobody gave any, copies of the weights, the clock.
#include "single-operation.h"

#include <chrono>
#include <cstring>

#include "../common/floats.h"
#include "../common/steps.h"
#include "rows.h"
#include "tokenizer.h"

namespace parvis::cpu {

namespace {

// The inputs of a case, or in the place of all of them one block of random numbers of either sign, 1/64 to 1/32: neither
// denormal nor infinite after any number of runs.
class Inputs {
 public:
  Status prepare(const Operation& o, const OperationRun& run, Threads& threads) {
    given_ = &run.inputs;
    if (!random()) return {};
    double all = 0, largest = 0;
    for (const auto& shape : operationInputs(o)) {
      double count = 1;
      for (const int64_t d : shape) count *= static_cast<double>(d);
      all += count * run.copies;
      largest = std::max(largest, count);
    }
    // What no machine holds is refused before any product of sizes could overflow.
    constexpr double most = double(size_t{1} << 44);  // of floats: far more than any, and 2^58 are refused everywhere
    const size_t count = all > most ? size_t{1} << 58 : static_cast<size_t>(largest);
    if (Status s = Memory::allocate(count * sizeof(float), "The random numbers of an operation", memory_); !s.ok()) return s;
    constexpr size_t block = 1 << 16;
    threads.run(static_cast<int>((count + block - 1) / block), [&](int task, int) {
      uint32_t state = static_cast<uint32_t>(task) + 1;
      float* out = reinterpret_cast<float*>(memory_.data());
      for (size_t i = task * block; i < std::min(count, (task + 1) * block); i++) {
        state = state * 1664525u + 1013904223u;
        const uint32_t bits = (state & 0x80000000u) | 121u << 23 | (state >> 8 & 0x7fffffu);
        std::memcpy(out + i, &bits, 4);
      }
    });
    return {};
  }
  bool random() const { return given_->empty(); }
  // The next one in their order.
  const float* next() { return random() ? reinterpret_cast<const float*>(memory_.data()) : (*given_)[at_++].data(); }

 private:
  const std::vector<std::vector<float>>* given_ = nullptr;
  Memory memory_;
  size_t at_ = 0;
};

// What all operations are run with.
struct Single {
  Threads& threads;
  const Operation& o;
  const OperationRun& run;
  const Cancel& cancel;
  OperationResult& out;
  Inputs in;
  Tensors tensors;
  Memory weights, memory;

  Element element() const { return elementOf(o.precision); }
  DType type() const { return element() == Element::float32 ? DType::float32 : DType::bfloat16; }
  size_t item() const { return elementSize(element()); }

  // once(copy) runs the operation; read() takes the output of the first run.
  template <class Once, class Read>
  Status measure(Once&& once, Read&& read) {
    const auto turn = [&](int copies) -> Status {
      for (int copy = 0; copy < copies; copy++) {
        if (cancel.load(std::memory_order_relaxed)) return {Code::cancelled, "Cancelled."};
        if (Status s = once(copy); !s.ok()) return s;
      }
      return {};
    };
    if (!in.random()) {
      if (Status s = turn(1); !s.ok()) return s;
      read();
    }
    for (int i = 0; i < run.warmup; i++)
      if (Status s = turn(run.copies); !s.ok()) return s;
    for (int i = 0; i < run.repeats; i++) {
      const auto start = std::chrono::steady_clock::now();
      if (Status s = turn(run.copies); !s.ok()) return s;
      out.ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count() / run.copies);
    }
    return {};
  }

  // [rows, width] -> [rows, stride] of the multiplied type; what is between them stays zero.
  void toElements(const float* from, int rows, int width, void* to, ptrdiff_t stride) const {
    for (int r = 0; r < rows; r++) convertFloats(from + static_cast<size_t>(r) * width, DType::float32, static_cast<uint8_t*>(to) + r * stride * item(), type(), static_cast<size_t>(width));
  }
  // ... and back, into the output.
  void fromElements(const void* from, DType type, int rows, ptrdiff_t stride, int width) {
    out.output.resize(static_cast<size_t>(rows) * width);
    for (int r = 0; r < rows; r++)
      convertFloats(static_cast<const uint8_t*>(from) + r * stride * byteSize(type), type, out.output.data() + static_cast<size_t>(r) * width, DType::float32, static_cast<size_t>(width));
  }
  static void copyRows(const float* from, int rows, int width, float* to, ptrdiff_t stride) {
    for (int r = 0; r < rows; r++) std::memcpy(to + r * stride, from + static_cast<size_t>(r) * width, sizeof(float) * static_cast<size_t>(width));
  }

  Status projection();
  Status attention();
  Status draw();
  Status convolution();
  Status spatialAttention();
};

// Parts of one block of memory: their sizes first, their places afterwards.
class Parts {
 public:
  size_t add(size_t bytes) { return std::exchange(total_, total_ + (bytes + 63) / 64 * 64); }
  Status allocate(Memory& memory) const { return Memory::allocate(total_, "The numbers of an operation", memory); }

 private:
  size_t total_ = 0;
};

float* floats(const Memory& memory, size_t at) { return reinterpret_cast<float*>(memory.data() + at); }

// ---- rows ---------------------------------------------------------------------------------------------------

Status Single::projection() {
  const bool swiglu = o.epilogue == Operation::Epilogue::swiglu, add = o.epilogue == Operation::Epilogue::add;
  const float* x = in.next();
  const float* norm = o.normed ? in.next() : nullptr;
  const float* w = in.next();
  const float* before = add ? in.next() : nullptr;
  Loader loader(tensors, element());
  std::vector<Packed> packed(static_cast<size_t>(run.copies));
  float* normWeight = nullptr;
  tensors.add("weight", {o.outputs, o.inputs}, w);
  if (swiglu) tensors.add("up", {o.outputs, o.inputs}, in.random() ? w : w + static_cast<size_t>(o.outputs) * o.inputs);
  for (Packed& p : packed) {
    if (swiglu) loader.gateUp(p, "weight", "up", o.outputs, o.inputs);
    else loader.matrix(p, "weight", o.outputs, o.inputs);
  }
  if (norm) {
    tensors.add("norm", {o.inputs}, norm);
    loader.vector(normWeight, "norm", {o.inputs}, true);
  }
  if (Status s = loader.load(weights, threads, cancel); !s.ok()) return s;

  const ptrdiff_t xStride = roundUp(o.inputs, 32), yStride = roundUp(o.outputs, 32);
  const size_t rows = static_cast<size_t>(o.rows);
  Parts parts;
  const size_t xAt = parts.add(norm ? rows * xStride * 4 : 0), multipliedAt = parts.add(rows * xStride * item()), yAt = parts.add(rows * yStride * (swiglu ? item() : 4));
  if (Status s = parts.allocate(memory); !s.ok()) return s;
  void* multiplied = memory.data() + multipliedAt;
  if (norm) copyRows(x, o.rows, o.inputs, floats(memory, xAt), xStride);
  else toElements(x, o.rows, o.inputs, multiplied, xStride);
  if (before) copyRows(before, o.rows, o.outputs, floats(memory, yAt), yStride);
  const Rows run(threads, element(), cancel);
  const Epilogue epilogue = swiglu ? Epilogue::swiglu : add ? Epilogue::add : Epilogue::store;
  return measure(
      [&](int copy) -> Status {
        if (norm) run.norm(floats(memory, xAt), xStride, o.rows, normWeight, o.inputs, o.eps, multiplied);
        run.matmul(packed[static_cast<size_t>(copy)], multiplied, xStride, o.rows, epilogue, swiglu ? nullptr : floats(memory, yAt), swiglu ? memory.data() + yAt : nullptr, yStride);
        return cancel.load(std::memory_order_relaxed) ? Status{Code::cancelled, "Cancelled."} : Status{};
      },
      [&] { fromElements(memory.data() + yAt, swiglu ? type() : DType::float32, o.rows, yStride, o.outputs); });
}

Status Single::attention() {
  const int all = o.streams * o.rows, history = o.sees - o.rows, width = o.heads * o.headSize, outputs = width + 2 * o.kvHeads * o.headSize;
  const float* x = in.next();
  const float* norm = in.next();
  const float* w = in.next();
  const float* keys = in.next();
  const float* values = in.next();
  Loader loader(tensors, element());
  std::vector<Packed> qkv(static_cast<size_t>(run.copies));
  float* normWeight = nullptr;
  tensors.add("weight", {outputs, o.dim}, w);
  tensors.add("norm", {o.dim}, norm);
  for (Packed& p : qkv) loader.matrix(p, "weight", outputs, o.dim);
  loader.vector(normWeight, "norm", {o.dim}, true);
  if (Status s = loader.load(weights, threads, cancel); !s.ok()) return s;

  const CacheLayout layout(o.sees, o.headSize, element());
  const ptrdiff_t dimStride = roundUp(o.dim, 32), qkvStride = roundUp(outputs, 32), outStride = roundUp(width, 32);
  const size_t rows = static_cast<size_t>(all), scratchBytes = attentionScratch(layout.slots, o.headSize) + 4096, heads = static_cast<size_t>(o.streams) * o.kvHeads;
  Parts parts;
  const size_t xAt = parts.add(rows * dimStride * 4), normedAt = parts.add(rows * dimStride * item()), qkvAt = parts.add(rows * qkvStride * 4),
               outAt = parts.add(rows * outStride * item()), scratchAt = parts.add(scratchBytes * threads.count()),
               pairsAt = parts.add(static_cast<size_t>(history) * 2 * o.headSize * 4 * threads.count()), cacheAt = parts.add(layout.bytes() * heads * run.copies);
  if (Status s = parts.allocate(memory); !s.ok()) return s;
  copyRows(x, all, o.dim, floats(memory, xAt), dimStride);
  TransformerModel model;  // for the angles
  model.headSize = o.headSize;
  Angles angles;
  angles.grow(model, std::max((o.sees - 1) / o.grid, o.grid - 1));

  // The cache as it was before: appended at the cell whose angles are zero, since given keys are turned already, by an
  // attention without queries.
  std::vector<AttentionRow> before(static_cast<size_t>(history)), own(static_cast<size_t>(o.rows));
  for (int i = 0; i < history; i++) before[static_cast<size_t>(i)] = {i, 0, 0, 1, 0};
  for (int i = 0; i < o.rows; i++) own[static_cast<size_t>(i)] = {history + i, (history + i) / o.grid, (history + i) % o.grid, 1, o.sees};
  const auto kernel = kernels().attend[static_cast<int>(element())];
  threads.run(history > 0 ? static_cast<int>(heads) : 0, [&](int head, int thread) {
    float* pairs = floats(memory, pairsAt) + static_cast<size_t>(thread) * history * 2 * o.headSize;  // [history, key and value]
    const size_t from = in.random() ? 0 : static_cast<size_t>(head) * history * o.headSize;
    copyRows(keys + from, history, o.headSize, pairs, 2 * o.headSize);
    copyRows(values + from, history, o.headSize, pairs + o.headSize, 2 * o.headSize);
    for (int copy = 0; copy < run.copies; copy++)
      kernel({pairs, 2 * o.headSize, before.data(), history, o.headSize, 0, 0, 0, o.headSize, layout.head(memory.data() + cacheAt, copy * heads + head),
              angles.cosine(), angles.sine(), nullptr, 0, memory.data() + scratchAt + scratchBytes * thread});
  });

  const Rows run(threads, element(), cancel);
  return measure(
      [&](int copy) -> Status {
        run.norm(floats(memory, xAt), dimStride, all, normWeight, o.dim, o.eps, memory.data() + normedAt);
        run.matmul(qkv[static_cast<size_t>(copy)], memory.data() + normedAt, dimStride, all, Epilogue::store, floats(memory, qkvAt), nullptr, qkvStride);
        run.attention({floats(memory, qkvAt), qkvStride, own.data(), o.rows, o.streams, o.heads, o.kvHeads, o.headSize, layout,
                       memory.data() + cacheAt + layout.bytes() * heads * copy, &angles, memory.data() + outAt, outStride, memory.data() + scratchAt, scratchBytes});
        return cancel.load(std::memory_order_relaxed) ? Status{Code::cancelled, "Cancelled."} : Status{};
      },
      [&] { fromElements(memory.data() + outAt, type(), all, outStride, width); });
}

Status Single::draw() {
  const bool guided = o.guided && o.rule.guidanceScale != 1.0f;  // as in a session
  const float* conditional = in.next();
  const float* unconditional = guided ? in.next() : nullptr;
  const ptrdiff_t stride = roundUp(o.vocabulary, 32);
  const size_t scratchBytes = drawScratch(o.vocabulary) + 4096, logits = static_cast<size_t>(o.draws) * stride;
  Parts parts;
  const size_t conditionalAt = parts.add(logits * 4), unconditionalAt = parts.add(guided ? logits * 4 : 0), scratchAt = parts.add(scratchBytes * threads.count());
  if (Status s = parts.allocate(memory); !s.ok()) return s;
  copyRows(conditional, o.draws, o.vocabulary, floats(memory, conditionalAt), stride);
  if (guided) copyRows(unconditional, o.draws, o.vocabulary, floats(memory, unconditionalAt), stride);
  std::vector<int32_t> drawn(static_cast<size_t>(o.draws));
  return measure(
      [&](int) -> Status {
        std::atomic<bool> finite{true};
        threads.run(o.draws, [&](int i, int thread) {
          const Draw d = drawOf(o.rule, o.vocabulary, floats(memory, conditionalAt) + i * stride, guided ? floats(memory, unconditionalAt) + i * stride : nullptr, 1, i,
                                memory.data() + scratchAt + scratchBytes * thread);
          drawn[static_cast<size_t>(i)] = sampler().draw(d);
          if (drawn[static_cast<size_t>(i)] < 0) finite = false;
        });
        return finite ? Status{} : notFinite();
      },
      [&] { out.output.assign(drawn.begin(), drawn.end()); });
}

// ---- pictures -----------------------------------------------------------------------------------------------

// [images, height, width, channels]
Status takePictures(Operations& run, const Operation& o, int height, int width, int channels, const float* from, bool random, std::vector<Picture>& out) {
  for (int i = 0; i < o.images; i++) {
    out.push_back(run.make(height, width, channels));
    if (!run.going()) return run.status;
    std::memcpy(out.back().data(), random ? from : from + out.back().size() * i, out.back().size() * sizeof(float));
  }
  return {};
}

Status Single::convolution() {
  const float* x = in.next();
  const float* w = in.next();
  const float* bias = in.next();
  Loader loader(tensors, element());
  VqPlan plan(loader, element());
  GroupNorm norm;
  std::vector<ConvolutionWeights> copies(static_cast<size_t>(run.copies));
  tensors.add("conv.weight", {o.outputs, o.channels, o.kernel, o.kernel}, w);
  tensors.add("conv.bias", {o.outputs}, bias);
  for (auto& c : copies) plan.convolution(c, "conv", o.channels, o.outputs, o.kernel);
  if (o.groups > 0) {
    tensors.add("norm.weight", {o.channels}, in.next());
    tensors.add("norm.bias", {o.channels}, in.next());
    plan.norm(norm, "norm", o.channels);
  }
  if (Status s = loader.load(weights, threads, cancel); !s.ok()) return s;

  const auto resample = o.resample == Operation::Resample::up ? Operations::Resample::up : o.resample == Operation::Resample::down ? Operations::Resample::down : Operations::Resample::none;
  const int up = o.resample == Operation::Resample::up ? 2 : 1, down = o.resample == Operation::Resample::down ? 2 : 1;
  Operations pictures(threads, element(), o.groups, o.eps, cancel);
  std::vector<Picture> inputs, residuals, results(static_cast<size_t>(o.images));
  if (Status s = takePictures(pictures, o, o.height, o.width, o.channels, x, in.random(), inputs); !s.ok()) return s;
  if (o.residual)
    if (Status s = takePictures(pictures, o, o.height * up / down, o.width * up / down, o.outputs, in.next(), in.random(), residuals); !s.ok()) return s;
  return measure(
      [&](int copy) {
        for (size_t i = 0; i < inputs.size(); i++) {
          results[i] = {};  // its memory is there for the next
          results[i] = pictures.convolve(inputs[i], copies[static_cast<size_t>(copy)], o.groups > 0 ? &norm : nullptr, o.swish, resample, o.residual ? &residuals[i] : nullptr);
        }
        return pictures.going() ? Status{} : pictures.status;
      },
      [&] {
        for (const Picture& y : results) out.output.insert(out.output.end(), y.data(), y.data() + y.size());
      });
}

Status Single::spatialAttention() {
  const float* x = in.next();
  Loader loader(tensors, element());
  VqPlan plan(loader, element());
  std::vector<SelfAttention> copies(static_cast<size_t>(run.copies));
  tensors.add("norm.weight", {o.channels}, in.next());
  tensors.add("norm.bias", {o.channels}, in.next());
  for (const char* name : {"q", "k", "v", "proj_out"}) {
    tensors.add(std::string(name) + ".weight", {o.channels, o.channels, 1, 1}, in.next());
    tensors.add(std::string(name) + ".bias", {o.channels}, in.next());
  }
  for (auto& a : copies) {
    plan.norm(a.norm, "norm", o.channels);
    plan.convolution(a.q, "q", o.channels, o.channels, 1);
    plan.convolution(a.k, "k", o.channels, o.channels, 1);
    plan.convolution(a.v, "v", o.channels, o.channels, 1);
    plan.convolution(a.out, "proj_out", o.channels, o.channels, 1);
  }
  if (Status s = loader.load(weights, threads, cancel); !s.ok()) return s;

  Operations pictures(threads, element(), o.groups, o.eps, cancel);
  std::vector<Picture> inputs, results(static_cast<size_t>(o.images));
  if (Status s = takePictures(pictures, o, o.height, o.width, o.channels, x, in.random(), inputs); !s.ok()) return s;
  return measure(
      [&](int copy) {
        for (size_t i = 0; i < inputs.size(); i++) {
          results[i] = {};
          results[i] = pictures.attention(inputs[i], copies[static_cast<size_t>(copy)]);
        }
        return pictures.going() ? Status{} : pictures.status;
      },
      [&] {
        for (const Picture& y : results) out.output.insert(out.output.end(), y.data(), y.data() + y.size());
      });
}

}  // namespace

Status runSingle(Threads& threads, const Operation& operation, const OperationRun& run, const Cancel& cancel, OperationResult& out) {
  if (Status s = checkOperation(operation, run); !s.ok()) return s;
  Single single{threads, operation, run, cancel, out, {}, {}, {}, {}};
  if (Status s = single.in.prepare(operation, run, threads); !s.ok()) return s;
  switch (operation.kind) {
    case Operation::Kind::projection: return single.projection();
    case Operation::Kind::attention: return single.attention();
    case Operation::Kind::draw: return single.draw();
    case Operation::Kind::convolution: return single.convolution();
    case Operation::Kind::spatialAttention: return single.spatialAttention();
  }
  return {};
}

}  // namespace parvis::cpu
