#include "session.h"

#include <algorithm>
#include <cstring>
#include <iterator>

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
  passes_ = Passes(m, o_, maxGuessingRows(m));
  ahead_ = Ahead(o_, m.heads / m.kvHeads, m.crossLayers > 0);
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

Status CudaSession::leave(int seat) {
  Status s = seats_.leave(seat);
  if (!s.ok()) return s;
  passes_.clear(seat);
  ahead_.end(seat);
  return {};
}

Status CudaSession::plan(int seat, SequencePlan plan) {
  if (Status s = seats_.taken(seat); !s.ok()) return s;
  if (ahead_.has(seat))
    return {Code::invalidOption, "Seat " + std::to_string(seat) + " runs a plan: it gets no other one."};
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
  if (Status s = seats_.check(step); !s.ok()) return s;
  for (int i = 0; i < step.rowCount; i++)
    if (const int seat = seats_.seatOf(step.rows[i].stream); ahead_.has(seat))
      return {Code::invalidOption, "Seat " + std::to_string(seat) + " runs in passes: it takes no other steps."};
  if (Status s = transformer_->device_->use(); !s.ok()) return s;
  int positions = 0;
  for (int i = 0; i < step.rowCount; i++)
    for (const int32_t c : step.rows[i].cell) positions = std::max(positions, c + 1);
  if (Status s = transformer_->growAngles(positions); !s.ok()) return s;
  if (Status s = ready(cancel); !s.ok()) return s;
  const StepPlan plan = w_->write(step, transformer_->model_, transformer_->head_.format, seats_, steps_);
  if (Status s = launch(plan, recording() ? seenIn(step) : SeenInStep{}); !s.ok()) return s;
  seats_.ran(step);
  failed = seats_.failed();
  return {};
}

// Its part of the ring is free.
Status CudaSession::ready(const Cancel& cancel) {
  if (!failed_.ok()) return failed_;
  if (cancel.load(std::memory_order_relaxed)) return cancelled();
  if (Status s = w_->events[steps_ % Workspace::depth].wait("running a step"); !s.ok()) return failed_ = s;
  collectFailures();
  return cancel.load(std::memory_order_relaxed) ? cancelled() : Status{};
}

Status CudaSession::launch(const StepPlan& plan, const SeenInStep& seen) {
  CudaTransformer& t = *transformer_;
  if (recording()) {  // launch by launch, without a graph, and to its end
    Launcher launch(*t.device_, t.element_, recording());
    if (Status s = statusOf(enqueue(launch, plan, seen), "running a step"); !s.ok()) return failed_ = s;
    if (Status s = t.device_->finish("running a step"); !s.ok()) return failed_ = s;
    if (Status s = launch.collect(); !s.ok()) return failed_ = s;
  } else {
    Workspace::Captured* captured = nullptr;
    // The tables are written already, and the device may have taken them.
    if (Status s = w_->find(plan, captured); !s.ok()) return failed_ = s;
    if (captured->uses++ > 0 && !captured->graph)
      if (Status s = capture(*captured); !s.ok()) return s;
    Launcher launch(*t.device_, t.element_);
    const cudaError_t e =
        captured->graph ? cudaGraphLaunch(captured->graph, t.device_->stream()) : enqueue(launch, plan, {});
    if (Status s = statusOf(e, "running a step"); !s.ok()) return failed_ = s;  // half of it may have run
  }
  if (Status s = w_->events[steps_ % Workspace::depth].record(t.device_->stream()); !s.ok()) return failed_ = s;
  steps_++;
  return {};
}

SeenInStep CudaSession::seenIn(const Step& step) const {
  const int inLayers = layerRows(transformer_->model_, step);
  return {seenSlots({step.rows, inLayers, nullptr, 0, nullptr, 0}),
          seenSlots({step.rows + inLayers, step.rowCount - inLayers, nullptr, 0, nullptr, 0})};
}

// ---- passes -------------------------------------------------------------------------------------------------

Status CudaSession::pass(const std::vector<PassPart>& parts, const Cancel& cancel, PassResult& result) {
  if (Status s = passes_.check(parts, seats_); !s.ok()) return s;
  if (std::any_of(parts.begin(), parts.end(), [&](const PassPart& p) { return p.steps > 1 || ahead_.has(p.seat); }))
    return passAhead(parts, cancel, result);
  Step composed{};
  if (Status s = passes_.compose(parts, seats_, w_->known, composed); !s.ok()) return s;
  for (const PassPart& p : parts) result.inPass.push_back(passes_.ended(p.seat) ? 0 : 1);
  std::vector<int32_t> failed;
  if (composed.rowCount > 0) {
    if (Status s = step(composed, cancel, failed); !s.ok()) return s;
    passes_.ran(w_->known);
  }
  result.rows = composed.rowCount;
  for (const PassPart& p : parts) result.done.push_back(seats_.failed(p.seat) ? -1 : passes_.done(p.seat));
  return {};
}

// With guesses, or after a pass with guesses. What a sequence has come to is known on the device first, which goes on
// from there by itself. The host is told of it a few passes later, and counts one step for each pass until then.
Status CudaSession::passAhead(std::vector<PassPart> parts, const Cancel& cancel, PassResult& result) {
  const std::vector<PassPart> asked = parts;
  const auto isDone = [&](const PassPart& p) {
    return ahead_.bounds(p.seat, passes_).least == passes_.planned(p.seat).steps();
  };
  if (Status s = transformer_->device_->use(); !s.ok()) return s;
  if (Status s = ready(cancel); !s.ok()) return s;
  for (const PassPart& p : parts)
    if (!ahead_.has(p.seat))
      if (Status s = goAhead(p.seat); !s.ok()) return s;
  hear(parts);
  const auto mayBeDone = [&](const PassPart& p) {
    const Ahead::Bounds bounds = ahead_.bounds(p.seat, passes_);
    return bounds.least < bounds.most && bounds.most == passes_.planned(p.seat).steps();
  };
  // A pass that may find nothing to do is not worth its time.
  std::vector<PassPart> ending;
  std::copy_if(parts.begin(), parts.end(), std::back_inserter(ending), mayBeDone);
  if (!ending.empty())
    if (Status s = settle(ending); !s.ok()) return s;
  for (const PassPart& p : parts) result.inPass.push_back(isDone(p) ? 0 : 1);
  parts.erase(std::remove_if(parts.begin(), parts.end(), isDone), parts.end());
  if (!parts.empty()) {
    if (!ahead_.compose(parts, passes_, w_->layout.chunk)) {
      if (Status s = settle(parts); !s.ok()) return s;
      if (!ahead_.compose(parts, passes_, w_->layout.chunk))
        return {Code::invalidOption, "A step has 1.." + std::to_string(o_.maxRows) + " rows, and this one more."};
    }
    w_->write(ahead_.entries(), steps_);
    SeenInStep seen;
    if (recording()) {
      for (const PassPart& p : parts) passes_.setDone(p.seat, ahead_.bounds(p.seat, passes_).least);
      seen = seenIn(passes_.stepOf(parts));
    }
    if (Status s = launch(ahead_.plan(), seen); !s.ok()) return s;
    ahead_.enqueued(parts);
    result.rows = ahead_.rows();
  }
  for (const PassPart& p : asked)
    result.done.push_back(seats_.failed(p.seat) ? -1 : ahead_.bounds(p.seat, passes_).least);
  return {};
}

// From now on the device puts the passes of the seat together. The host checks all of them before.
Status CudaSession::goAhead(int seat) {
  const PlannedSequence& planned = passes_.planned(seat);
  Seats after = seats_;  // what a refused plan would have done is forgotten
  if (Status s = passes_.checkAhead(seat, after); !s.ok()) return s;
  int positions = 0;
  for (const PlannedRow& row : planned.plan.rows)
    for (const int32_t c : row.cell) positions = std::max(positions, c + 1);
  if (Status s = transformer_->growAngles(positions); !s.ok()) return s;
  if (Status s = w_->stage(seat, passes_); !s.ok()) return failed_ = s;
  seats_ = std::move(after);
  ahead_.begin(seat, planned.done);
  return {};
}

void CudaSession::hear(const std::vector<PassPart>& parts) {
  for (const PassPart& p : parts) ahead_.hear(p.seat, w_->progress[p.seat]);
}

// Waits until the host knows where the sequences stand.
Status CudaSession::settle(const std::vector<PassPart>& parts) {
  const PassTables tables = w_->passTables(transformer_->model_);
  cudaError_t e = cudaSuccess;
  for (const PassPart& p : parts)
    if (e == cudaSuccess && ahead_.waits(p.seat)) e = settlePass(tables, p.seat, transformer_->device_->stream());
  if (Status s = statusOf(e, "running a pass"); !s.ok()) return s;
  if (Status s = transformer_->device_->finish("running a pass"); !s.ok()) return failed_ = s;
  hear(parts);
  return {};
}

// A step that cannot be captured is launched kernel by kernel.
Status CudaSession::capture(Workspace::Captured& captured) {
  Device& device = *transformer_->device_;
  for (Launches way = device.launches(); way != Launches::kernels; way = device.launches()) {
    const cudaError_t e = captureAs(way, captured);
    if (e == cudaSuccess) return {};
    if (device.isLost()) return failed_ = statusOf(e, "capturing a step");
    if (e == cudaErrorMemoryAllocation) return {};  // there may be some the next time
    device.givesUp(way);
  }
  return {};
}

cudaError_t CudaSession::captureAs(Launches way, Workspace::Captured& captured) {
  const Device& device = *transformer_->device_;
  const cudaStream_t stream = device.stream();
  cudaError_t e = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  if (e != cudaSuccess) return e;
  Launcher launch(device, transformer_->element_, nullptr, way);
  e = enqueue(launch, captured.plan, {});
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream, &graph);
  if (e == cudaSuccess) e = ended;
  if (e == cudaSuccess) e = cudaGraphInstantiate(&captured.graph, graph, 0);
  if (e != cudaSuccess) captured.graph = nullptr;
  if (graph) cudaGraphDestroy(graph);
  return e;
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
  if (plan.composed > 0) launch.compose(w_->composing(plan, m));
  else launch.take(w_->taking(plan));
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
    // The head guides logits by itself where all of them are of one launch, of few rows.
    const bool guides = t.device_->tuning().guidedHead && t.head_.format != WeightFormat::float32 &&
                        all <= w_->layout.chunk && p.rows <= maxSkinnyRows(t.head_.format);
    if (guides) p.guides = {w_->drawings, plan.predictions};
    launch.norm(stack.x, every ? nullptr : w_->gather + first, p.rows,
                {m.norm, t.finalNorm_.weight, t.finalNorm_.bias, m.normEps}, normed);
    launch.project(normed, m.normEps, p, t.head_);
    Sampling s{w_->logits,
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
               m.vocabulary > sharedLogits(t.device_->sharedLimit()),
               guides,
               first == 0 ? w_->ring : Ring{}};
    const std::pair<bool, Mode> modes[] = {
        {plan.sampled, Mode::sample}, {plan.raced, Mode::gumbel}, {plan.scored, Mode::score}};
    for (const auto& [asked, mode] : modes) {
      if (!asked) continue;
      launch.predict(s, mode);
      s.ring = {};
    }
  }
}

// ---- results ------------------------------------------------------------------------------------------------

Status CudaSession::read(int seat, void* to, const void* from, size_t bytes) {
  if (Status s = seats_.taken(seat); !s.ok()) return s;
  if (Status s = transformer_->device_->use(); !s.ok()) return s;
  const cudaStream_t stream = transformer_->device_->stream();
  // Through page-locked memory where it is so much: the seat's known tokens, which the device has by then.
  const size_t at = static_cast<size_t>(seat) * bytes, tokens = static_cast<size_t>(o_.tokens);
  int32_t* const staged = w_->known + static_cast<size_t>(seat) * tokens;
  int* const flag = const_cast<int*>(w_->flags) + seat;
  const bool stages = bytes <= tokens * sizeof *staged;
  cudaError_t e = ahead_.waits(seat) ? settlePass(w_->passTables(transformer_->model_), seat, stream) : cudaSuccess;
  if (e == cudaSuccess && bytes > 0)
    e = cudaMemcpyAsync(stages ? staged : to, static_cast<const uint8_t*>(from) + at, bytes, cudaMemcpyDeviceToHost,
                        stream);
  if (e == cudaSuccess) e = cudaMemcpyAsync(flag, w_->nonFinite + seat, sizeof *flag, cudaMemcpyDeviceToHost, stream);
  const Status finished = transformer_->device_->finish("running a step");  // in any case: a copy may be under way
  if (Status s = statusOf(e, "reading results"); !s.ok()) return s;
  if (!finished.ok()) return finished;
  if (stages && bytes > 0) std::memcpy(to, staged, bytes);
  const bool bad = w_->flags[seat] != 0;
  if (bad) seats_.fail(seat);
  return bad ? notFinite() : Status{};
}

Status CudaSession::readTokens(int seat, int32_t* out) {
  Status s = read(seat, out, w_->tokens, static_cast<size_t>(o_.tokens) * 4);
  if (!s.ok()) return s;
  ahead_.hear(seat, w_->progress[seat]);
  passes_.setDone(seat, ahead_.bounds(seat, passes_).least);
  passes_.hide(seat, out);
  return {};
}

Status CudaSession::readLogProbs(int seat, float* out) {
  return read(seat, out, w_->logProbs, static_cast<size_t>(o_.tokens) * 4);
}

Status CudaSession::readLogits(int seat, float* out) {
  return read(seat, out, w_->kept,
              static_cast<size_t>(o_.kept) * static_cast<size_t>(transformer_->model_.vocabulary) * 4);
}

}  // namespace parvis::cuda
