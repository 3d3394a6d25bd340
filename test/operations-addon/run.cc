// Every operation is built of what sessions and tokenizers are built of: their loader packs the weights, and Rows and
// PictureRunner runs them.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "../../common/floats.h"
#include "../../common/steps.h"
#include "../../cpu/rows.h"
#include "../../cpu/tokenizer.h"
#include "operation.h"

namespace parvis::cpu {

namespace {

const Cancel never{false};

// A file of tensors for the loader, which is gone with this.
class WeightFile {
 public:
  WeightFile() {
    std::random_device random;
    path_ = std::filesystem::temp_directory_path() / ("parvis-operation-" + std::to_string(random()) + ".bin");
  }
  WeightFile(const WeightFile&) = delete;
  ~WeightFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  void add(const std::string& name, const std::vector<int64_t>& shape, const float* data) {
    size_t count = 1;
    for (const int64_t d : shape) count *= static_cast<size_t>(d);
    sources_.push_back({name, {{name, DType::float32, shape, bytes_.size(), {}}}});
    const auto* from = reinterpret_cast<const char*>(data);
    bytes_.insert(bytes_.end(), from, from + count * sizeof(float));
  }
  Status open(Tensors& tensors) const {
    std::ofstream out(path_, std::ios::binary);
    out.write(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
    out.close();
    if (!out) return {Code::internal, "The weights of an operation could not be written to " + path_.string()};
    return tensors.open(path_.string(), sources_, never);
  }

 private:
  std::filesystem::path path_;
  std::vector<char> bytes_;
  std::vector<WeightSource> sources_;
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

void copyRows(const float* from, int rows, int width, float* to, ptrdiff_t stride) {
  const size_t count = static_cast<size_t>(width);
  for (int r = 0; r < rows; r++) std::memcpy(to + r * stride, from + r * count, count * sizeof(float));
}

struct Single {
  Threads& threads;
  const Operation& o;
  const Inputs& inputs;
  std::vector<float>& out;
  size_t at = 0;
  WeightFile file;
  Tensors tensors;
  Memory weights, memory;

  Numbers numbers() const { return numbersOf(o.precision); }
  DType type() const { return numbers().activations == Element::float32 ? DType::float32 : DType::bfloat16; }
  size_t item() const { return elementSize(numbers().activations); }
  const float* next() { return inputs[at++].data(); }
  Status load(Loader& loader) { return loader.load(weights, threads, never); }

  // [rows, width] -> [rows, stride] of the multiplied type; what is between them stays zero.
  void toElements(const float* from, int rows, int width, void* to, ptrdiff_t stride) const {
    const size_t count = static_cast<size_t>(width);
    for (int r = 0; r < rows; r++)
      convertFloats(from + r * count, DType::float32, static_cast<uint8_t*>(to) + r * stride * item(), type(), count);
  }
  // ... and back, into the output.
  void fromElements(const void* from, DType type, int rows, ptrdiff_t stride, int width) {
    const size_t count = static_cast<size_t>(width);
    out.resize(static_cast<size_t>(rows) * count);
    for (int r = 0; r < rows; r++) {
      const uint8_t* row = static_cast<const uint8_t*>(from) + r * stride * byteSize(type);
      convertFloats(row, type, out.data() + r * count, DType::float32, count);
    }
  }

  Status projection();
  Status attention();
  Status draw();
  Status convolution();
  Status spatialAttention();
};

// ---- rows ---------------------------------------------------------------------------------------------------

Status Single::projection() {
  const bool swiglu = o.epilogue == Operation::Epilogue::swiglu, add = o.epilogue == Operation::Epilogue::add;
  const float* x = next();
  const float* norm = o.normed ? next() : nullptr;
  const float* w = next();
  const float* before = add ? next() : nullptr;
  file.add("weight", {o.outputs, o.inputs}, w);
  if (swiglu) file.add("up", {o.outputs, o.inputs}, w + static_cast<size_t>(o.outputs) * o.inputs);
  if (norm) file.add("norm", {o.inputs}, norm);
  if (Status s = file.open(tensors); !s.ok()) return s;
  Loader loader(&tensors, o.precision);
  Matrix packed;
  float* normWeight = nullptr;
  if (swiglu) loader.gateUp(packed, "weight", "up", o.outputs, o.inputs);
  else loader.matrix(packed, "weight", o.outputs, o.inputs);
  if (norm) loader.vector(normWeight, "norm", {o.inputs}, true);
  if (Status s = load(loader); !s.ok()) return s;

  const ptrdiff_t xStride = roundUp(o.inputs, 32), yStride = roundUp(o.outputs, 32);
  const size_t rows = static_cast<size_t>(o.rows);
  Parts parts;
  const size_t xAt = parts.add(norm ? rows * xStride * 4 : 0), multipliedAt = parts.add(rows * xStride * item());
  const size_t yAt = parts.add(rows * yStride * (swiglu ? item() : 4));
  if (Status s = parts.allocate(memory); !s.ok()) return s;
  void* multiplied = memory.data() + multipliedAt;
  if (norm) copyRows(x, o.rows, o.inputs, floats(memory, xAt), xStride);
  else toElements(x, o.rows, o.inputs, multiplied, xStride);
  if (before) copyRows(before, o.rows, o.outputs, floats(memory, yAt), yStride);
  const Rows run(threads, numbers(), never);
  if (norm)
    run.norm(floats(memory, xAt), xStride, o.rows, {NormKind::rms, normWeight, nullptr, o.inputs, o.eps}, multiplied);
  const Epilogue epilogue = swiglu ? Epilogue::swiglu : add ? Epilogue::add : Epilogue::store;
  run.matmul(packed, multiplied, xStride, o.rows, epilogue, swiglu ? nullptr : floats(memory, yAt),
             swiglu ? memory.data() + yAt : nullptr, yStride);
  fromElements(memory.data() + yAt, swiglu ? type() : DType::float32, o.rows, yStride, o.outputs);
  return {};
}

Status Single::attention() {
  const int all = o.streams * o.rows, history = o.sees - o.rows, width = o.heads * o.headSize;
  const int outputs = width + 2 * o.kvHeads * o.headSize;
  const float* x = next();
  const float* norm = next();
  const float* w = next();
  const float* keys = next();
  const float* values = next();
  file.add("weight", {outputs, o.dim}, w);
  file.add("norm", {o.dim}, norm);
  if (Status s = file.open(tensors); !s.ok()) return s;
  Loader loader(&tensors, o.precision);
  Matrix qkv;
  float* normWeight = nullptr;
  loader.matrix(qkv, "weight", outputs, o.dim);
  loader.vector(normWeight, "norm", {o.dim}, true);
  if (Status s = load(loader); !s.ok()) return s;

  const CacheLayout layout(o.sees, o.headSize, numbers().kept);
  const ptrdiff_t dimStride = roundUp(o.dim, 32), qkvStride = roundUp(outputs, 32), outStride = roundUp(width, 32);
  const size_t rows = static_cast<size_t>(all), heads = static_cast<size_t>(o.streams) * o.kvHeads;
  const size_t scratchBytes = attentionScratch(layout.slots, o.headSize) + 4096;
  const size_t pairCount = static_cast<size_t>(history) * 2 * o.headSize;
  Parts parts;
  const size_t xAt = parts.add(rows * dimStride * 4), normedAt = parts.add(rows * dimStride * item());
  const size_t qkvAt = parts.add(rows * qkvStride * 4), outAt = parts.add(rows * outStride * item());
  const size_t scratchAt = parts.add(scratchBytes * threads.count());
  const size_t pairsAt = parts.add(pairCount * 4 * threads.count());
  const size_t cacheAt = parts.add(layout.bytes() * heads);
  if (Status s = parts.allocate(memory); !s.ok()) return s;
  copyRows(x, all, o.dim, floats(memory, xAt), dimStride);
  TransformerModel model;  // for the angles
  model.headSize = o.headSize;
  model.rotationPairs[1] = model.rotationPairs[2] = o.headSize / 4;
  Angles angles;
  angles.grow(model, std::max((o.sees - 1) / o.grid, o.grid - 1));

  // The cache as it was before. The given keys are rotated already, so they are appended at the cell whose angles are
  // zero, by an attention without queries.
  std::vector<AttentionRow> before(static_cast<size_t>(history)), own;
  for (int i = 0; i < history; i++) before[static_cast<size_t>(i)] = {i, {0, 0, 0}, 0};
  std::vector<Group> groups;
  for (int stream = 0; stream < o.streams; stream++) {
    groups.push_back({stream, stream * o.rows, o.rows});
    for (int i = 0; i < o.rows; i++)
      own.push_back({history + i, {0, (history + i) / o.grid, (history + i) % o.grid}, o.sees});
  }
  const Rotation rotation = angles.of(model);
  const auto kernel = kernels().attend[static_cast<int>(numbers().kept)];
  threads.run(history > 0 ? static_cast<int>(heads) : 0, [&](int head, int thread) {
    float* pairs = floats(memory, pairsAt) + pairCount * thread;  // [history, key and value]
    const size_t from = static_cast<size_t>(head) * history * o.headSize;
    copyRows(keys + from, history, o.headSize, pairs, 2 * o.headSize);
    copyRows(values + from, history, o.headSize, pairs + o.headSize, 2 * o.headSize);
    kernel({pairs, 2 * o.headSize, before.data(), history, o.headSize, 0, 0, 0, o.headSize,
            layout.head(memory.data() + cacheAt, head), rotation, nullptr, 0,
            memory.data() + scratchAt + scratchBytes * thread});
  });

  const Rows run(threads, numbers(), never);
  void* normed = memory.data() + normedAt;
  run.norm(floats(memory, xAt), dimStride, all, {NormKind::rms, normWeight, nullptr, o.dim, o.eps}, normed);
  run.matmul(qkv, normed, dimStride, all, Epilogue::store, floats(memory, qkvAt), nullptr, qkvStride);
  run.attention({floats(memory, qkvAt), qkvStride, own.data(), groups.data(), o.streams, o.heads, o.kvHeads, o.headSize,
                 layout, memory.data() + cacheAt, rotation, memory.data() + outAt, outStride, memory.data() + scratchAt,
                 scratchBytes});
  fromElements(memory.data() + outAt, type(), all, outStride, width);
  return {};
}

Status Single::draw() {
  const bool guided = o.guided && o.guidance != 1.0f;  // as in a session
  const float* conditional = next();
  const float* unconditional = guided ? next() : nullptr;
  const ptrdiff_t stride = roundUp(o.vocabulary, 32);
  const size_t scratchBytes = drawScratch(o.vocabulary) + 4096, logits = static_cast<size_t>(o.draws) * stride;
  Parts parts;
  const size_t conditionalAt = parts.add(logits * 4), unconditionalAt = parts.add(guided ? logits * 4 : 0);
  const size_t scratchAt = parts.add(scratchBytes * threads.count());
  if (Status s = parts.allocate(memory); !s.ok()) return s;
  copyRows(conditional, o.draws, o.vocabulary, floats(memory, conditionalAt), stride);
  if (guided) copyRows(unconditional, o.draws, o.vocabulary, floats(memory, unconditionalAt), stride);
  std::vector<int32_t> drawn(static_cast<size_t>(o.draws));
  std::atomic<bool> finite{true};
  threads.run(o.draws, [&](int i, int thread) {
    const float* row = floats(memory, conditionalAt) + i * stride;
    const float* other = guided ? floats(memory, unconditionalAt) + i * stride : nullptr;
    const Draw d =
        drawOf(o.rule, o.guidance, o.vocabulary, row, other, 1, i, memory.data() + scratchAt + scratchBytes * thread);
    drawn[static_cast<size_t>(i)] = sampler().draw(d);
    if (drawn[static_cast<size_t>(i)] < 0) finite = false;
  });
  if (!finite) return notFinite();
  out.assign(drawn.begin(), drawn.end());
  return {};
}

// ---- pictures -----------------------------------------------------------------------------------------------

// from [images, height, width, channels]; image i alone.
Picture pictureOf(PictureRunner& run, const float* from, int i, int height, int width, int channels) {
  Picture x = run.make(height, width, channels);
  if (run.ok()) std::memcpy(x.data(), from + x.size() * i, x.size() * sizeof(float));
  return x;
}

void append(std::vector<float>& out, const Picture& y) { out.insert(out.end(), y.data(), y.data() + y.size()); }

Status Single::convolution() {
  const float* x = next();
  file.add("conv.weight", {o.outputs, o.channels, o.kernel, o.kernel}, next());
  file.add("conv.bias", {o.outputs}, next());
  if (o.groups > 0) {
    file.add("norm.weight", {o.channels}, next());
    file.add("norm.bias", {o.channels}, next());
  }
  if (Status s = file.open(tensors); !s.ok()) return s;
  Loader loader(&tensors, o.precision);
  LayerPlan plan(loader, numbers().activations);
  GroupNorm norm;
  ConvolutionWeights conv;
  plan.convolution(conv, "conv", o.channels, o.outputs, o.kernel);
  if (o.groups > 0) plan.norm(norm, "norm", o.channels);
  if (Status s = load(loader); !s.ok()) return s;

  const bool ups = o.resample == Operation::Resample::up, downs = o.resample == Operation::Resample::down;
  const Resample resample = ups ? Resample::up : downs ? Resample::down : Resample::none;
  const int up = ups ? 2 : 1, down = downs ? 2 : 1;
  const float* added = o.residual ? next() : nullptr;
  PictureRunner run(threads, numbers().activations, o.groups, o.eps, never);
  for (int i = 0; i < o.images && run.ok(); i++) {
    const Picture in = pictureOf(run, x, i, o.height, o.width, o.channels);
    Picture residual;
    if (added) residual = pictureOf(run, added, i, o.height * up / down, o.width * up / down, o.outputs);
    const Picture y =
        run.convolve(in, conv, o.groups > 0 ? &norm : nullptr, o.swish, resample, added ? &residual : nullptr);
    if (run.ok()) append(out, y);
  }
  return run.status;
}

Status Single::spatialAttention() {
  const float* x = next();
  file.add("norm.weight", {o.channels}, next());
  file.add("norm.bias", {o.channels}, next());
  for (const char* name : {"q", "k", "v", "out"}) {
    file.add(std::string(name) + ".weight", {o.channels, o.channels, 1, 1}, next());
    file.add(std::string(name) + ".bias", {o.channels}, next());
  }
  if (Status s = file.open(tensors); !s.ok()) return s;
  Loader loader(&tensors, o.precision);
  LayerPlan plan(loader, numbers().activations);
  AttentionLayer<GroupNorm, ConvolutionWeights> a;
  plan.norm(a.norm, "norm", o.channels);
  plan.convolution(a.q, "q", o.channels, o.channels, 1);
  plan.convolution(a.k, "k", o.channels, o.channels, 1);
  plan.convolution(a.v, "v", o.channels, o.channels, 1);
  plan.convolution(a.out, "out", o.channels, o.channels, 1);
  if (Status s = load(loader); !s.ok()) return s;

  PictureRunner run(threads, numbers().activations, o.groups, o.eps, never);
  for (int i = 0; i < o.images && run.ok(); i++) {
    const Picture y = run.layer(pictureOf(run, x, i, o.height, o.width, o.channels), a, false);
    if (run.ok()) append(out, y);
  }
  return run.status;
}

}  // namespace

}  // namespace parvis::cpu

namespace parvis {

Status runOperation(const Operation& o, const Inputs& inputs, int threads, std::vector<float>& output) {
  if (Status s = checkOperation(o, inputs); !s.ok()) return s;
  cpu::Threads pool(threads);
  cpu::Single single{pool, o, inputs, output, 0, {}, {}, {}, {}};
  switch (o.kind) {
    case Operation::Kind::projection: return single.projection();
    case Operation::Kind::attention: return single.attention();
    case Operation::Kind::draw: return single.draw();
    case Operation::Kind::convolution: return single.convolution();
    case Operation::Kind::spatialAttention: return single.spatialAttention();
  }
  return {};
}

}  // namespace parvis
