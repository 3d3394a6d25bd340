#include "session.h"

#include <algorithm>
#include <cstring>

#include "rows.h"

namespace parvis::cuda {

// ---- memory -------------------------------------------------------------------------------------------------

Status CudaSession::allocate() {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const size_t item = sizeOf(t.element_), branches = o_.guided ? 2 : 1, rows = static_cast<size_t>(streams()) * static_cast<size_t>(o_.maxRows);
  const size_t tokens = static_cast<size_t>(sequences()) * static_cast<size_t>(o_.tokens), predictions = static_cast<size_t>(sequences()) * static_cast<size_t>(o_.maxRows);
  const int width = m.heads * m.headSize;
  xStride_ = rowStride(m.dim);
  wideStride_ = rowStride(width);
  ffStride_ = rowStride(m.feedForward);
  vocabularyStride_ = rowStride(m.vocabulary);
  chunk_ = static_cast<int>(std::min(predictions, mostLogitRows / branches));
  cacheBytes_ = static_cast<size_t>(streams()) * static_cast<size_t>(m.kvHeads) * static_cast<size_t>(o_.slots) * static_cast<size_t>(paddedHead(m.headSize)) * item;
  Attention a{};
  a.rows.count = splitRows(o_.maxRows, m.heads, m.kvHeads);
  a.streams = streams(), a.heads = m.heads, a.kvHeads = m.kvHeads, a.headSize = m.headSize, a.cache.slots = o_.slots;

  Layout layout;
  const size_t stepRows = layout.add(static_cast<size_t>(o_.maxRows) * sizeof(Row)), counter = layout.add(4), nonFinite = layout.add(4), x = layout.add(rows * static_cast<size_t>(xStride_) * 4),
               normed = layout.add(rows * static_cast<size_t>(xStride_) * item), queries = layout.add(rows * static_cast<size_t>(m.heads) * static_cast<size_t>(paddedHead(m.headSize)) * item),
               attended = layout.add(rows * static_cast<size_t>(wideStride_) * item), gated = layout.add(rows * static_cast<size_t>(ffStride_) * item),
               logits = layout.add(branches * static_cast<size_t>(chunk_) * static_cast<size_t>(vocabularyStride_) * 4), gathered = layout.add(branches * static_cast<size_t>(chunk_) * static_cast<size_t>(xStride_) * item),
               guided = layout.add(o_.keepLogits.empty() ? 0 : static_cast<size_t>(chunk_) * static_cast<size_t>(m.vocabulary) * 4),
               cache = layout.add(static_cast<size_t>(m.layers) * 2 * cacheBytes_), partial = layout.add(attentionPartials(a) * 4), counters = layout.add(attentionCounters(a) * 4),
               classIds = layout.add(o_.classIds.size() * 4), seeds = layout.add(o_.seeds.size() * 8), known = layout.add(tokens * 4), logProbs = layout.add(tokens * 4),
               kept = layout.add(static_cast<size_t>(sequences()) * o_.keepLogits.size() * static_cast<size_t>(m.vocabulary) * 4), table = layout.add(kinds * predictions * sizeof(Prediction)),
               gather = layout.add(kinds * branches * predictions * 4);
  if (Status s = DeviceMemory::allocate(t.device_, layout.bytes(), "The KV cache and activations of " + std::to_string(sequences()) + " images", memory_); !s.ok()) return s;
  const size_t ringBytes = depth * static_cast<size_t>(o_.maxRows) * sizeof(Row);
  if (Status s = HostMemory::allocate(ringBytes + sizeof(int), host_); !s.ok()) return s;
  uint8_t* p = memory_.data();
  const auto floats = [&](size_t at) { return reinterpret_cast<float*>(p + at); };
  ring_ = reinterpret_cast<Row*>(host_.data());
  flag_ = reinterpret_cast<int*>(host_.data() + ringBytes);
  *flag_ = 0;
  rows_ = reinterpret_cast<Row*>(p + stepRows);
  counter_ = reinterpret_cast<uint32_t*>(p + counter);
  nonFinite_ = reinterpret_cast<int*>(p + nonFinite);
  x_ = floats(x), normed_ = p + normed, queries_ = p + queries, attended_ = p + attended, gated_ = p + gated, logits_ = floats(logits), gathered_ = p + gathered, guided_ = floats(guided);
  cache_ = p + cache, partial_ = floats(partial), counters_ = reinterpret_cast<uint32_t*>(p + counters), classIds_ = reinterpret_cast<int32_t*>(p + classIds);
  seeds_ = reinterpret_cast<uint64_t*>(p + seeds), tokens_ = reinterpret_cast<int32_t*>(p + known), logProbs_ = floats(logProbs), kept_ = floats(kept);
  predictions_ = reinterpret_cast<Prediction*>(p + table), gather_ = reinterpret_cast<int32_t*>(p + gather);
  known_ = Known(o_);

  // What is not known is -1, what is not scored NaN: all bits set.
  const cudaStream_t stream = t.device_->stream();
  cudaError_t e = cudaMemsetAsync(tokens_, 0xff, tokens * 4, stream);
  const auto then = [&](cudaError_t next) { e = e == cudaSuccess ? next : e; };
  then(cudaMemsetAsync(logProbs_, 0xff, tokens * 4, stream));
  then(cudaMemsetAsync(kept_, 0xff, static_cast<size_t>(sequences()) * o_.keepLogits.size() * static_cast<size_t>(m.vocabulary) * 4, stream));
  then(cudaMemcpyAsync(classIds_, o_.classIds.data(), o_.classIds.size() * 4, cudaMemcpyHostToDevice, stream));
  then(cudaMemcpyAsync(seeds_, o_.seeds.data(), o_.seeds.size() * 8, cudaMemcpyHostToDevice, stream));
  if (!o_.known.empty()) then(cudaMemcpyAsync(tokens_, o_.known.data(), tokens * 4, cudaMemcpyHostToDevice, stream));
  return statusOf(e, "preparing a session");
}

CudaSession::~CudaSession() {
  if (!memory_.data()) return;
  (void)transformer_->device_->use();
  (void)transformer_->device_->finish("ending a session");
  for (Kind& k : kinds_)
    if (k.graph) cudaGraphExecDestroy(k.graph);
}

// ---- kinds of steps -----------------------------------------------------------------------------------------

bool CudaSession::Kind::same(int rows, const std::vector<int>& which, const StepRule& r) const {
  return count == rows && predicting == which && rule.mode == r.mode && rule.guidanceScale == r.guidanceScale && rule.temperature == r.temperature && rule.topK == r.topK && rule.topP == r.topP;
}

Status CudaSession::kindOf(const Row* rows, int count, const StepRule& rule, Kind*& out) {
  std::vector<int> predicting;
  for (int i = 0; i < count; i++)
    if (rows[i].predicts >= 0) predicting.push_back(i);
  for (Kind& k : kinds_)
    if (k.same(count, predicting, rule)) {
      out = &k;
      return {};
    }
  size_t table = kinds_.size();
  if (kinds_.size() == kinds) {  // the oldest goes; what still runs of it has its tables before they are written over
    table = kinds_.front().table;
    if (kinds_.front().graph) cudaGraphExecDestroy(kinds_.front().graph);
    kinds_.pop_front();
  }
  Kind k;
  k.count = count;
  k.predicting = predicting;
  k.rule = rule;
  k.table = table;
  const size_t places = static_cast<size_t>(sequences()) * static_cast<size_t>(o_.maxRows), branches = o_.guided ? 2 : 1;
  std::vector<Prediction> predictions;
  for (int s = 0; s < sequences(); s++)
    for (const int row : predicting) predictions.push_back({s, row});
  // Chunk by chunk, the branches of one behind each other.
  std::vector<int32_t> gather;
  for (size_t first = 0; first < predictions.size(); first += static_cast<size_t>(chunk_))
    for (size_t b = 0; b < branches; b++)
      for (size_t i = first; i < std::min(predictions.size(), first + static_cast<size_t>(chunk_)); i++)
        gather.push_back((static_cast<int32_t>(b) * sequences() + predictions[i].sequence) * count + predictions[i].row);
  const cudaStream_t stream = transformer_->device_->stream();
  if (!predictions.empty()) {
    cudaError_t e = cudaMemcpyAsync(predictions_ + table * places, predictions.data(), predictions.size() * sizeof(Prediction), cudaMemcpyHostToDevice, stream);
    if (e == cudaSuccess) e = cudaMemcpyAsync(gather_ + table * places * branches, gather.data(), gather.size() * 4, cudaMemcpyHostToDevice, stream);
    if (e != cudaSuccess) return statusOf(e, "preparing a step");
  }
  kinds_.push_back(std::move(k));
  out = &kinds_.back();
  return {};
}

// ---- a step -------------------------------------------------------------------------------------------------

Status CudaSession::step(const Row* rows, int count, const StepRule& rule, const Cancel& cancel) {
  CudaTransformer& t = *transformer_;
  if (Status s = checkStep(t.model_, o_, known_, rows, count, rule); !s.ok()) return s;
  if (Status s = t.device_->use(); !s.ok()) return s;
  int positions = 0;
  for (int i = 0; i < count; i++) positions = std::max({positions, rows[i].row + 1, rows[i].column + 1});
  if (Status s = t.growAngles(positions); !s.ok()) return s;
  if (!failed_.ok()) return failed_;
  if (cancel.load(std::memory_order_relaxed)) return {Code::cancelled, "Cancelled."};
  Event& event = events_[steps_ % depth];
  if (Status s = event.wait("running a step"); !s.ok()) return failed_ = s;
  if (*static_cast<volatile int*>(flag_)) return notFinite();
  if (cancel.load(std::memory_order_relaxed)) return {Code::cancelled, "Cancelled."};
  std::memcpy(ring_ + static_cast<size_t>(steps_ % depth) * static_cast<size_t>(o_.maxRows), rows, static_cast<size_t>(count) * sizeof(Row));

  Kind* kind = nullptr;
  if (Status s = kindOf(rows, count, rule, kind); !s.ok()) return s;
  // Kept logits go where the rows say, which a graph does not know; scoring comes once.
  const bool repeats = o_.keepLogits.empty() && rule.mode == StepRule::Mode::sample && kind->uses++ > 0;
  if (repeats && !kind->graph)
    if (Status s = capture(*kind); !s.ok()) return s;
  const cudaError_t e = kind->graph ? cudaGraphLaunch(kind->graph, t.device_->stream()) : enqueue(*kind, rows);
  if (Status s = statusOf(e, "running a step"); !s.ok()) return failed_ = s;  // half of it may have run
  if (Status s = event.record(t.device_->stream()); !s.ok()) return failed_ = s;
  steps_++;
  if (rule.mode == StepRule::Mode::sample)
    for (const int row : kind->predicting) known_.predicted(rows[row].predicts);
  return {};
}

Status CudaSession::capture(Kind& kind) {
  const cudaStream_t stream = transformer_->device_->stream();
  if (Status s = statusOf(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a step"); !s.ok()) return s;
  cudaError_t e = enqueue(kind, nullptr);
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  if (e == cudaSuccess) e = ended;
  if (e == cudaSuccess) e = cudaGraphInstantiate(&kind.graph, graph, 0);
  if (graph) cudaGraphDestroy(graph);
  return statusOf(e, "capturing a step");
}

// Every launch of a step. `rows` (the host's) only where logits are kept.
cudaError_t CudaSession::enqueue(const Kind& kind, const Row* rows) {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const cudaStream_t stream = t.device_->stream();
  const RowTable table{rows_, kind.count, nullptr};
  const int all = streams() * kind.count;
  cudaError_t e = takeRows({ring_, depth, o_.maxRows, kind.count, counter_, rows_, nonFinite_, flag_}, stream);
  const auto then = [&](auto&& next) {
    if (e == cudaSuccess) e = next();
  };
  then([&] {
    return embed({table, sequences(), streams(), tokens_, o_.tokens, classIds_, m.classes, t.classes_, t.tokens_, t.transitions_, t.element_, m.dim, x_, xStride_, rowThreads}, stream);
  });
  for (int i = 0; i < m.layers; i++) {
    const Layer& l = t.layers_[static_cast<size_t>(i)];
    const Cache cache{cache_ + static_cast<size_t>(2 * i) * cacheBytes_, cache_ + static_cast<size_t>(2 * i + 1) * cacheBytes_, o_.slots};
    Projection p{};
    p.eps = m.normEps, p.xStride = xStride_, p.rows = all;
    p.x = x_, p.normWeight = l.attentionNorm, p.epilogue = Epilogue::append;
    p.rotation = {table, streams(), m.heads, m.kvHeads, m.headSize, t.cosine_, t.sine_, t.element_, queries_, cache};
    then([&] { return multiply(p, l.qkv); });
    const Attention a{table, streams(), m.heads, m.kvHeads, m.headSize, queries_, cache, attended_, wideStride_, partial_, counters_};
    then([&] { return attendCached(*t.device_, t.element_, a); });
    const auto residual = [&](const void* from, ptrdiff_t stride, const Matrix& w) {
      Projection r{};
      r.elements = from, r.xStride = stride, r.rows = all, r.epilogue = Epilogue::add, r.y = x_, r.yStride = xStride_;
      return multiply(r, w);
    };
    then([&] { return residual(attended_, wideStride_, l.wo); });
    p.normWeight = l.feedForwardNorm, p.epilogue = Epilogue::swiglu, p.out = gated_, p.yStride = ffStride_;
    then([&] { return multiply(p, l.gateUp); });
    then([&] { return residual(gated_, ffStride_, l.down); });
  }
  then([&] { return predict(kind, table, rows); });
  return e;
}

cudaError_t CudaSession::multiply(const Projection& p, const Matrix& w) { return cuda::multiply(*transformer_->device_, transformer_->element_, p, w, normed_); }

cudaError_t CudaSession::predict(const Kind& kind, RowTable table, const Row* rows) {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const cudaStream_t stream = t.device_->stream();
  const int all = sequences() * static_cast<int>(kind.predicting.size()), branches = o_.guided ? 2 : 1;
  const size_t places = static_cast<size_t>(sequences()) * static_cast<size_t>(o_.maxRows);
  const int32_t* gather = gather_ + kind.table * places * static_cast<size_t>(branches);
  for (int first = 0; first < all; first += chunk_) {
    const int some = std::min(chunk_, all - first);
    Projection p{};
    p.eps = m.normEps, p.xStride = xStride_, p.rows = branches * some, p.epilogue = Epilogue::store, p.y = logits_, p.yStride = vocabularyStride_;
    if (static_cast<int>(kind.predicting.size()) == kind.count && some == all && p.rows <= mostSkinnyRows) {  // all rows, in order
      p.x = x_;
      p.normWeight = t.norm_;
    } else {
      const cudaError_t e = norm({x_, xStride_, gather + branches * first, p.rows, m.dim, t.norm_, m.normEps, t.element_, gathered_, xStride_, rowThreads}, stream);
      if (e != cudaSuccess) return e;
      p.elements = gathered_;
    }
    cudaError_t e = multiply(p, t.output_);
    if (e != cudaSuccess) return e;
    Sampling d{};
    d.conditional = logits_;
    if (o_.guided && kind.rule.guidanceScale != 1.0f) d.unconditional = logits_ + some * vocabularyStride_;
    d.stride = vocabularyStride_, d.predictions = some, d.vocabulary = m.vocabulary;
    d.table = predictions_ + kind.table * places + first, d.rows = table, d.seeds = seeds_, d.tokensEach = o_.tokens, d.tokens = tokens_, d.logProbs = logProbs_;
    d.guided = o_.keepLogits.empty() ? nullptr : guided_;
    d.nonFinite = nonFinite_, d.guidanceScale = kind.rule.guidanceScale, d.temperature = kind.rule.temperature, d.topP = kind.rule.topP, d.topK = kind.rule.topK;
    d.threads = samplingThreads(m.vocabulary);
    e = kind.rule.mode == StepRule::Mode::score ? score(d, stream) : sample(d, stream);
    if (e != cudaSuccess) return e;
    for (int i = 0; i < some && !o_.keepLogits.empty(); i++) {
      const int each = static_cast<int>(kind.predicting.size()), sequence = (first + i) / each;
      for (size_t k = 0; k < o_.keepLogits.size(); k++) {
        if (o_.keepLogits[k] != rows[kind.predicting[static_cast<size_t>((first + i) % each)]].predicts) continue;
        const size_t vocabulary = static_cast<size_t>(m.vocabulary);
        e = cudaMemcpyAsync(kept_ + (static_cast<size_t>(sequence) * o_.keepLogits.size() + k) * vocabulary, guided_ + static_cast<size_t>(i) * vocabulary, vocabulary * 4, cudaMemcpyDeviceToDevice, stream);
        if (e != cudaSuccess) return e;
      }
    }
  }
  return cudaSuccess;
}

// ---- results ------------------------------------------------------------------------------------------------

Status CudaSession::read(void* to, const void* from, size_t bytes) {
  if (Status s = transformer_->device_->use(); !s.ok()) return s;
  const cudaStream_t stream = transformer_->device_->stream();
  int bad = 0;
  cudaError_t e = bytes > 0 ? cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream) : cudaSuccess;
  if (e == cudaSuccess) e = cudaMemcpyAsync(&bad, nonFinite_, sizeof bad, cudaMemcpyDeviceToHost, stream);
  if (Status s = statusOf(e, "reading results"); !s.ok()) return s;
  if (Status s = transformer_->device_->finish("running a step"); !s.ok()) return s;
  return bad ? notFinite() : Status{};
}

Status CudaSession::readTokens(int32_t* out) { return read(out, tokens_, static_cast<size_t>(sequences()) * static_cast<size_t>(o_.tokens) * 4); }

Status CudaSession::readLogProbs(float* out) { return read(out, logProbs_, static_cast<size_t>(sequences()) * static_cast<size_t>(o_.tokens) * 4); }

Status CudaSession::readLogits(float* out) {
  return read(out, kept_, static_cast<size_t>(sequences()) * o_.keepLogits.size() * static_cast<size_t>(transformer_->model_.vocabulary) * 4);
}

}  // namespace parvis::cuda
