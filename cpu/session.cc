#include "session.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace parvis::cpu {

namespace {

std::string text(int64_t n) { return std::to_string(n); }

}  // namespace

// ---- memory -------------------------------------------------------------------------------------------------

Status CpuTransformer::createSession(SessionOptions options, std::unique_ptr<Session>& out) {
  if (Status s = checkSession(model_, options); !s.ok()) return s;
  auto session = std::make_unique<CpuSession>(std::static_pointer_cast<CpuTransformer>(shared_from_this()), std::move(options));
  Status s = session->allocate();
  if (s.ok()) out = std::move(session);
  return s;
}

Status CpuSession::allocate() {
  const CpuTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const size_t item = elementSize(t.element_);
  const size_t rows = static_cast<size_t>(streams()) * o_.maxRows;
  slots_ = roundUp(o_.slots, 32);
  dimStride_ = roundUp(m.dim, 32);
  qkvStride_ = roundUp((m.heads + 2 * m.kvHeads) * m.headSize, 32);
  widthStride_ = roundUp(m.heads * m.headSize, 32);
  ffStride_ = roundUp(m.feedForward, 32);
  vocabularyStride_ = roundUp(m.vocabulary, 32);
  chunk_ = static_cast<int>(std::min<size_t>(rows, 256));
  const int step = inputStep(t.element_);
  keyBytes_ = static_cast<size_t>(slots_ / 32) * ((m.headSize + step - 1) / step) * groupBytes;
  valueBytes_ = static_cast<size_t>(roundUp(m.headSize, 32) / 32) * (slots_ / step) * groupBytes;
  // Per thread: attention, or one draw (guided logits, weights).
  scratchBytes_ = std::max(attentionScratch(slots_, m.headSize), static_cast<size_t>(vocabularyStride_) * 12) + 4096;
  size_t total = 0;
  const auto plan = [&](size_t bytes) { return std::exchange(total, total + (bytes + 63) / 64 * 64); };
  const size_t x = plan(rows * dimStride_ * 4), normed = plan(rows * dimStride_ * item), qkv = plan(rows * qkvStride_ * 4),
               attended = plan(rows * widthStride_ * item), gated = plan(rows * ffStride_ * item),
               logits = plan(static_cast<size_t>(chunk_) * vocabularyStride_ * 4), gathered = plan(static_cast<size_t>(chunk_) * dimStride_ * item),
               scratch = plan(scratchBytes_ * t.threads_->count()),
               cache = plan((keyBytes_ + valueBytes_) * m.kvHeads * streams() * m.layers);
  if (Status s = Memory::allocate(total, "The KV cache and activations of " + text(sequences()) + " images", memory_); !s.ok()) return s;
  uint8_t* p = memory_.data();
  x_ = reinterpret_cast<float*>(p + x);
  normed_ = p + normed;
  qkv_ = reinterpret_cast<float*>(p + qkv);
  attended_ = p + attended;
  gated_ = p + gated;
  logits_ = reinterpret_cast<float*>(p + logits);
  gathered_ = p + gathered;
  scratch_ = p + scratch;
  cache_ = p + cache;
  const size_t tokens = static_cast<size_t>(sequences()) * o_.tokens;
  known_ = Known(o_);
  tokens_ = o_.known.empty() ? std::vector<int32_t>(tokens, -1) : o_.known;
  logProbs_.assign(tokens, std::numeric_limits<float>::quiet_NaN());
  kept_.assign(static_cast<size_t>(sequences()) * o_.keepLogits.size() * m.vocabulary, std::numeric_limits<float>::quiet_NaN());
  return {};
}

CacheHead CpuSession::cache(int layer, int stream, int head) const {
  const TransformerModel& m = transformer_->model_;
  uint8_t* p = cache_ + ((static_cast<size_t>(layer) * streams() + stream) * m.kvHeads + head) * (keyBytes_ + valueBytes_);
  return {p, p + keyBytes_, slots_};
}

// ---- a step -------------------------------------------------------------------------------------------------

void CpuSession::growAngles(const Row* rows, int count) {
  const TransformerModel& m = transformer_->model_;
  const int quarter = m.headSize / 4, half = m.headSize / 2;
  int last = -1;
  for (int i = 0; i < count; i++) last = std::max({last, rows[i].row, rows[i].column});
  for (int p = static_cast<int>(cosine_.size()) / half; p <= last; p++)
    for (int k = 0; k < quarter; k++) {
      const Angle a = rotationAngle(m, p, k);
      cosine_.insert(cosine_.end(), {a.cosine, a.cosine});
      sine_.insert(sine_.end(), {-a.sine, a.sine});
    }
}

void CpuSession::embed(const Row* rows, int count) {
  const CpuTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const size_t item = elementSize(t.element_);
  for (int stream = 0; stream < streams(); stream++) {
    const int sequence = stream % sequences();
    for (int i = 0; i < count; i++) {
      const int32_t input = rows[i].input;
      const void* table = input >= 0 ? t.tokens_ : input == classInput ? t.classes_ : t.transitions_;
      const int32_t entry = input >= 0            ? tokens_[static_cast<size_t>(sequence) * o_.tokens + input]
                            : input != classInput ? -2 - input
                            : stream >= sequences() ? m.classes
                                                    : o_.classIds[sequence];
      const void* from = static_cast<const uint8_t*>(table) + static_cast<size_t>(entry) * m.dim * item;
      convertFloats(from, t.element_ == Element::float32 ? DType::float32 : DType::bfloat16,
                    x_ + static_cast<size_t>(stream * count + i) * dimStride_, DType::float32, m.dim);
    }
  }
}

void CpuSession::matmul(const Packed& w, const void* x, ptrdiff_t xStride, int rows, Epilogue epilogue, float* y, void* out, ptrdiff_t yStride) {
  Threads& threads = *transformer_->threads_;
  const auto kernel = kernels().matmul[static_cast<int>(transformer_->element_)];
  const Matmul m{x, xStride, rows, w.data, w.groups, epilogue, y, out, yStride};
  // Enough tasks to balance the threads, none so small that handing it out costs more than it takes.
  const size_t work = w.bytes() * static_cast<size_t>((rows + 3) / 4);
  const int tasks = static_cast<int>(std::clamp<size_t>(work / (96 << 10), 1, std::min<size_t>(w.panels, static_cast<size_t>(threads.count()) * 8)));
  threads.run(tasks, [&](int task, int) {
    kernel(m, static_cast<int>(static_cast<int64_t>(w.panels) * task / tasks), static_cast<int>(static_cast<int64_t>(w.panels) * (task + 1) / tasks));
  });
}

void CpuSession::norm(const float* weight, int rows) {
  const CpuTransformer& t = *transformer_;
  const auto kernel = kernels().norm[static_cast<int>(t.element_)];
  const size_t item = elementSize(t.element_);
  const int tasks = rows <= 8 ? 1 : (rows + 7) / 8;
  t.threads_->run(tasks, [&](int task, int) {
    for (int r = task * 8; r < std::min(rows, task * 8 + 8); r++)
      kernel({x_ + static_cast<size_t>(r) * dimStride_, weight, static_cast<uint8_t*>(normed_) + static_cast<size_t>(r) * dimStride_ * item, t.model_.dim, t.model_.normEps});
  });
}

void CpuSession::attention(int layer, int count) {
  const CpuTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const auto kernel = kernels().attend[static_cast<int>(t.element_)];
  const size_t item = elementSize(t.element_);
  const int group = m.heads / m.kvHeads, heads = streams() * m.kvHeads;
  int sees = 0;
  for (int i = 0; i < count; i++) sees = std::max(sees, meta_[i].sees);
  const int64_t work = static_cast<int64_t>(count) * sees * m.headSize * group;  // of one head
  const int together = static_cast<int>(std::clamp<int64_t>(100000 / std::max<int64_t>(work, 1), 1, heads));
  t.threads_->run((heads + together - 1) / together, [&](int task, int thread) {
    for (int i = task * together; i < std::min(heads, (task + 1) * together); i++) {
      const int stream = i / m.kvHeads, head = i % m.kvHeads;
      const ptrdiff_t row = static_cast<ptrdiff_t>(stream) * count;
      kernel({qkv_ + row * qkvStride_, qkvStride_, meta_.data(), count, m.headSize, group, static_cast<ptrdiff_t>(head) * group * m.headSize,
              static_cast<ptrdiff_t>(m.heads + head) * m.headSize, static_cast<ptrdiff_t>(m.heads + m.kvHeads + head) * m.headSize,
              cache(layer, stream, head), cosine_.data(), sine_.data(),
              static_cast<uint8_t*>(attended_) + (row * widthStride_ + static_cast<ptrdiff_t>(head) * group * m.headSize) * item, widthStride_,
              scratch_ + scratchBytes_ * thread});
    }
  });
}

Status CpuSession::step(const Row* rows, int count, const StepRule& rule, const Cancel& cancel) {
  if (Status s = checkStep(transformer_->model_, o_, known_, rows, count, rule); !s.ok()) return s;
  const CpuTransformer& t = *transformer_;
  const int all = streams() * count;
  meta_.resize(count);
  for (int i = 0; i < count; i++) meta_[i] = {rows[i].slot, rows[i].row, rows[i].column, rows[i].append, rows[i].sees};
  growAngles(rows, count);
  embed(rows, count);
  for (int i = 0; i < t.model_.layers; i++) {
    if (cancel.load(std::memory_order_relaxed)) return {Code::cancelled, "Cancelled."};
    const Layer& l = t.layers_[i];
    norm(l.attentionNorm, all);
    matmul(l.qkv, normed_, dimStride_, all, Epilogue::store, qkv_, nullptr, qkvStride_);
    attention(i, count);
    matmul(l.wo, attended_, widthStride_, all, Epilogue::add, x_, nullptr, dimStride_);
    norm(l.feedForwardNorm, all);
    matmul(l.gateUp, normed_, dimStride_, all, Epilogue::swiglu, nullptr, gated_, ffStride_);
    matmul(l.down, gated_, ffStride_, all, Epilogue::add, x_, nullptr, dimStride_);
  }
  return predict(rows, count, rule, cancel);
}

// ---- logits to tokens ---------------------------------------------------------------------------------------

Status CpuSession::predict(const Row* rows, int count, const StepRule& rule, const Cancel& cancel) {
  const CpuTransformer& t = *transformer_;
  const TransformerModel& m = t.model_;
  const size_t item = elementSize(t.element_);
  std::vector<Prediction> all;
  for (int s = 0; s < sequences(); s++)
    for (int i = 0; i < count; i++)
      if (rows[i].predicts >= 0) all.push_back({s, i});
  const int branches = o_.guided ? 2 : 1, most = std::max(1, chunk_ / branches);
  const bool guided = o_.guided && rule.guidanceScale != 1.0f;
  std::atomic<bool> finite{true};
  for (size_t first = 0; first < all.size(); first += most) {
    if (cancel.load(std::memory_order_relaxed)) return {Code::cancelled, "Cancelled."};
    const int some = static_cast<int>(std::min<size_t>(most, all.size() - first));
    const Prediction* p = all.data() + first;
    const auto normKernel = kernels().norm[static_cast<int>(t.element_)];
    for (int b = 0; b < branches; b++)
      for (int i = 0; i < some; i++) {
        const size_t from = static_cast<size_t>(b * sequences() + p[i].sequence) * count + p[i].row;
        normKernel({x_ + from * dimStride_, t.norm_, static_cast<uint8_t*>(gathered_) + static_cast<size_t>(b * some + i) * dimStride_ * item, m.dim, m.normEps});
      }
    matmul(t.output_, gathered_, dimStride_, branches * some, Epilogue::store, logits_, nullptr, vocabularyStride_);
    t.threads_->run(some, [&](int i, int thread) {
      const int sequence = p[i].sequence, position = rows[p[i].row].predicts;
      const size_t token = static_cast<size_t>(sequence) * o_.tokens + position;
      Draw d{};
      d.conditional = logits_ + static_cast<size_t>(i) * vocabularyStride_;
      d.unconditional = guided ? logits_ + static_cast<size_t>(some + i) * vocabularyStride_ : nullptr;
      d.vocabulary = m.vocabulary;
      d.guidanceScale = rule.guidanceScale;
      d.temperature = rule.temperature;
      d.topP = rule.topP;
      d.topK = rule.topK;
      d.seed = o_.seeds[sequence];
      d.index = static_cast<uint32_t>(position);
      uint8_t* scratch = scratch_ + scratchBytes_ * thread;
      d.weights = reinterpret_cast<uint64_t*>(scratch);
      d.logits = reinterpret_cast<float*>(scratch + static_cast<size_t>(vocabularyStride_) * 8);
      if (rule.mode == StepRule::Mode::score) {
        if (!sampler().score(d, tokens_[token], &logProbs_[token])) finite = false;
      } else {
        const int32_t drawn = sampler().draw(d);
        if (drawn < 0) finite = false;
        tokens_[token] = drawn;
      }
      for (size_t k = 0; k < o_.keepLogits.size(); k++)
        if (o_.keepLogits[k] == position)
          std::memcpy(kept_.data() + (static_cast<size_t>(sequence) * o_.keepLogits.size() + k) * m.vocabulary, d.logits, static_cast<size_t>(m.vocabulary) * 4);
    });
  }
  if (!finite) return notFinite();
  for (const Prediction& p : all)
    if (rule.mode == StepRule::Mode::sample) known_.predicted(rows[p.row].predicts);
  return {};
}

// ---- results ------------------------------------------------------------------------------------------------

Status CpuSession::readTokens(int32_t* out) {
  std::copy(tokens_.begin(), tokens_.end(), out);
  return {};
}

Status CpuSession::readLogProbs(float* out) {
  std::copy(logProbs_.begin(), logProbs_.end(), out);
  return {};
}

Status CpuSession::readLogits(float* out) {
  std::copy(kept_.begin(), kept_.end(), out);
  return {};
}

}  // namespace parvis::cpu
