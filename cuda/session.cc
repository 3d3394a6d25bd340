#include "session.h"

#include <algorithm>
#include <cstring>

namespace parvis::cuda {

Status CudaSession::allocate() {
  w_ = transformer_->takeKept(o_);
  if (!w_) {
    auto fresh = std::make_unique<Workspace>(transformer_->device_, o_);
    if (Status s = fresh->allocate(transformer_->model_, transformer_->element_); !s.ok()) return s;
    w_ = std::move(fresh);
  }
  seats_ = Seats(transformer_->model_, o_);
  enteredAt_.resize(static_cast<size_t>(o_.seats));
  return w_->reset();
}

// A session that failed leaves nothing. What others leave in their caches is seen by no row before it is written over.
CudaSession::~CudaSession() {
  if (!w_ || !failed_.ok() || !transformer_->device_->use().ok() ||
      !transformer_->device_->finish("ending a session").ok())
    return;
  transformer_->keep(std::move(w_));
}

// ---- seats --------------------------------------------------------------------------------------------------

Status CudaSession::enter(int seat, const Sequence& sequence) {
  if (Status s = transformer_->device_->use(); !s.ok()) return s;
  if (Status s = seats_.enter(seat, sequence); !s.ok()) return s;
  const size_t at = static_cast<size_t>(seat), tokens = static_cast<size_t>(o_.tokens),
               logits = static_cast<size_t>(o_.kept) * static_cast<size_t>(transformer_->model_.vocabulary);
  if (Status s = w_->entered[at].wait("preparing a session"); !s.ok()) return s;
  SeatEntry& entry = w_->entries[at];
  int32_t* const known = w_->known + at * tokens;
  entry = {sequence.seed, sequence.classId};
  std::fill_n(known, tokens, -1);
  std::copy(sequence.known.begin(), sequence.known.end(), known);
  const cudaStream_t stream = transformer_->device_->stream();
  cudaError_t e =
      cudaMemcpyAsync(w_->classIds + at, &entry.classId, sizeof entry.classId, cudaMemcpyHostToDevice, stream);
  const auto then = [&](cudaError_t next) { e = e == cudaSuccess ? next : e; };
  then(cudaMemcpyAsync(w_->seeds + at, &entry.seed, sizeof entry.seed, cudaMemcpyHostToDevice, stream));
  then(cudaMemcpyAsync(w_->tokens + at * tokens, known, tokens * 4, cudaMemcpyHostToDevice, stream));
  // NaN where nothing was scored or kept: all bits set.
  then(cudaMemsetAsync(w_->logProbs + at * tokens, 0xff, tokens * 4, stream));
  if (logits > 0) then(cudaMemsetAsync(w_->kept + at * logits, 0xff, logits * 4, stream));
  then(cudaMemsetAsync(w_->nonFinite + at, 0, sizeof(int), stream));
  enteredAt_[at] = steps_;
  if (Status s = statusOf(e, "preparing a session"); !s.ok()) return failed_ = s;
  return w_->entered[at].record(stream);
}

Status CudaSession::leave(int seat) { return seats_.leave(seat); }

// Flags that a step wrote after the sequence had entered: at least `depth` steps ago, and surely done.
void CudaSession::collectFailures() {
  for (int seat = 0; seat < o_.seats; seat++) {
    const bool current = steps_ >= enteredAt_[static_cast<size_t>(seat)] + static_cast<uint32_t>(Workspace::depth);
    if (current && w_->flags[seat] && seats_.taken(seat).ok()) seats_.fail(seat);
  }
}

// ---- a step -------------------------------------------------------------------------------------------------

Status CudaSession::step(const Step& step, const Cancel& cancel, std::vector<int32_t>& failed) {
  CudaTransformer& t = *transformer_;
  if (Status s = seats_.check(step); !s.ok()) return s;
  if (Status s = t.device_->use(); !s.ok()) return s;
  int positions = 0;
  for (int i = 0; i < step.rowCount; i++)
    for (const int32_t c : step.rows[i].cell) positions = std::max(positions, c + 1);
  if (Status s = t.growAngles(positions); !s.ok()) return s;
  if (!failed_.ok()) return failed_;
  if (cancel.load(std::memory_order_relaxed)) return cancelled();
  Event& event = w_->events[steps_ % Workspace::depth];
  if (Status s = event.wait("running a step"); !s.ok()) return failed_ = s;
  collectFailures();
  if (cancel.load(std::memory_order_relaxed)) return cancelled();

  const StepPlan plan = w_->write(step, t.model_, seats_, steps_);
  if (recording()) {
    if (Status s = profiled(plan, step); !s.ok()) return failed_ = s;
  } else {
    Workspace::Captured* captured = nullptr;
    if (Status s = w_->find(plan, captured); !s.ok()) return s;
    if (captured->uses++ > 0 && !captured->graph)
      if (Status s = capture(*captured); !s.ok()) return s;
    Launcher launch(*t.device_, t.element_);
    const cudaError_t e =
        captured->graph ? cudaGraphLaunch(captured->graph, t.device_->stream()) : enqueue(launch, plan, {});
    if (Status s = statusOf(e, "running a step"); !s.ok()) return failed_ = s;  // half of it may have run
  }
  if (Status s = event.record(t.device_->stream()); !s.ok()) return failed_ = s;
  steps_++;
  seats_.ran(step);
  failed = seats_.failed();
  return {};
}

// Launch by launch, without a graph, and to its end.
Status CudaSession::profiled(const StepPlan& plan, const Step& step) {
  const CudaTransformer& t = *transformer_;
  Launcher launch(*t.device_, t.element_, recording());
  if (Status s = statusOf(enqueue(launch, plan, seenSlots(step)), "running a step"); !s.ok()) return s;
  if (Status s = t.device_->finish("running a step"); !s.ok()) return s;
  return launch.collect();
}

Status CudaSession::capture(Workspace::Captured& captured) {
  const cudaStream_t stream = transformer_->device_->stream();
  if (Status s = statusOf(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing a step");
      !s.ok())
    return s;
  Launcher launch(*transformer_->device_, transformer_->element_);
  cudaError_t e = enqueue(launch, captured.plan, {});
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  if (e == cudaSuccess) e = ended;
  if (e == cudaSuccess) e = cudaGraphInstantiate(&captured.graph, graph, 0);
  if (graph) cudaGraphDestroy(graph);
  return statusOf(e, "capturing a step");
}

cudaError_t CudaSession::enqueue(Launcher& launch, const StepPlan& plan, const SeenSlots& seen) {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const RowTable rows{w_->rows, plan.rows};
  const Residual x{w_->x, w_->layout.xStride, m.dim};
  const auto normOf = [&](const NormWeights& n) { return RowNorm{m.norm, n.weight, n.bias, m.normEps}; };
  const auto added = [&](const NormWeights& next) {  // a projection that adds to x, which the norm follows
    Projection p{};
    p.rows = plan.rows, p.epilogue = Epilogue::add, p.y = w_->x, p.yStride = w_->layout.xStride,
    p.next = w_->normed.normInput(next.weight);
    return p;
  };
  const float* const firstNorm = m.layers > 0 ? t.layers_[0].attentionNorm.weight : t.finalNorm_.weight;
  launch.take(w_->taking(plan));
  launch.embed({rows, o_.streamsEach, w_->tokens, o_.tokens, w_->classIds, m.classes, t.classes_, t.tokens_,
                t.transitions_, t.positions_, t.element_, m.dim, w_->x, w_->layout.xStride,
                m.embeddingNorm ? NormInput{} : w_->normed.normInput(firstNorm), rowThreads});
  if (m.embeddingNorm)
    launch.normInPlace(x, plan.rows, {NormKind::layer, t.embeddingNorm_.weight, t.embeddingNorm_.bias, m.normEps},
                       firstNorm, w_->normed);
  for (int i = 0; i < m.layers; i++) {
    const Layer& l = t.layers_[static_cast<size_t>(i)];
    uint8_t* const keys = w_->cache + static_cast<size_t>(2 * i) * w_->layout.cacheBytes;
    const Cache cache{keys, keys + w_->layout.cacheBytes, o_.slots};
    Projection qkv{}, up{};
    qkv.rows = up.rows = plan.rows;
    qkv.epilogue = Epilogue::append;
    qkv.rotation = {
        rows,      m.heads, m.kvHeads,  m.headSize,  {m.rotationPairs[0], m.rotationPairs[1], m.rotationPairs[2]},
        t.cosine_, t.sine_, t.element_, w_->queries, cache};
    up.epilogue = m.activation == Activation::swiglu ? Epilogue::swiglu : Epilogue::gelu, up.out = w_->gated,
    up.yStride = w_->layout.ffStride;

    launch.norm(x, nullptr, plan.rows, normOf(l.attentionNorm), w_->normed);
    launch.project(w_->normed, m.normEps, qkv, l.qkv);
    launch.attend({rows, w_->groups, plan.groups, 0, 0, m.heads, m.kvHeads, m.headSize, w_->queries, cache,
                   w_->attended, w_->layout.wideStride, w_->partial, w_->counters},
                  plan.maxSmall, plan.maxLarge, m, seen);
    launch.project(w_->attended, w_->layout.wideStride, added(l.feedForwardNorm), l.attentionOutput);
    launch.norm(x, nullptr, plan.rows, normOf(l.feedForwardNorm), w_->normed);
    launch.project(w_->normed, m.normEps, up, l.up);
    launch.project(w_->gated, w_->layout.ffStride,
                   added(i + 1 < m.layers ? t.layers_[static_cast<size_t>(i) + 1].attentionNorm : t.finalNorm_),
                   l.down);
  }
  predict(launch, plan);
  return launch.status;
}

void CudaSession::predict(Launcher& launch, const StepPlan& plan) {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  if (plan.predictions == 0) return;
  const Residual x{w_->x, w_->layout.xStride, m.dim};
  const bool every = plan.logitRows == 0;
  const int all = every ? plan.rows : plan.logitRows;
  for (int first = 0; first < all; first += w_->layout.chunk) {
    const NormedRows& normed = every ? w_->normed : w_->gathered;
    Projection p{};
    p.rows = std::min(w_->layout.chunk, all - first), p.epilogue = Epilogue::store, p.y = w_->logits,
    p.yStride = w_->layout.vocabularyStride;
    launch.norm(x, every ? nullptr : w_->gather + first, p.rows,
                {m.norm, t.finalNorm_.weight, t.finalNorm_.bias, m.normEps}, normed);
    launch.project(normed, m.normEps, p, t.head_);
    const Sampling s{w_->logits,
                     first,
                     p.rows,
                     w_->layout.vocabularyStride,
                     plan.predictions,
                     m.vocabulary,
                     w_->drawings,
                     w_->seeds,
                     o_.tokens,
                     w_->tokens,
                     w_->logProbs,
                     w_->kept,
                     o_.kept,
                     w_->nonFinite,
                     samplingThreads(m.vocabulary)};
    if (plan.sampled) launch.predict(s, Mode::sample);
    if (plan.scored) launch.predict(s, Mode::score);
  }
}

// ---- results ------------------------------------------------------------------------------------------------

Status CudaSession::read(int seat, void* to, const void* from, size_t bytes) {
  if (Status s = seats_.taken(seat); !s.ok()) return s;
  if (Status s = transformer_->device_->use(); !s.ok()) return s;
  const cudaStream_t stream = transformer_->device_->stream();
  int bad = 0;
  const size_t at = static_cast<size_t>(seat) * bytes;
  cudaError_t e =
      bytes > 0 ? cudaMemcpyAsync(to, static_cast<const uint8_t*>(from) + at, bytes, cudaMemcpyDeviceToHost, stream)
                : cudaSuccess;
  if (e == cudaSuccess) e = cudaMemcpyAsync(&bad, w_->nonFinite + seat, sizeof bad, cudaMemcpyDeviceToHost, stream);
  const Status finished = transformer_->device_->finish("running a step");  // in any case: a copy may be under way
  if (Status s = statusOf(e, "reading results"); !s.ok()) return s;
  if (!finished.ok()) return finished;
  if (bad) seats_.fail(seat);
  return bad ? notFinite() : Status{};
}

Status CudaSession::readTokens(int seat, int32_t* out) {
  return read(seat, out, w_->tokens, static_cast<size_t>(o_.tokens) * 4);
}

Status CudaSession::readLogProbs(int seat, float* out) {
  return read(seat, out, w_->logProbs, static_cast<size_t>(o_.tokens) * 4);
}

Status CudaSession::readLogits(int seat, float* out) {
  return read(seat, out, w_->kept,
              static_cast<size_t>(o_.kept) * static_cast<size_t>(transformer_->model_.vocabulary) * 4);
}

}  // namespace parvis::cuda
