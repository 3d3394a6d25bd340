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
  dimStride_ = roundUp(m.dim, 32);
  qkvStride_ = roundUp((m.heads + 2 * m.kvHeads) * m.headSize, 32);
  widthStride_ = roundUp(m.heads * m.headSize, 32);
  ffStride_ = roundUp(m.feedForward, 32);
  vocabularyStride_ = roundUp(m.vocabulary, 32);
  chunk_ = static_cast<int>(std::min<size_t>(rows, 256));
  layout_ = CacheLayout(o_.slots, m.headSize, t.element_);
  scratchBytes_ = std::max(attentionScratch(layout_.slots, m.headSize), drawScratch(m.vocabulary)) + 4096;  // one or the other
  size_t total = 0;
  const auto plan = [&](size_t bytes) { return std::exchange(total, total + (bytes + 63) / 64 * 64); };
  const size_t x = plan(rows * dimStride_ * 4), normed = plan(rows * dimStride_ * item), qkv = plan(rows * qkvStride_ * 4),
               attended = plan(rows * widthStride_ * item), gated = plan(rows * ffStride_ * item),
               logits = plan(static_cast<size_t>(chunk_) * vocabularyStride_ * 4), gathered = plan(static_cast<size_t>(chunk_) * dimStride_ * item),
               scratch = plan(scratchBytes_ * t.threads_->count()),
               cache = plan(layout_.bytes() * m.kvHeads * streams() * m.layers);
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

// ---- a step -------------------------------------------------------------------------------------------------

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

void CpuSession::attention(const Rows& run, int layer, int count) {
  const TransformerModel& m = transformer_->model_;
  run.attention({qkv_, qkvStride_, meta_.data(), count, streams(), m.heads, m.kvHeads, m.headSize, layout_,
                   cache_ + static_cast<size_t>(layer) * streams() * m.kvHeads * layout_.bytes(), &angles_, attended_, widthStride_, scratch_, scratchBytes_});
}

Status CpuSession::step(const Row* rows, int count, const StepRule& rule, const Cancel& cancel) {
  if (Status s = checkStep(transformer_->model_, o_, known_, rows, count, rule); !s.ok()) return s;
  const CpuTransformer& t = *transformer_;
  const int all = streams() * count;
  meta_.resize(count);
  int last = -1;
  for (int i = 0; i < count; i++) {
    meta_[i] = {rows[i].slot, rows[i].row, rows[i].column, rows[i].append, rows[i].sees};
    last = std::max({last, rows[i].row, rows[i].column});
  }
  angles_.grow(t.model_, last);
  embed(rows, count);
  const Rows run = this->run(cancel);
  const int dim = t.model_.dim;
  const float eps = t.model_.normEps;
  for (int i = 0; i < t.model_.layers; i++) {
    if (cancel.load(std::memory_order_relaxed)) return {Code::cancelled, "Cancelled."};
    const Layer& l = t.layers_[i];
    run.norm(x_, dimStride_, all, l.attentionNorm, dim, eps, normed_);
    run.matmul(l.qkv, normed_, dimStride_, all, Epilogue::store, qkv_, nullptr, qkvStride_);
    attention(run, i, count);
    run.matmul(l.wo, attended_, widthStride_, all, Epilogue::add, x_, nullptr, dimStride_);
    run.norm(x_, dimStride_, all, l.feedForwardNorm, dim, eps, normed_);
    run.matmul(l.gateUp, normed_, dimStride_, all, Epilogue::swiglu, nullptr, gated_, ffStride_);
    run.matmul(l.down, gated_, ffStride_, all, Epilogue::add, x_, nullptr, dimStride_);
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
    run(cancel).matmul(t.output_, gathered_, dimStride_, branches * some, Epilogue::store, logits_, nullptr, vocabularyStride_);
    if (cancel.load(std::memory_order_relaxed)) return {Code::cancelled, "Cancelled."};
    t.threads_->run(some, [&](int i, int thread) {
      const int sequence = p[i].sequence, position = rows[p[i].row].predicts;
      const size_t token = static_cast<size_t>(sequence) * o_.tokens + position;
      const Draw d = drawOf(rule, m.vocabulary, logits_ + static_cast<size_t>(i) * vocabularyStride_, guided ? logits_ + static_cast<size_t>(some + i) * vocabularyStride_ : nullptr,
                            o_.seeds[sequence], position, scratch_ + scratchBytes_ * thread);
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
  if (cancel.load(std::memory_order_relaxed)) return {Code::cancelled, "Cancelled."};  // also where nothing was predicted
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
