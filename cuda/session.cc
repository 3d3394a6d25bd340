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
  const TransformerModel& m = transformer_->model_;
  passes_ = Passes(m, o_, maxSplitQueries / (m.heads / m.kvHeads));  // attendRows sums up in another order
  enteredAt_.resize(static_cast<size_t>(o_.seats));
  tokensAreRead_.resize(static_cast<size_t>(o_.seats));
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
  tokensAreRead_[at] = true;
  if (Status s = statusOf(e, "preparing a session"); !s.ok()) return failed_ = s;
  return w_->entered[at].record(stream);
}

Status CudaSession::leave(int seat) {
  Status s = seats_.leave(seat);
  if (s.ok()) passes_.clear(seat);
  return s;
}

Status CudaSession::plan(int seat, SequencePlan plan) {
  if (Status s = seats_.taken(seat); !s.ok()) return s;
  return passes_.plan(seat, std::move(plan));
}

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

  const StepPlan plan = w_->write(step, t.model_, t.head_.format, seats_, steps_);
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
  for (int i = 0; i < step.rowCount; i++)
    tokensAreRead_[static_cast<size_t>(seats_.seatOf(step.rows[i].stream))] = false;
  failed = seats_.failed();
  return {};
}

// What a pass with guesses has drawn decides which steps the next one runs: it is waited for. A pass without guesses is
// enqueued, as a step is.
Status CudaSession::pass(const std::vector<PassPart>& parts, const Cancel& cancel, PassResult& result) {
  const bool mayGuess = std::any_of(parts.begin(), parts.end(), [](const PassPart& p) { return p.steps > 1; });
  if (mayGuess) {
    // A sequence that was not in the passes before this one may have drawn tokens that the host has not seen.
    std::vector<PassPart> unread;
    for (const PassPart& p : parts) {
      if (Status s = seats_.taken(p.seat); !s.ok()) return s;
      if (!tokensAreRead_[static_cast<size_t>(p.seat)]) unread.push_back(p);
    }
    if (!unread.empty())
      if (Status s = copyTokens(unread, Direction::toHost); !s.ok()) return s;
  }
  Step composed{};
  if (Status s = passes_.compose(parts, seats_, w_->known, composed); !s.ok()) return s;
  std::vector<int32_t> failed;
  if (composed.rowCount > 0) {
    if (passes_.guesses())
      if (Status s = copyTokens(parts, Direction::toDevice); !s.ok()) return s;
    if (Status s = step(composed, cancel, failed); !s.ok()) return s;
    if (passes_.guesses())
      if (Status s = copyTokens(parts, Direction::toHost); !s.ok()) return s;
    passes_.ran(w_->known);
  }
  result.rows = composed.rowCount;
  for (const PassPart& p : parts) result.done.push_back(seats_.failed(p.seat) ? -1 : passes_.done(p.seat));
  return {};
}

// Tokens of the parts, between the device and the host's copy of them.
Status CudaSession::copyTokens(const std::vector<PassPart>& parts, Direction direction) {
  if (Status s = transformer_->device_->use(); !s.ok()) return s;
  const cudaStream_t stream = transformer_->device_->stream();
  const size_t tokens = static_cast<size_t>(o_.tokens);
  cudaError_t e = cudaSuccess;
  for (const PassPart& p : parts) {
    if (Status s = seats_.taken(p.seat); !s.ok()) return s;
    int32_t* const host = w_->known + static_cast<size_t>(p.seat) * tokens;
    int32_t* const device = w_->tokens + static_cast<size_t>(p.seat) * tokens;
    if (e == cudaSuccess)
      e = direction == Direction::toHost ? cudaMemcpyAsync(host, device, tokens * 4, cudaMemcpyDeviceToHost, stream)
                                         : cudaMemcpyAsync(device, host, tokens * 4, cudaMemcpyHostToDevice, stream);
  }
  if (direction == Direction::toDevice) return statusOf(e, "running a pass");
  const Status finished = transformer_->device_->finish("running a pass");  // in any case: a copy may be under way
  if (Status s = statusOf(e, "running a pass"); !s.ok()) return s;
  if (finished.ok())
    for (const PassPart& p : parts) tokensAreRead_[static_cast<size_t>(p.seat)] = true;
  return finished;
}

// Launch by launch, without a graph, and to its end.
Status CudaSession::profiled(const StepPlan& plan, const Step& step) {
  const CudaTransformer& t = *transformer_;
  Launcher launch(*t.device_, t.element_, recording());
  const int inLayers = layerRows(t.model_, step);
  const SeenInStep seen{seenSlots({step.rows, inLayers, nullptr, 0, nullptr, 0}),
                        seenSlots({step.rows + inLayers, step.rowCount - inLayers, nullptr, 0, nullptr, 0})};
  if (Status s = statusOf(enqueue(launch, plan, seen), "running a step"); !s.ok()) return s;
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

// Rows that run through layers [first, end) of the transformer, and where they lie.
struct CudaSession::Stack {
  int first, end;
  const NormWeights& next;  // the norm behind the last layer
  StepPlan::Part plan;
  RowTable rows;
  const StreamRows* groups;
  Residual x;
  NormedRows normed;
  const SeenSlots& seen;
};

cudaError_t CudaSession::enqueue(Launcher& launch, const StepPlan& plan, const SeenInStep& seen) {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const bool crosses = m.crossLayers > 0;
  const auto stack = [&](int first, int count, const NormWeights& next, const StepPlan::Part& part, int firstRow,
                         int firstGroup, const SeenSlots& seen) {
    const ptrdiff_t at = firstRow;
    NormedRows normed = w_->normed;
    normed.elements =
        static_cast<uint8_t*>(normed.elements) + at * normed.stride * static_cast<ptrdiff_t>(sizeOf(t.element_));
    if (normed.squares) normed.squares += at * squaresStride(m.dim);
    return Stack{first,
                 first + count,
                 next,
                 part,
                 {w_->rows + at, part.rows},
                 w_->groups + firstGroup,
                 {w_->x + at * w_->layout.xStride, w_->layout.xStride, m.dim},
                 normed,
                 seen};
  };
  const Stack layers = stack(0, m.layers, crosses ? t.sharedNorm_ : t.finalNorm_, plan.layers, 0, 0, seen.layers);
  const Stack crossLayers = stack(m.layers, m.crossLayers, t.finalNorm_, plan.crossLayers, plan.layers.rows,
                                  plan.layers.groups, seen.crossLayers);
  launch.take(w_->taking(plan));
  for (const Stack* s : {&layers, &crossLayers})
    if (s->plan.rows > 0) begin(launch, *s);
  if (layers.plan.rows > 0) run(launch, layers);
  if (crosses && layers.plan.rows > 0) share(launch, layers);
  if (crossLayers.plan.rows > 0) run(launch, crossLayers);
  predict(launch, plan, crosses ? crossLayers : layers);
  return launch.status;
}

// What the rows read.
void CudaSession::begin(Launcher& launch, const Stack& s) {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const float* const norm =
      s.first < s.end ? t.layers_[static_cast<size_t>(s.first)].attentionNorm.weight : s.next.weight;
  launch.embed({s.rows,
                o_.streamsEach,
                w_->tokens,
                o_.tokens,
                w_->classIds,
                m.classes,
                t.classes_,
                t.tokens_,
                t.specials_,
                t.positions_,
                t.element_,
                m.dim,
                m.rotateSpecials ? m.headSize : 0,
                {m.rotationPairs[0], m.rotationPairs[1], m.rotationPairs[2]},
                t.cosine_,
                t.sine_,
                s.x.x,
                s.x.stride,
                m.embeddingNorm ? NormInput{} : s.normed.normInput(norm),
                rowThreads});
  if (m.embeddingNorm)
    launch.normInPlace(s.x, s.plan.rows, {NormKind::layer, t.embeddingNorm_.weight, t.embeddingNorm_.bias, m.normEps},
                       norm, s.normed);
}

Cache CudaSession::cacheOf(int index) const {
  uint8_t* const keys = w_->cache + static_cast<size_t>(2 * index) * w_->layout.cacheBytes;
  return {keys, keys + w_->layout.cacheBytes, o_.slots};
}

Rotation CudaSession::rotation(const RowTable& rows, int heads, int kvHeads, const Cache& cache) const {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  return {rows,      heads,   kvHeads,    m.headSize,  {m.rotationPairs[0], m.rotationPairs[1], m.rotationPairs[2]},
          t.cosine_, t.sine_, t.element_, w_->queries, cache};
}

void CudaSession::run(Launcher& launch, const Stack& s) {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const auto normOf = [&](const NormWeights& n) { return RowNorm{m.norm, n.weight, n.bias, m.normEps}; };
  const auto added = [&](const NormWeights& next) {  // a projection that adds to x, which the norm follows
    Projection p{};
    p.rows = s.plan.rows, p.epilogue = Epilogue::add, p.y = s.x.x, p.yStride = s.x.stride,
    p.next = s.normed.normInput(next.weight);
    return p;
  };
  for (int i = s.first; i < s.end; i++) {
    const Layer& l = t.layers_[static_cast<size_t>(i)];
    const Cache cache = cacheOf(std::min(i, m.layers));
    Projection qkv{}, up{};
    qkv.rows = up.rows = s.plan.rows;
    qkv.epilogue = Epilogue::append;
    qkv.rotation = rotation(s.rows, m.heads, i < m.layers ? m.kvHeads : 0, cache);
    up.epilogue = m.activation == Activation::swiglu ? Epilogue::swiglu : Epilogue::gelu, up.out = w_->gated,
    up.yStride = w_->layout.ffStride;

    launch.norm(s.x, nullptr, s.plan.rows, normOf(l.attentionNorm), s.normed);
    launch.project(s.normed, m.normEps, qkv, l.qkv);
    launch.attend({s.rows, s.groups, s.plan.groups, 0, 0, m.heads, m.kvHeads, m.headSize, w_->queries, cache,
                   w_->attended, w_->layout.wideStride, w_->partial, w_->counters},
                  s.plan.maxSmall, s.plan.maxLarge, m, s.seen);
    launch.project(w_->attended, w_->layout.wideStride, added(l.feedForwardNorm), l.attentionOutput);
    launch.norm(s.x, nullptr, s.plan.rows, normOf(l.feedForwardNorm), s.normed);
    launch.project(s.normed, m.normEps, up, l.up);
    launch.project(w_->gated, w_->layout.ffStride,
                   added(i + 1 < s.end ? t.layers_[static_cast<size_t>(i) + 1].attentionNorm : s.next), l.down);
  }
}

// What the layers leave of their rows becomes keys and values for the cross layers.
void CudaSession::share(Launcher& launch, const Stack& s) {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  Projection p{};
  p.rows = s.plan.rows, p.epilogue = Epilogue::append, p.rotation = rotation(s.rows, 0, m.kvHeads, cacheOf(m.layers));
  launch.norm(s.x, nullptr, s.plan.rows, {m.norm, t.sharedNorm_.weight, t.sharedNorm_.bias, m.normEps}, s.normed);
  launch.project(s.normed, m.normEps, p, t.sharedKeysValues_);
}

void CudaSession::predict(Launcher& launch, const StepPlan& plan, const Stack& stack) {
  const CudaTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  if (plan.predictions == 0) return;
  const bool every = plan.logitRows == 0;
  const int all = every ? stack.plan.rows : plan.logitRows;
  for (int first = 0; first < all; first += w_->layout.chunk) {
    const NormedRows& normed = every ? stack.normed : w_->gathered;
    Projection p{};
    p.rows = std::min(w_->layout.chunk, all - first), p.epilogue = Epilogue::store, p.y = w_->logits,
    p.yStride = w_->layout.vocabularyStride;
    launch.norm(stack.x, every ? nullptr : w_->gather + first, p.rows,
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
                     samplingThreads(m.vocabulary),
                     m.vocabulary > sharedLogits(t.device_->sharedLimit())};
    if (plan.sampled) launch.predict(s, Mode::sample);
    if (plan.raced) launch.predict(s, Mode::gumbel);
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
  Status s = read(seat, out, w_->tokens, static_cast<size_t>(o_.tokens) * 4);
  if (s.ok()) passes_.hide(seat, out);
  return s;
}

Status CudaSession::readLogProbs(int seat, float* out) {
  return read(seat, out, w_->logProbs, static_cast<size_t>(o_.tokens) * 4);
}

Status CudaSession::readLogits(int seat, float* out) {
  return read(seat, out, w_->kept,
              static_cast<size_t>(o_.kept) * static_cast<size_t>(transformer_->model_.vocabulary) * 4);
}

}  // namespace parvis::cuda
