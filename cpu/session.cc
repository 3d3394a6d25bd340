#include "session.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "../common/launches.h"
#include "launch-timer.h"

namespace parvis::cpu {

// ---- memory -------------------------------------------------------------------------------------------------

Status CpuTransformer::createSession(const SessionOptions& options, std::unique_ptr<Session>& out) {
  if (Status s = checkSession(model_, options); !s.ok()) return s;
  auto session = std::make_unique<CpuSession>(std::static_pointer_cast<CpuTransformer>(shared_from_this()), options);
  Status s = session->allocate();
  if (s.ok()) out = std::move(session);
  return s;
}

SessionLayout::SessionLayout(const TransformerModel& m, const Numbers& numbers, int threads, const SessionOptions& o) {
  const size_t item = elementSize(numbers.activations), rows = static_cast<size_t>(o.maxRows);
  const size_t seats = static_cast<size_t>(o.seats);
  dimStride = roundUp(m.dim, 32);
  qkvStride = roundUp((m.heads + 2 * m.kvHeads) * m.headSize, 32);
  widthStride = roundUp(m.heads * m.headSize, 32);
  ffStride = roundUp(m.feedForward, 32);
  vocabularyStride = roundUp(m.vocabulary, 32);
  chunk = std::min(std::max(o.maxRows, 2), 256);
  cache = CacheLayout(o.slots, m.headSize, numbers.kept);
  // An embedding, attention or a draw, never two of them.
  const size_t position = m.positions > 0 ? static_cast<size_t>(m.dim) * 4 : 0;
  scratchBytes = std::max({attentionScratch(cache.slots, m.headSize), drawScratch(m.vocabulary), position}) + 4096;
  tokensEach = static_cast<size_t>(o.tokens);
  keptEach = static_cast<size_t>(o.kept) * m.vocabulary;
  const auto take = [&](size_t size) { return std::exchange(bytes, bytes + (size + 63) / 64 * 64); };
  x = take(rows * dimStride * 4);
  normed = take(rows * dimStride * item);
  qkv = take(rows * qkvStride * 4);
  attended = take(rows * widthStride * item);
  gated = take(rows * ffStride * item);
  logits = take(static_cast<size_t>(chunk) * vocabularyStride * 4);
  gathered = take(static_cast<size_t>(chunk) * dimStride * item);
  scratch = take(scratchBytes * threads);
  caches = take(cache.bytes() * m.kvHeads * o.streams() * cacheCount(m));
  tokens = take(seats * tokensEach * 4);
  logProbs = take(seats * tokensEach * 4);
  kept = take(seats * keptEach * 4);
}

Status CpuSession::allocate() {
  const CpuTransformer& t = *transformer_;
  layout_ = SessionLayout(t.model_, t.numbers_, t.threads_->count(), o_);
  const std::string what = "The KV cache and activations of " + std::to_string(o_.seats) + " images";
  if (Status s = Memory::allocate(layout_.bytes, what, memory_); !s.ok()) return s;
  uint8_t* p = memory_.data();
  x_ = reinterpret_cast<float*>(p + layout_.x);
  normed_ = p + layout_.normed;
  qkv_ = reinterpret_cast<float*>(p + layout_.qkv);
  attended_ = p + layout_.attended;
  gated_ = p + layout_.gated;
  logits_ = reinterpret_cast<float*>(p + layout_.logits);
  gathered_ = p + layout_.gathered;
  scratch_ = p + layout_.scratch;
  cache_ = p + layout_.caches;
  tokens_ = reinterpret_cast<int32_t*>(p + layout_.tokens);
  logProbs_ = reinterpret_cast<float*>(p + layout_.logProbs);
  kept_ = reinterpret_cast<float*>(p + layout_.kept);
  seats_ = Seats(t.model_, o_);  // after memory was granted: they are small beside that
  passes_ = Passes(t.model_, o_, o_.maxRows);
  return {};
}

// ---- seats --------------------------------------------------------------------------------------------------

Status CpuSession::enter(int seat, const Sequence& sequence) {
  if (Status s = seats_.enter(seat, sequence); !s.ok()) return s;
  constexpr float nothing = std::numeric_limits<float>::quiet_NaN();
  const size_t at = static_cast<size_t>(seat), tokens = layout_.tokensEach, kept = layout_.keptEach;
  std::fill_n(tokens_ + at * tokens, tokens, -1);
  std::copy(sequence.known.begin(), sequence.known.end(), tokens_ + at * tokens);
  std::fill_n(logProbs_ + at * tokens, tokens, nothing);
  std::fill_n(kept_ + at * kept, kept, nothing);
  if (!seats_.dirty(seat)) return {};
  // A tile of attention multiplies what lies behind a prefix by zero, which hides finite numbers only.
  const TransformerModel& m = transformer_->model_;
  const size_t stream = layout_.cache.bytes() * m.kvHeads;
  for (int cache = 0; cache < cacheCount(m); cache++)
    std::memset(cache_ + (static_cast<size_t>(cache) * o_.seats + seat) * o_.streamsEach * stream, 0,
                stream * o_.streamsEach);
  seats_.cleaned(seat);
  return {};
}

Status CpuSession::leave(int seat) {
  Status s = seats_.leave(seat);
  if (s.ok()) passes_.clear(seat);
  return s;
}

Status CpuSession::plan(int seat, SequencePlan plan) {
  if (Status s = seats_.taken(seat); !s.ok()) return s;
  return passes_.plan(seat, std::move(plan));
}

// ---- a step -------------------------------------------------------------------------------------------------

RowNorm CpuSession::norm(NormKind kind, const NormWeights& weights) const {
  const TransformerModel& m = transformer_->model_;
  return {kind, weights.weight, weights.bias, m.dim, m.normEps};
}

void CpuSession::embed(const Step& step) {
  const CpuTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const size_t item = elementSize(t.numbers_.kept);
  const DType type = t.numbers_.kept == Element::float32 ? DType::float32 : DType::bfloat16;
  for (int i = 0; i < step.rowCount; i++) {
    const Row& row = step.rows[i];
    const int seat = seats_.seatOf(row.stream);
    const bool unconditional = row.stream % o_.streamsEach == 1;
    const void* table = row.input >= 0 ? t.tokens_ : row.input == classInput ? t.classes_ : t.specials_;
    const int32_t entry = row.input >= 0            ? tokens_[static_cast<size_t>(seat) * o_.tokens + row.input]
                          : row.input != classInput ? -2 - row.input
                          : unconditional           ? m.classes
                                                    : seats_.sequence(seat).classId;
    // A token is -1 where its logits were not finite: the seat has failed, and any entry will do.
    float* x = x_ + static_cast<size_t>(i) * layout_.dimStride;
    const auto read = [&](const void* from, int32_t entry, float* to) {
      const size_t at = static_cast<size_t>(entry) * m.dim * item;
      convertFloats(static_cast<const uint8_t*>(from) + at, type, to, DType::float32, m.dim);
    };
    read(table, std::max(entry, 0), x);
    if (m.rotateSpecials && row.input < classInput) rotate(x, row);
    if (row.position >= 0) {
      float* position = reinterpret_cast<float*>(scratch_);
      read(t.positions_, row.position, position);
      for (int d = 0; d < m.dim; d++) x[d] += position[d];
    }
    if (m.embeddingNorm)
      kernels().norm[static_cast<int>(Element::float32)](norm(NormKind::layer, t.embeddingNorm_).of(x, x));
  }
}

// A special vector becomes what a table with an entry for each cell would hold.
void CpuSession::rotate(float* x, const Row& row) const {
  const CpuTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const Rotation rotation = angles_.of(m);
  const int pairs = rotatedPairs(m);
  for (int head = 0; head < m.heads; head++)
    for (int p = 0; p < pairs; p++) {
      float* pair = x + head * m.headSize + 2 * p;
      const int32_t position = row.cell[rotationAxis(m, p)];
      const ptrdiff_t at = 2 * (static_cast<ptrdiff_t>(position) * pairs + p);
      const float c = position < 0 ? 0 : rotation.cosine[at], s = position < 0 ? 0 : rotation.sine[at + 1];
      const float a = pair[0], b = pair[1];
      pair[0] = a * c - b * s;
      pair[1] = a * s + b * c;
    }
  if (t.numbers_.kept == Element::float32) return;
  uint16_t* rounded = reinterpret_cast<uint16_t*>(scratch_);
  convertFloats(x, DType::float32, rounded, DType::bfloat16, static_cast<size_t>(m.dim));
  convertFloats(rounded, DType::bfloat16, x, DType::float32, static_cast<size_t>(m.dim));
}

void CpuSession::attention(const Rows& run, const Step& step, Range rows, int heads, int cache) {
  const TransformerModel& m = transformer_->model_;
  uint8_t* const caches = cache_ + static_cast<size_t>(cache) * o_.streams() * m.kvHeads * layout_.cache.bytes();
  const Step part{step.rows + rows.begin, rows.count(), nullptr, 0, nullptr, 0};
  timed(
      run.profile(),
      [&] {
        const Numbers& numbers = transformer_->numbers_;
        return heads > 0
                   ? rowAttentionLaunch(seenSlots(part), m, elementSize(numbers.activations), elementSize(numbers.kept))
                   : LaunchRecord{"shared keys and values", "", 0, 0, 0};
      },
      [&] {
        run.attention({qkv_, layout_.qkvStride, rows_.data() + rows.begin, groups_.data(),
                       static_cast<int>(groups_.size()), heads, m.kvHeads, m.headSize, layout_.cache, caches,
                       angles_.of(m), attended_, layout_.widthStride, scratch_, layout_.scratchBytes});
      });
}

// What layers leave of the rows becomes keys and values for the cross layers.
void CpuSession::share(const Rows& run, const Step& step, Range rows) {
  const CpuTransformer& t = *transformer_;
  if (rows.count() == 0) return;
  run.norm(x_, layout_.dimStride, rows.count(), norm(t.model_.norm, t.sharedNorm_), normed_);
  run.matmul(t.sharedKeysValues_, normed_, layout_.dimStride, rows.count(), Epilogue::store, qkv_, nullptr,
             layout_.qkvStride);
  attention(run, step, rows, 0, t.model_.layers);
}

Status CpuSession::runLayers(const Rows& run, const Step& step, Range rows, Range layers, const Cancel& cancel) {
  const CpuTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  if (rows.count() == 0) return {};
  groupsOf(step, rows.begin, rows.end, groups_);
  const int count = rows.count();
  float* const x = x_ + static_cast<ptrdiff_t>(rows.begin) * layout_.dimStride;
  const Epilogue activation = m.activation == Activation::swiglu ? Epilogue::swiglu : Epilogue::gelu;
  for (int i = layers.begin; i < layers.end; i++) {
    if (cancel.load(std::memory_order_relaxed)) return broken(step);
    const Layer& l = t.layers_[i];
    run.norm(x, layout_.dimStride, count, norm(m.norm, l.attentionNorm), normed_);
    run.matmul(l.qkv, normed_, layout_.dimStride, count, Epilogue::store, qkv_, nullptr, layout_.qkvStride);
    attention(run, step, rows, m.heads, std::min(i, m.layers));
    run.matmul(l.attentionOutput, attended_, layout_.widthStride, count, Epilogue::add, x, nullptr, layout_.dimStride);
    run.norm(x, layout_.dimStride, count, norm(m.norm, l.feedForwardNorm), normed_);
    run.matmul(l.up, normed_, layout_.dimStride, count, activation, nullptr, gated_, layout_.ffStride);
    run.matmul(l.down, gated_, layout_.ffStride, count, Epilogue::add, x, nullptr, layout_.dimStride);
  }
  return {};
}

Status CpuSession::broken(const Step& step) {
  seats_.broke(step);
  return cancelled();
}

Status CpuSession::step(const Step& step, const Cancel& cancel, std::vector<int32_t>& failed) {
  if (Status s = seats_.check(step); !s.ok()) return s;
  const CpuTransformer& t = *transformer_;
  const int count = step.rowCount;
  rows_.resize(count);
  int last = -1;
  for (int i = 0; i < count; i++) {
    const Row& r = step.rows[i];
    rows_[i] = {r.slot, {r.cell[0], r.cell[1], r.cell[2]}, r.sees};
    last = std::max({last, r.cell[0], r.cell[1], r.cell[2]});
  }
  angles_.grow(t.model_, last);
  const Rows run{*t.threads_, t.numbers_, cancel, recording()};
  timed(
      run.profile(), [&] { return embeddingLaunch(count, t.model_.dim, elementSize(t.numbers_.kept)); },
      [&] { embed(step); });
  const int inLayers = layerRows(t.model_, step);
  if (Status s = runLayers(run, step, {0, inLayers}, {0, t.model_.layers}, cancel); !s.ok()) return s;
  if (t.model_.crossLayers > 0) {
    share(run, step, {0, inLayers});
    const Range cross{t.model_.layers, t.model_.layers + t.model_.crossLayers};
    if (Status s = runLayers(run, step, {inLayers, count}, cross, cancel); !s.ok()) return s;
  }
  if (Status s = predict(run, step, cancel); !s.ok()) return s;
  seats_.ran(step);
  failed = seats_.failed();
  return {};
}

Status CpuSession::pass(const std::vector<PassPart>& parts, const Cancel& cancel, PassResult& result) {
  Step composed{};
  if (Status s = passes_.compose(parts, seats_, tokens_, composed); !s.ok()) return s;
  for (const PassPart& p : parts) result.inPass.push_back(passes_.ended(p.seat) ? 0 : 1);
  std::vector<int32_t> failed;
  if (composed.rowCount > 0) {
    if (Status s = step(composed, cancel, failed); !s.ok()) return s;
    passes_.ran(tokens_);
  }
  result.rows = composed.rowCount;
  for (const PassPart& p : parts) result.done.push_back(seats_.failed(p.seat) ? -1 : passes_.done(p.seat));
  return {};
}

// ---- logits to tokens ---------------------------------------------------------------------------------------

// Whether the logits were finite.
bool CpuSession::draw(const Prediction& p, const SamplingRule& rule, int seat, const float* conditional,
                      const float* unconditional, uint8_t* scratch) {
  const int vocabulary = transformer_->model_.vocabulary;
  const size_t token = static_cast<size_t>(seat) * o_.tokens + p.token;
  const Draw d =
      drawOf(rule, p.guidance, vocabulary, conditional, unconditional, seats_.sequence(seat).seed, p.token, scratch);
  bool finite;
  if (rule.mode == Mode::score) {
    finite = sampler().score(d, tokens_[token], &logProbs_[token]);
  } else {
    tokens_[token] = sampler().draw(d);
    finite = tokens_[token] >= 0;
  }
  if (p.kept >= 0)
    std::copy(d.logits, d.logits + vocabulary,
              kept_ + seat * layout_.keptEach + static_cast<size_t>(p.kept) * vocabulary);
  return finite;
}

Status CpuSession::predict(const Rows& run, const Step& step, const Cancel& cancel) {
  const CpuTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const size_t item = elementSize(t.numbers_.activations);
  const auto normKernel = kernels().norm[static_cast<int>(t.numbers_.activations)];
  const RowNorm finalNorm = norm(m.norm, t.finalNorm_);
  struct Drawn {
    const Prediction* prediction;
    int conditional, unconditional;  // rows of logits; -1: none
    bool finite;
  };
  std::vector<Drawn> drawn;
  for (int first = 0; first < step.predictionCount;) {
    if (cancel.load(std::memory_order_relaxed)) return broken(step);
    // As many predictions as the memory has rows of logits for.
    drawn.clear();
    int rows = 0;
    const auto gather = [&](int row) {
      const size_t to = static_cast<size_t>(rows) * layout_.dimStride * item;
      normKernel(
          finalNorm.of(x_ + static_cast<size_t>(row) * layout_.dimStride, static_cast<uint8_t*>(gathered_) + to));
      return rows++;
    };
    const auto gatherAll = [&] {
      for (; first < step.predictionCount; first++) {
        const Prediction& p = step.predictions[first];
        const bool guided = p.unconditional >= 0 && p.guidance != 1.0f;
        if (rows + (guided ? 2 : 1) > layout_.chunk) break;
        const int conditional = gather(p.row);
        drawn.push_back({&p, conditional, guided ? gather(p.unconditional) : -1, true});
      }
    };
    timed(
        run.profile(), [&] { return rowNormLaunch(rows, m.dim, item); }, gatherAll);
    run.matmul(t.head_, gathered_, layout_.dimStride, rows, Epilogue::store, logits_, nullptr,
               layout_.vocabularyStride);
    if (cancel.load(std::memory_order_relaxed)) return broken(step);
    const auto drawAll = [&] {
      t.threads_->run(static_cast<int>(drawn.size()), [&](int i, int thread) {
        Drawn& d = drawn[i];
        const auto logits = [&](int row) {
          return row < 0 ? nullptr : logits_ + static_cast<size_t>(row) * layout_.vocabularyStride;
        };
        const Prediction& p = *d.prediction;
        d.finite = draw(p, step.rules[p.rule], seats_.seatOf(step.rows[p.row].stream), logits(d.conditional),
                        logits(d.unconditional), scratch_ + layout_.scratchBytes * thread);
      });
    };
    timed(
        run.profile(), [&] { return drawLaunch(static_cast<int>(drawn.size()), rows, m.vocabulary); }, drawAll);
    for (const Drawn& d : drawn)
      if (!d.finite) seats_.fail(seats_.seatOf(step.rows[d.prediction->row].stream));
  }
  if (cancel.load(std::memory_order_relaxed)) return broken(step);  // also where nothing was predicted
  return {};
}

// ---- results ------------------------------------------------------------------------------------------------

Status CpuSession::readable(int seat) const {
  if (Status s = seats_.taken(seat); !s.ok()) return s;
  return seats_.failed(seat) ? notFinite() : Status{};
}

template <class T>
Status CpuSession::read(int seat, const T* from, size_t each, T* out) const {
  if (Status s = readable(seat); !s.ok()) return s;
  std::copy_n(from + seat * each, each, out);
  return {};
}

Status CpuSession::readTokens(int seat, int32_t* out) {
  Status s = read(seat, tokens_, layout_.tokensEach, out);
  if (s.ok()) passes_.hide(seat, out);
  return s;
}

Status CpuSession::readLogProbs(int seat, float* out) { return read(seat, logProbs_, layout_.tokensEach, out); }

Status CpuSession::readLogits(int seat, float* out) { return read(seat, kept_, layout_.keptEach, out); }

}  // namespace parvis::cpu
