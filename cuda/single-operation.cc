// Every operation runs the kernels of sessions (rows.h) and of the tokenizer (operations.h), chosen by their code. Here is
// what surrounds them: numbers, given or random, in the layouts of the kernels; copies of weights and caches; the clock.
#include "single-operation.h"

#include <algorithm>

#include "../common/floats.h"
#include "../common/steps.h"
#include "operations.h"
#include "replay.h"
#include "rows.h"

namespace parvis::cuda {

namespace {

const char* const running = "running an operation";

Status cancelled() { return {Code::cancelled, "Cancelled."}; }
Status refused(const std::string& why) { return {Code::invalidOption, "The CUDA backend cannot run this operation: " + why + "."}; }

// ---- what all have in common ----------------------------------------------------------------------------------

// Room for rows behind a norm.
class BehindPlan {
 public:
  void add(Layout& layout, Element element, size_t rows, int dim) {
    stride_ = rowStride(dim);
    elements_ = layout.add(rows * static_cast<size_t>(stride_) * sizeOf(element));
    summed_ = element != Element::float32;
    squares_ = layout.add(summed_ ? rows * static_cast<size_t>(squaresStride(dim)) * 4 : 0);
  }
  Behind at(uint8_t* base) const { return {base + elements_, stride_, summed_ ? reinterpret_cast<float*>(base + squares_) : nullptr}; }

 private:
  ptrdiff_t stride_ = 0;
  size_t elements_ = 0, squares_ = 0;
  bool summed_ = false;
};

class Single {
 public:
  Single(std::shared_ptr<Device> device, const Operation& o, const OperationRun& run, const Cancel& cancel)
      : device_(std::move(device)), o(o), run(run), cancel_(cancel), shapes_(operationInputs(o)), element_(o.precision == Precision::float32 ? Element::float32 : Element::bfloat16) {}
  virtual ~Single() = default;
  Status measure(OperationResult& out);

 protected:
  virtual Status check() const { return {}; }
  virtual void plan() = 0;                           // adds to layout_ whatever it needs
  virtual Status prepare(int copy) = 0;              // enqueues the weights of a copy; whatever copies share with the first
  virtual Status once(int copy) = 0;                 // enqueues the operation
  virtual Status read(std::vector<float>& out) = 0;

  cudaStream_t stream() const { return device_->stream(); }
  Element element() const { return element_; }
  size_t item() const { return sizeOf(element_); }
  template <class T = float>
  T* at(size_t place) const { return memory_.data() ? reinterpret_cast<T*>(memory_.data() + place) : nullptr; }
  // One for every copy, side by side.
  size_t addCopies(size_t& bytes) {
    bytes = (bytes + 255) / 256 * 256;
    return layout_.add(bytes * static_cast<size_t>(run.copies));
  }
  size_t countOf(size_t input) const {
    size_t count = 1;
    for (const int64_t d : shapes_[input]) count *= static_cast<size_t>(d);
    return count;
  }

  // An input on the device as it was given, or random numbers in its place; there until the next one is asked for.
  Status input(size_t which, const float*& out) {
    out = at(staging_);
    const size_t bytes = countOf(which) * 4;
    if (run.inputs.empty()) return statusOf(fill(at(staging_), bytes, stream()), running);
    return bytes == 0 ? Status{} : statusOf(cudaMemcpyAsync(at(staging_), run.inputs[which].data(), bytes, cudaMemcpyHostToDevice, stream()), "copying numbers to the device");
  }
  // The same as rows `stride` apart, of each group `places`.
  Status rowsOf(size_t which, size_t groups, size_t rows, int width, Element as, void* to, size_t places, ptrdiff_t stride, float scale = 1) {
    const float* from;
    if (Status s = input(which, from); !s.ok()) return s;
    return statusOf(scatter({from, static_cast<int>(groups), static_cast<int>(rows), width, scale, as, to, static_cast<int>(places), stride}, rowThreads, stream()), running);
  }
  Status rowsOf(size_t which, size_t rows, int width, Element as, void* to, ptrdiff_t stride) { return rowsOf(which, 1, rows, width, as, to, rows, stride); }
  // The weights of an RMSNorm, in the precision of the model, to where `n` has them; and what whoever makes its rows leaves.
  Status normOf(size_t which, const NormedRows& n, const Behind& behind) {
    if (Status s = rowsOf(which, 1, n.dim, element_, behind.elements, n.dim); !s.ok()) return s;
    if (Status s = statusOf(convert(behind.elements, element_, const_cast<float*>(n.weight), Element::float32, static_cast<size_t>(n.dim), rowThreads, stream()), running); !s.ok()) return s;
    return behind.squares ? launched(norm(*device_, n, behind)) : Status{};
  }
  // Rows behind a norm: in float32 it is part of the operation.
  cudaError_t takeNormed(Projection& p, const NormedRows& n, const Behind& behind) const {
    behind.give(p, n.eps);
    return behind.squares ? cudaSuccess : norm(*device_, n, behind);
  }
  Status readRows(const void* from, Element as, size_t rows, int width, ptrdiff_t stride, std::vector<float>& out) {
    std::vector<uint8_t> all(rows * static_cast<size_t>(stride) * sizeOf(as));
    if (Status s = statusOf(cudaMemcpyAsync(all.data(), from, all.size(), cudaMemcpyDeviceToHost, stream()), "reading results"); !s.ok()) return s;
    if (Status s = device_->finish(running); !s.ok()) return s;
    out.resize(rows * static_cast<size_t>(width));
    for (size_t r = 0; r < rows; r++)
      parvis::widen(all.data() + r * static_cast<size_t>(stride) * sizeOf(as), as == Element::float32 ? DType::float32 : DType::bfloat16, out.data() + r * static_cast<size_t>(width), static_cast<size_t>(width));
    return {};
  }
  // Sizes that no kernel is built for are the caller's affair, and leave the device as it is.
  Status launched(cudaError_t e) const {
    if (e != cudaErrorInvalidValue && e != cudaErrorInvalidConfiguration) return statusOf(e, running);
    cudaGetLastError();
    return refused("no kernel is built for its sizes");
  }

  std::shared_ptr<Device> device_;
  const Operation& o;
  const OperationRun& run;
  const Cancel& cancel_;
  Layout layout_;
  DeviceMemory memory_;

 private:
  Status allocate();
  Status turn() {
    for (int copy = 0; copy < run.copies; copy++)
      if (Status s = once(copy); !s.ok()) return s;
    return {};
  }
  std::vector<std::vector<int64_t>> shapes_;
  Element element_;
  size_t staging_ = 0;
};

Status Single::allocate() {
  // What no device holds is refused before any product of sizes could overflow.
  constexpr double most = static_cast<double>(size_t{1} << 44);  // of floats
  double all = 0;
  size_t largest = 0;
  for (size_t i = 0; i < shapes_.size(); i++) {
    double count = run.copies;
    for (const int64_t d : shapes_[i]) count *= static_cast<double>(d);
    all += count;
    if (all <= most) largest = std::max(largest, countOf(i) * 4);
  }
  if (all > most) layout_.add(size_t{1} << 58);
  else {
    staging_ = layout_.add(largest);
    plan();
  }
  return DeviceMemory::allocate(device_, layout_.bytes(), "The numbers of an operation", memory_);
}

Status Single::measure(OperationResult& out) {
  if (Status s = check(); !s.ok()) return s;
  if (Status s = allocate(); !s.ok()) return s;
  const auto stopped = [&] { return cancel_.load(std::memory_order_relaxed); };
  for (int copy = 0; copy < run.copies; copy++) {
    if (stopped()) return cancelled();
    if (Status s = prepare(copy); !s.ok()) return s;
  }
  if (Status s = device_->finish(running); !s.ok()) return s;
  if (!run.inputs.empty()) {
    if (Status s = once(0); !s.ok()) return s;
    if (Status s = read(out.output); !s.ok()) return s;
  }
  if (run.warmup + run.repeats == 0) return {};
  if (stopped()) return cancelled();
  if (Status s = turn(); !s.ok()) return s;  // a capture is no time for loading kernels
  if (Status s = device_->finish(running); !s.ok()) return s;
  Replay replay(*device_);
  if (Status s = replay.capture([&] { return turn(); }); !s.ok()) return s;
  for (int i = -run.warmup; i < run.repeats; i++) {
    if (stopped()) return cancelled();
    double ms = 0;
    if (Status s = replay.run(ms); !s.ok()) return s;
    if (i >= 0) out.ms.push_back(ms / run.copies);
  }
  return {};
}

// ---- rows of a transformer --------------------------------------------------------------------------------------

// A matrix as the loader has it: packed in bfloat16, as it is given in float32.
class MatrixPlan {
 public:
  // paired: gates, then ups, `outputs` each
  MatrixPlan(Element element, int outputs, int inputs, bool paired) : element_(element), outputs_(outputs), inputs_(inputs), paired_(paired) {}
  int pairs() const { return paired_ ? outputs_ : (outputs_ + 1) / 2; }
  size_t bytes() const {
    const size_t rows = static_cast<size_t>(outputs_) * (paired_ ? 2 : 1);
    return element_ == Element::float32 ? rows * static_cast<size_t>(inputs_) * 4 : Packed{nullptr, pairs(), inputs_}.elements() * 2;
  }
  Matrix at(void* place) const {
    Matrix m;
    m.inputs = inputs_;
    if (element_ == Element::float32) m.plain = packing(static_cast<const float*>(place));
    else m.packed = {static_cast<uint16_t*>(place), pairs(), inputs_};
    return m;
  }
  cudaError_t put(const float* from, void* place, cudaStream_t stream) const {
    if (element_ == Element::float32) return cudaMemcpyAsync(place, from, bytes(), cudaMemcpyDeviceToDevice, stream);
    return pack(packing(from), {static_cast<uint16_t*>(place), pairs(), inputs_}, rowThreads, stream);
  }

 private:
  Packing packing(const float* from) const {
    if (paired_) return {from, from + static_cast<size_t>(outputs_) * static_cast<size_t>(inputs_), inputs_, outputs_, outputs_, Element::float32};
    return {from, from + inputs_, 2 * static_cast<ptrdiff_t>(inputs_), (outputs_ + 1) / 2, outputs_ / 2, Element::float32};
  }
  Element element_;
  int outputs_, inputs_;
  bool paired_;
};

class SingleProjection : public Single {
 public:
  using Single::Single;

 private:
  bool paired() const { return o.epilogue == Operation::Epilogue::swiglu; }
  MatrixPlan matrix() const { return {element(), o.outputs, o.inputs, paired()}; }
  size_t rows() const { return static_cast<size_t>(o.rows); }

  Status check() const override { return o.inputs % 2 == 0 ? Status{} : refused("its width of " + std::to_string(o.inputs) + " is odd"); }
  void plan() override {
    xStride_ = rowStride(o.inputs), yStride_ = rowStride(o.outputs);
    const size_t x = rows() * static_cast<size_t>(xStride_), y = rows() * static_cast<size_t>(yStride_);
    x_ = layout_.add(x * (o.normed ? 4 : item()));
    norm_ = layout_.add(o.normed ? static_cast<size_t>(xStride_) * 4 : 0);
    if (o.normed) behind_.add(layout_, element(), rows(), o.inputs);
    y_ = layout_.add(y * (paired() ? item() : 4));
    each_ = matrix().bytes();
    weights_ = addCopies(each_);
  }
  Status prepare(int copy) override {
    const float* from;
    size_t which = 1;
    if (copy == 0)
      if (Status s = rowsOf(0, rows(), o.inputs, o.normed ? Element::float32 : element(), at<void>(x_), xStride_); !s.ok()) return s;
    if (o.normed && copy == 0)
      if (Status s = normOf(which, norm(), behind()); !s.ok()) return s;
    which += o.normed;
    if (Status s = input(which++, from); !s.ok()) return s;
    if (Status s = launched(matrix().put(from, weights(copy), stream())); !s.ok()) return s;
    if (o.epilogue != Operation::Epilogue::add || copy > 0) return {};
    return rowsOf(which, rows(), o.outputs, Element::float32, at(y_), yStride_);
  }
  Status once(int copy) override {
    Projection p{};
    p.elements = at<void>(x_), p.xStride = xStride_, p.rows = o.rows, p.yStride = yStride_;
    if (o.normed)
      if (Status s = launched(takeNormed(p, norm(), behind())); !s.ok()) return s;
    if (paired()) p.epilogue = Epilogue::swiglu, p.out = at<void>(y_);
    else p.epilogue = o.epilogue == Operation::Epilogue::add ? Epilogue::add : Epilogue::store, p.y = at(y_);
    return launched(multiply(*device_, element(), p, matrix().at(weights(copy))));
  }
  NormedRows norm() const { return {at(x_), xStride_, nullptr, o.rows, o.inputs, at(norm_), o.eps}; }
  Behind behind() const { return behind_.at(memory_.data()); }
  Status read(std::vector<float>& out) override { return readRows(at<void>(y_), paired() ? element() : Element::float32, rows(), o.outputs, yStride_, out); }
  void* weights(int copy) const { return at<void>(weights_ + each_ * static_cast<size_t>(copy)); }

  ptrdiff_t xStride_ = 0, yStride_ = 0;
  BehindPlan behind_;
  size_t x_ = 0, norm_ = 0, y_ = 0, weights_ = 0, each_ = 0;
};

class SingleAttention : public Single {
 public:
  using Single::Single;

 private:
  MatrixPlan matrix() const { return {element(), (o.heads + 2 * o.kvHeads) * o.headSize, o.dim, false}; }
  size_t all() const { return static_cast<size_t>(o.streams) * static_cast<size_t>(o.rows); }
  size_t keyHeads() const { return static_cast<size_t>(o.streams) * static_cast<size_t>(o.kvHeads); }
  int positions() const { return std::max((o.sees - 1) / o.grid, std::min(o.grid, o.sees) - 1) + 1; }
  int quarter() const { return o.headSize / 4; }

  Status check() const override {
    if (o.dim % 2 != 0) return refused("its width of " + std::to_string(o.dim) + " is odd");
    return o.headSize <= mostHeadSize ? Status{} : refused("a head size of " + std::to_string(o.headSize) + " is above " + std::to_string(mostHeadSize));
  }
  void plan() override {
    xStride_ = rowStride(o.dim), outStride_ = rowStride(o.heads * o.headSize);
    Attention split{};
    split.rows.count = splitRows(o.rows, o.heads, o.kvHeads);
    split.streams = o.streams, split.heads = o.heads, split.kvHeads = o.kvHeads, split.headSize = o.headSize, split.cache.slots = o.sees;
    const size_t padded = static_cast<size_t>(paddedHead(o.headSize));
    table_ = layout_.add(static_cast<size_t>(o.rows) * sizeof(Row));
    cosine_ = layout_.add(static_cast<size_t>(positions()) * static_cast<size_t>(quarter()) * 4);
    sine_ = layout_.add(static_cast<size_t>(positions()) * static_cast<size_t>(quarter()) * 4);
    x_ = layout_.add(all() * static_cast<size_t>(xStride_) * 4);
    norm_ = layout_.add(static_cast<size_t>(xStride_) * 4);
    behind_.add(layout_, element(), all(), o.dim);
    queries_ = layout_.add(all() * static_cast<size_t>(o.heads) * padded * item());
    out_ = layout_.add(all() * static_cast<size_t>(outStride_) * item());
    partial_ = layout_.add(attentionPartials(split) * 4);
    counters_ = layout_.add(attentionCounters(split) * 4);
    weightsEach_ = matrix().bytes();
    weights_ = addCopies(weightsEach_);
    cacheEach_ = keyHeads() * static_cast<size_t>(o.sees) * padded * item();
    keys_ = addCopies(cacheEach_);
    values_ = addCopies(cacheEach_);
  }
  Status prepare(int copy) override {
    const float* from;
    if (copy == 0) {
      if (Status s = angles(); !s.ok()) return s;
      if (Status s = rowsOf(0, all(), o.dim, Element::float32, at(x_), xStride_); !s.ok()) return s;
      if (Status s = normOf(1, norm(), behind()); !s.ok()) return s;
    }
    if (Status s = input(2, from); !s.ok()) return s;
    if (Status s = launched(matrix().put(from, of(weights_, weightsEach_, copy), stream())); !s.ok()) return s;
    const size_t before = static_cast<size_t>(o.sees - o.rows);
    if (before == 0) return {};
    if (Status s = rowsOf(3, keyHeads(), before, o.headSize, element(), of(keys_, cacheEach_, copy), static_cast<size_t>(o.sees), paddedHead(o.headSize)); !s.ok()) return s;
    return rowsOf(4, keyHeads(), before, o.headSize, element(), of(values_, cacheEach_, copy), static_cast<size_t>(o.sees), paddedHead(o.headSize));
  }
  Status angles() {
    std::vector<Row> table;
    for (int i = 0; i < o.rows; i++) {
      const int cell = o.sees - o.rows + i;
      table.push_back({classInput, cell, cell / o.grid, cell % o.grid, 1, o.sees, -1});
    }
    TransformerModel model;
    model.headSize = o.headSize;
    std::vector<float> cosine, sine;
    for (int p = 0; p < positions(); p++)
      for (int k = 0; k < quarter(); k++) {
        const Angle a = rotationAngle(model, p, k);
        cosine.push_back(a.cosine);
        sine.push_back(a.sine);
      }
    cudaError_t e = cudaMemcpyAsync(at<Row>(table_), table.data(), table.size() * sizeof(Row), cudaMemcpyHostToDevice, stream());
    if (e == cudaSuccess) e = cudaMemcpyAsync(at(cosine_), cosine.data(), cosine.size() * 4, cudaMemcpyHostToDevice, stream());
    if (e == cudaSuccess) e = cudaMemcpyAsync(at(sine_), sine.data(), sine.size() * 4, cudaMemcpyHostToDevice, stream());
    return statusOf(e, "copying numbers to the device");
  }
  Status once(int copy) override {
    const RowTable table{at<Row>(table_), o.rows, nullptr};
    const Cache cache{of(keys_, cacheEach_, copy), of(values_, cacheEach_, copy), o.sees};
    Projection p{};
    p.rows = static_cast<int>(all()), p.epilogue = Epilogue::append;
    if (Status s = launched(takeNormed(p, norm(), behind())); !s.ok()) return s;
    p.rotation = {table, o.streams, o.heads, o.kvHeads, o.headSize, at(cosine_), at(sine_), element(), at<void>(queries_), cache};
    if (Status s = launched(multiply(*device_, element(), p, matrix().at(of(weights_, weightsEach_, copy)))); !s.ok()) return s;
    return launched(attendCached(*device_, element(), {table, o.streams, o.heads, o.kvHeads, o.headSize, at<void>(queries_), cache, at<void>(out_), outStride_, at(partial_), at<uint32_t>(counters_)}));
  }
  Status read(std::vector<float>& out) override { return readRows(at<void>(out_), element(), all(), o.heads * o.headSize, outStride_, out); }
  void* of(size_t place, size_t each, int copy) const { return at<void>(place + each * static_cast<size_t>(copy)); }
  NormedRows norm() const { return {at(x_), xStride_, nullptr, static_cast<int>(all()), o.dim, at(norm_), o.eps}; }
  Behind behind() const { return behind_.at(memory_.data()); }

  ptrdiff_t xStride_ = 0, outStride_ = 0;
  BehindPlan behind_;
  size_t table_ = 0, cosine_ = 0, sine_ = 0, x_ = 0, norm_ = 0, queries_ = 0, out_ = 0, partial_ = 0, counters_ = 0;
  size_t weights_ = 0, weightsEach_ = 0, keys_ = 0, values_ = 0, cacheEach_ = 0;
};

class SingleDraw : public Single {
 public:
  using Single::Single;

 private:
  static constexpr float spreadOfRandom = 200;  // logits of a few nats

  bool guided() const { return o.guided && o.rule.guidanceScale != 1.0f; }  // as in a session
  size_t draws() const { return static_cast<size_t>(o.draws); }

  Status check() const override {
    const int most = vocabularyLimit(device_->sharedLimit());
    return o.vocabulary <= most ? Status{} : refused("the shared memory of " + device_->describe() + " holds the logits of " + std::to_string(most) + " tokens, not of " + std::to_string(o.vocabulary));
  }
  void plan() override {
    stride_ = rowStride(o.vocabulary);
    const size_t logits = draws() * static_cast<size_t>(stride_) * 4;
    logits_[0] = layout_.add(logits);
    logits_[1] = layout_.add(guided() ? logits : 0);
    rows_ = layout_.add(draws() * sizeof(Row));
    table_ = layout_.add(draws() * sizeof(Prediction));
    seed_ = layout_.add(8);
    tokens_ = layout_.add(draws() * 4);
    nonFinite_ = layout_.add(4);
  }
  Status prepare(int copy) override {
    if (copy > 0) return {};
    for (size_t i = 0; i < (guided() ? 2 : 1); i++)
      if (Status s = rowsOf(i, 1, draws(), o.vocabulary, Element::float32, at(logits_[i]), draws(), stride_, run.inputs.empty() ? spreadOfRandom : 1); !s.ok()) return s;
    std::vector<Row> rows;
    std::vector<Prediction> table;
    for (int i = 0; i < o.draws; i++) {
      rows.push_back({classInput, 0, -1, -1, 1, 1, i});
      table.push_back({0, i});
    }
    const uint64_t seed = 1;
    cudaError_t e = cudaMemcpyAsync(at<Row>(rows_), rows.data(), rows.size() * sizeof(Row), cudaMemcpyHostToDevice, stream());
    if (e == cudaSuccess) e = cudaMemcpyAsync(at<Prediction>(table_), table.data(), table.size() * sizeof(Prediction), cudaMemcpyHostToDevice, stream());
    if (e == cudaSuccess) e = cudaMemcpyAsync(at<uint64_t>(seed_), &seed, sizeof seed, cudaMemcpyHostToDevice, stream());
    return statusOf(e, "copying numbers to the device");
  }
  Status once(int) override {
    const int together = mostLogitRows / (guided() ? 2 : 1);  // as in a session
    for (int first = 0; first < o.draws; first += together) {
      Sampling d{};
      d.conditional = at(logits_[0]) + first * stride_;
      if (guided()) d.unconditional = at(logits_[1]) + first * stride_;
      d.stride = stride_, d.predictions = std::min(together, o.draws - first), d.vocabulary = o.vocabulary;
      d.table = at<Prediction>(table_) + first, d.rows = {at<Row>(rows_), o.draws, nullptr}, d.seeds = at<uint64_t>(seed_), d.tokensEach = o.draws, d.tokens = at<int32_t>(tokens_);
      d.nonFinite = at<int>(nonFinite_), d.guidanceScale = o.rule.guidanceScale, d.temperature = o.rule.temperature, d.topP = o.rule.topP, d.topK = o.rule.topK;
      d.threads = samplingThreads(o.vocabulary);
      if (Status s = launched(sample(d, device_->steps())); !s.ok()) return s;
    }
    return {};
  }
  Status read(std::vector<float>& out) override {
    std::vector<int32_t> tokens(draws());
    int bad = 0;
    cudaError_t e = cudaMemcpyAsync(tokens.data(), at<int32_t>(tokens_), draws() * 4, cudaMemcpyDeviceToHost, stream());
    if (e == cudaSuccess) e = cudaMemcpyAsync(&bad, at<int>(nonFinite_), sizeof bad, cudaMemcpyDeviceToHost, stream());
    if (Status s = statusOf(e, "reading results"); !s.ok()) return s;
    if (Status s = device_->finish(running); !s.ok()) return s;
    if (bad) return notFinite();
    out.assign(tokens.begin(), tokens.end());
    return {};
  }

  ptrdiff_t stride_ = 0;
  size_t logits_[2] = {}, rows_ = 0, table_ = 0, seed_ = 0, tokens_ = 0, nonFinite_ = 0;
};

// ---- pictures ---------------------------------------------------------------------------------------------------

// Pictures lie in an arena, as the tokenizer's do. Each run takes them anew, and finds them: nothing else is taken between
// runs, so the same calls get the same places.
class SinglePictures : public Single {
 public:
  using Single::Single;

 protected:
  using Resample = Operations::Resample;
  struct Taken {
    DevicePicture x, residual;
  };
  virtual DevicePicture enqueue(Operations& on, Taken taken, int copy) = 0;
  virtual bool normed() const = 0;
  virtual size_t residualInput() const { return 0; }  // 0: none

  int outHeight() const { return resampled(o.height); }
  int outWidth() const { return resampled(o.width); }
  Resample resample() const { return o.resample == Operation::Resample::up ? Resample::up : o.resample == Operation::Resample::down ? Resample::down : Resample::none; }

  Status check() const override {
    if (normed() && o.channels / o.groups > mostGroup) return refused("a group has " + std::to_string(o.channels / o.groups) + " channels, more than " + std::to_string(mostGroup));
    return {};
  }
  void planPictures(int outputs) {
    outputs_ = outputs;
    Arena arena;
    Operations dry = operations(arena, nullptr);
    enqueue(dry, take(dry), 0);
    arena_ = layout_.add(arena.peak());
  }
  // The sums of a norm come with a picture: whatever produced it has written them.
  Status preparePictures() {
    Arena arena;
    Operations on = operations(arena, at<uint8_t>(arena_));
    const Taken taken = take(on);
    if (Status s = put(on, taken.x, 0); !s.ok()) return s;
    if (taken.x.sums.taken())
      on.run([&](cudaStream_t stream) { return vq::statistics({on.at<uint8_t>(taken.x.place), o.images, o.height, o.width, o.channels, element(), on.at<float>(taken.x.sums), rowThreads}, stream); });
    if (residualInput() == 0 || !on.going()) return on.status;
    return put(on, taken.residual, residualInput());
  }
  // A convolution's weights and bias, the inputs `which` and `which` + 1, at `place`: the filter, then [outputs up to 16] floats.
  static size_t filterBytes(const VqFilter& f) { return (f.bytes() + 255) / 256 * 256 + static_cast<size_t>(rowStride(f.outputs)) * 4; }
  static VqFilter filterAt(VqFilter f, uint8_t* place) {
    if (!place) return f;  // there is no memory yet
    f.data = place;
    f.bias = reinterpret_cast<const float*>(place + (f.bytes() + 255) / 256 * 256);
    return f;
  }
  Status putFilter(const VqFilter& f, size_t which) {
    const float* from;
    if (Status s = input(which, from); !s.ok()) return s;
    if (Status s = launched(vq::packFilter(from, 0, f.outputs, f, rowThreads, stream())); !s.ok()) return s;
    return rowsOf(which + 1, 1, f.outputs, Element::float32, const_cast<float*>(f.bias), rowStride(f.outputs));
  }
  Status putNorm(const VqNorm& n, size_t which) {
    if (Status s = rowsOf(which, 1, n.channels, Element::float32, const_cast<float*>(n.weight), n.channels); !s.ok()) return s;
    return rowsOf(which + 1, 1, n.channels, Element::float32, const_cast<float*>(n.bias), n.channels);
  }

 private:
  static constexpr int mostGroup = 512;

  int resampled(int side) const { return o.resample == Operation::Resample::up ? 2 * side : o.resample == Operation::Resample::down ? side / 2 : side; }
  Operations operations(Arena& arena, uint8_t* base) const {
    Operations on(arena, base, *device_, element(), std::max(1, o.groups), o.eps, o.images, cancel_);
    on.waits = false;
    return on;
  }
  Taken take(Operations& on) const {
    Taken t;
    t.x = on.make(o.height, o.width, o.channels);
    if (normed()) t.x.sums = on.take(on.sumBytes(o.height, o.width, o.channels));
    if (residualInput() != 0) t.residual = on.make(outHeight(), outWidth(), outputs_);
    return t;
  }
  Status put(Operations& on, const DevicePicture& to, size_t which) {
    const float* from;
    if (Status s = input(which, from); !s.ok()) return s;
    const size_t pixels = static_cast<size_t>(o.images) * static_cast<size_t>(to.height) * static_cast<size_t>(to.width);
    return launched(vq::input({from, pixels, to.channels, element(), on.at<uint8_t>(to.place), rowThreads}, stream()));
  }
  Status once(int copy) override {
    Arena arena;
    Operations on = operations(arena, at<uint8_t>(arena_));
    const DevicePicture y = enqueue(on, take(on), copy);
    result_ = y.place.at();
    return on.going() ? Status{} : on.status;
  }
  Status read(std::vector<float>& out) override {
    const size_t pixels = static_cast<size_t>(o.images) * static_cast<size_t>(outHeight()) * static_cast<size_t>(outWidth());
    return readRows(at<uint8_t>(arena_) + result_, element(), pixels, outputs_, vq::pictureStride(outputs_), out);
  }
  int outputs_ = 0;
  size_t arena_ = 0, result_ = 0;
};

class SingleConvolution : public SinglePictures {
 public:
  using SinglePictures::SinglePictures;

 private:
  bool normed() const override { return o.groups > 0; }
  size_t residualInput() const override { return !o.residual ? 0 : normed() ? 5 : 3; }
  VqFilter filter() const { return {nullptr, nullptr, o.channels, o.outputs, o.kernel, element()}; }
  VqFilter filter(int copy) const { return filterAt(filter(), at<uint8_t>(weights_ + each_ * static_cast<size_t>(copy))); }
  VqNorm norm() const { return {at(norm_), at(norm_ + static_cast<size_t>(o.channels) * 4), o.channels}; }

  Status check() const override {
    if (o.swish && !normed()) return refused("swish comes after a norm, and it has none");
    if (o.resample != Operation::Resample::none && normed()) return refused("a convolution that resamples has no norm before it");
    return SinglePictures::check();
  }
  void plan() override {
    norm_ = layout_.add(normed() ? static_cast<size_t>(o.channels) * 8 : 0);
    each_ = filterBytes(filter());
    weights_ = addCopies(each_);
    planPictures(o.outputs);
  }
  Status prepare(int copy) override {
    if (Status s = putFilter(filter(copy), 1); !s.ok() || copy > 0) return s;
    if (normed())
      if (Status s = putNorm(norm(), 3); !s.ok()) return s;
    return preparePictures();
  }
  DevicePicture enqueue(Operations& on, Taken taken, int copy) override {
    const VqNorm n = norm();
    return on.convolve(taken.x, filter(copy), normed() ? &n : nullptr, o.swish, resample(), o.residual ? &taken.residual : nullptr);
  }
  size_t norm_ = 0, weights_ = 0, each_ = 0;
};

class SingleSpatialAttention : public SinglePictures {
 public:
  using SinglePictures::SinglePictures;

 private:
  bool normed() const override { return true; }
  VqFilter filter() const { return {nullptr, nullptr, o.channels, o.channels, 1, element()}; }
  VqFilter filter(int copy, int which) const { return filterAt(filter(), at<uint8_t>(weights_ + each_ * static_cast<size_t>(copy) + filterBytes(filter()) * static_cast<size_t>(which))); }
  VqNorm norm() const { return {at(norm_), at(norm_ + static_cast<size_t>(o.channels) * 4), o.channels}; }

  Status check() const override {
    if (o.channels > vq::mostAttentionChannels) return refused("it has more than " + std::to_string(vq::mostAttentionChannels) + " channels");
    return SinglePictures::check();
  }
  void plan() override {
    norm_ = layout_.add(static_cast<size_t>(o.channels) * 8);
    each_ = 4 * filterBytes(filter());
    weights_ = addCopies(each_);
    planPictures(o.channels);
  }
  Status prepare(int copy) override {
    for (int i = 0; i < 4; i++)
      if (Status s = putFilter(filter(copy, i), static_cast<size_t>(3 + 2 * i)); !s.ok()) return s;
    if (copy > 0) return {};
    if (Status s = putNorm(norm(), 1); !s.ok()) return s;
    return preparePictures();
  }
  DevicePicture enqueue(Operations& on, Taken taken, int copy) override {
    return on.attention(std::move(taken.x), {norm(), filter(copy, 0), filter(copy, 1), filter(copy, 2), filter(copy, 3)});
  }
  size_t norm_ = 0, weights_ = 0, each_ = 0;
};

std::unique_ptr<Single> singleOf(std::shared_ptr<Device> device, const Operation& o, const OperationRun& run, const Cancel& cancel) {
  switch (o.kind) {
    case Operation::Kind::projection: return std::make_unique<SingleProjection>(std::move(device), o, run, cancel);
    case Operation::Kind::attention: return std::make_unique<SingleAttention>(std::move(device), o, run, cancel);
    case Operation::Kind::draw: return std::make_unique<SingleDraw>(std::move(device), o, run, cancel);
    case Operation::Kind::convolution: return std::make_unique<SingleConvolution>(std::move(device), o, run, cancel);
    case Operation::Kind::spatialAttention: return std::make_unique<SingleSpatialAttention>(std::move(device), o, run, cancel);
  }
  return nullptr;
}

}  // namespace

Status runSingle(const std::shared_ptr<Device>& device, const Operation& operation, const OperationRun& run, const Cancel& cancel, OperationResult& out) {
  if (Status s = checkOperation(operation, run); !s.ok()) return s;
  if (Status s = device->use(); !s.ok()) return s;
  return singleOf(device, operation, run, cancel)->measure(out);
}

}  // namespace parvis::cuda
