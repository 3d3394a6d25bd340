// Operations on rows of a transformer: projections, attention with the projection before it, draws.
#include "../common/steps.h"
#include "single.h"

namespace parvis::cuda {

namespace {

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

// Rows behind a norm.
class SingleNormed : public Single {
 public:
  using Single::Single;

 protected:
  // The weights of an RMSNorm, in the precision of the model, to where `n` has them; and what whoever makes its rows leaves.
  Status normOf(size_t which, const NormedRows& n, const Behind& behind) {
    if (Status s = rowsOf(which, 1, n.dim, element(), behind.elements, n.dim); !s.ok()) return s;
    if (Status s = statusOf(convert(behind.elements, element(), const_cast<float*>(n.weight), Element::float32, static_cast<size_t>(n.dim), rowThreads, stream()), running); !s.ok()) return s;
    return behind.squares ? launched(norm(*device_, n, behind)) : Status{};
  }
  // Rows behind a norm: in float32 it is part of the operation.
  cudaError_t takeNormed(Projection& p, const NormedRows& n, const Behind& behind) const {
    behind.give(p, n.eps);
    return behind.squares ? cudaSuccess : norm(*device_, n, behind);
  }
};

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

class SingleProjection : public SingleNormed {
 public:
  using SingleNormed::SingleNormed;

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

class SingleAttention : public SingleNormed {
 public:
  using SingleNormed::SingleNormed;

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
    const Status finished = device_->finish(copying);  // what is copied goes with this function
    return e == cudaSuccess ? finished : statusOf(e, copying);
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
    const Status finished = device_->finish(copying);  // what is copied goes with this function
    return e == cudaSuccess ? finished : statusOf(e, copying);
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
    const Status finished = device_->finish(running);  // in any case: a copy may be under way
    if (Status s = statusOf(e, "reading results"); !s.ok()) return s;
    if (!finished.ok()) return finished;
    if (bad) return notFinite();
    out.assign(tokens.begin(), tokens.end());
    return {};
  }

  ptrdiff_t stride_ = 0;
  size_t logits_[2] = {}, rows_ = 0, table_ = 0, seed_ = 0, tokens_ = 0, nonFinite_ = 0;
};

}  // namespace

std::unique_ptr<Single> singleOfRows(std::shared_ptr<Device> device, const Operation& o, const OperationRun& run, const Cancel& cancel) {
  if (o.kind == Operation::Kind::projection) return std::make_unique<SingleProjection>(std::move(device), o, run, cancel);
  if (o.kind == Operation::Kind::attention) return std::make_unique<SingleAttention>(std::move(device), o, run, cancel);
  return std::make_unique<SingleDraw>(std::move(device), o, run, cancel);
}

}  // namespace parvis::cuda
