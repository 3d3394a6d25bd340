#include "session.h"

#include <algorithm>
#include <cstring>

#include "rows.h"

namespace parvis::cuda {

Status CudaSession::allocate() {
  const Shape shape{sequences(), o_.guided, o_.slots, o_.tokens, o_.maxRows, o_.keepLogits.size()};
  known_ = Known(o_);
  w_ = transformer_->takeKept(shape);
  if (!w_) {
    auto fresh = std::make_unique<Workspace>(transformer_->device_, shape);
    if (Status s = fresh->allocate(transformer_->model_, transformer_->element_); !s.ok()) return s;
    w_ = std::move(fresh);
  }
  return w_->reset(transformer_->model_, o_);
}

// A session that failed, or whose last step nobody asked about, leaves nothing: what is in its cache may not be finite.
CudaSession::~CudaSession() {
  if (!w_ || !sound_ || !failed_.ok() || !transformer_->device_->use().ok() || !transformer_->device_->finish("ending a session").ok()) return;
  transformer_->keep(std::move(w_));
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
  sound_ = false;
  Event& event = w_->events[steps_ % Workspace::depth];
  if (Status s = event.wait("running a step"); !s.ok()) return failed_ = s;
  if (*static_cast<volatile int*>(w_->flag)) return notFinite();
  if (cancel.load(std::memory_order_relaxed)) return {Code::cancelled, "Cancelled."};
  std::memcpy(w_->ring + static_cast<size_t>(steps_ % Workspace::depth) * static_cast<size_t>(o_.maxRows), rows, static_cast<size_t>(count) * sizeof(Row));

  Kind* kind = nullptr;
  if (Status s = w_->kindOf(rows, count, rule, kind); !s.ok()) return s;
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
  const StepStream stream = t.device_->steps();
  const RowTable table{w_->rows, kind.count, nullptr};
  const int all = streams() * kind.count;
  cudaError_t e = takeRows({w_->ring, Workspace::depth, o_.maxRows, kind.count, w_->counter, w_->rows, w_->nonFinite, w_->flag}, stream);
  const auto then = [&](auto&& next) {
    if (e == cudaSuccess) e = next();
  };
  then([&] {
    return embed({table, sequences(), streams(), w_->tokens, o_.tokens, w_->classIds, m.classes, t.classes_, t.tokens_, t.transitions_, t.element_, m.dim, w_->x, w_->xStride,
                  w_->behind.weighted(m.layers > 0 ? t.layers_[0].attentionNorm : t.norm_), rowThreads}, stream);
  });
  for (int i = 0; i < m.layers; i++) {
    const Layer& l = t.layers_[static_cast<size_t>(i)];
    const Cache cache{w_->cache + static_cast<size_t>(2 * i) * w_->cacheBytes, w_->cache + static_cast<size_t>(2 * i + 1) * w_->cacheBytes, o_.slots};
    const float* const following = i + 1 < m.layers ? t.layers_[static_cast<size_t>(i) + 1].attentionNorm : t.norm_;
    // Behind a norm of x, and what is added to x before the next one.
    const auto normed = [&](Projection p, const float* weight, const Matrix& w) {
      p.rows = all;
      w_->behind.give(p, m.normEps);
      if (!w_->behind.squares) then([&] { return norm(*t.device_, {w_->x, w_->xStride, nullptr, all, m.dim, weight, m.normEps}, w_->behind); });
      then([&] { return multiply(*t.device_, t.element_, p, w); });
    };
    const auto residual = [&](const void* from, ptrdiff_t stride, const Matrix& w, const float* next) {
      Projection p{};
      p.elements = from, p.xStride = stride, p.rows = all, p.epilogue = Epilogue::add, p.y = w_->x, p.yStride = w_->xStride, p.next = w_->behind.weighted(next);
      then([&] { return multiply(*t.device_, t.element_, p, w); });
    };
    Projection qkv{}, gateUp{};
    qkv.epilogue = Epilogue::append;
    qkv.rotation = {table, streams(), m.heads, m.kvHeads, m.headSize, t.cosine_, t.sine_, t.element_, w_->queries, cache};
    normed(qkv, l.attentionNorm, l.qkv);
    const Attention a{table, streams(), m.heads, m.kvHeads, m.headSize, w_->queries, cache, w_->attended, w_->wideStride, w_->partial, w_->counters};
    then([&] { return attendCached(*t.device_, t.element_, a); });
    residual(w_->attended, w_->wideStride, l.wo, l.feedForwardNorm);
    gateUp.epilogue = Epilogue::swiglu, gateUp.out = w_->gated, gateUp.yStride = w_->ffStride;
    normed(gateUp, l.feedForwardNorm, l.gateUp);
    residual(w_->gated, w_->ffStride, l.down, following);
  }
  then([&] { return predict(kind, table, rows); });
  return e;
}

cudaError_t CudaSession::predict(const Kind& kind, RowTable table, const Row* rows) {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const StepStream stream = t.device_->steps();
  const int all = sequences() * static_cast<int>(kind.predicting.size()), branches = o_.guided ? 2 : 1;
  const size_t places = static_cast<size_t>(sequences()) * static_cast<size_t>(o_.maxRows);
  const int32_t* gather = w_->gather + kind.table * places * static_cast<size_t>(branches);
  for (int first = 0; first < all; first += w_->chunk) {
    const int some = std::min(w_->chunk, all - first);
    Projection p{};
    p.rows = branches * some, p.epilogue = Epilogue::store, p.y = w_->logits, p.yStride = w_->vocabularyStride;
    const bool every = static_cast<int>(kind.predicting.size()) == kind.count && some == all;  // row of the step predicts, in order
    const Behind& behind = every ? w_->behind : w_->gathered;
    behind.give(p, m.normEps);
    cudaError_t e = cudaSuccess;
    if (!every || !behind.squares) e = norm(*t.device_, {w_->x, w_->xStride, every ? nullptr : gather + branches * first, p.rows, m.dim, t.norm_, m.normEps}, behind);
    if (e == cudaSuccess) e = multiply(*t.device_, t.element_, p, t.output_);
    if (e != cudaSuccess) return e;
    Sampling d{};
    d.conditional = w_->logits;
    if (o_.guided && kind.rule.guidanceScale != 1.0f) d.unconditional = w_->logits + some * w_->vocabularyStride;
    d.stride = w_->vocabularyStride, d.predictions = some, d.vocabulary = m.vocabulary;
    d.table = w_->predictions + kind.table * places + first, d.rows = table, d.seeds = w_->seeds, d.tokensEach = o_.tokens, d.tokens = w_->tokens, d.logProbs = w_->logProbs;
    d.guided = o_.keepLogits.empty() ? nullptr : w_->guided;
    d.nonFinite = w_->nonFinite, d.guidanceScale = kind.rule.guidanceScale, d.temperature = kind.rule.temperature, d.topP = kind.rule.topP, d.topK = kind.rule.topK;
    d.threads = samplingThreads(m.vocabulary);
    e = kind.rule.mode == StepRule::Mode::score ? score(d, stream) : sample(d, stream);
    if (e != cudaSuccess) return e;
    for (int i = 0; i < some && !o_.keepLogits.empty(); i++) {
      const int each = static_cast<int>(kind.predicting.size()), sequence = (first + i) / each;
      for (size_t k = 0; k < o_.keepLogits.size(); k++) {
        if (o_.keepLogits[k] != rows[kind.predicting[static_cast<size_t>((first + i) % each)]].predicts) continue;
        const size_t vocabulary = static_cast<size_t>(m.vocabulary);
        e = cudaMemcpyAsync(w_->kept + (static_cast<size_t>(sequence) * o_.keepLogits.size() + k) * vocabulary, w_->guided + static_cast<size_t>(i) * vocabulary, vocabulary * 4, cudaMemcpyDeviceToDevice, stream.stream);
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
  if (e == cudaSuccess) e = cudaMemcpyAsync(&bad, w_->nonFinite, sizeof bad, cudaMemcpyDeviceToHost, stream);
  const Status finished = transformer_->device_->finish("running a step");  // in any case: a copy may be under way
  if (Status s = statusOf(e, "reading results"); !s.ok()) return s;
  if (!finished.ok()) return finished;
  sound_ = !bad;
  return bad ? notFinite() : Status{};
}

Status CudaSession::readTokens(int32_t* out) { return read(out, w_->tokens, static_cast<size_t>(sequences()) * static_cast<size_t>(o_.tokens) * 4); }

Status CudaSession::readLogProbs(float* out) { return read(out, w_->logProbs, static_cast<size_t>(sequences()) * static_cast<size_t>(o_.tokens) * 4); }

Status CudaSession::readLogits(float* out) {
  return read(out, w_->kept, static_cast<size_t>(sequences()) * o_.keepLogits.size() * static_cast<size_t>(transformer_->model_.vocabulary) * 4);
}

}  // namespace parvis::cuda
