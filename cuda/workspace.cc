#include "workspace.h"

#include <algorithm>

#include "loader.h"

namespace parvis::cuda {

// ---- memory -------------------------------------------------------------------------------------------------

Status Workspace::allocate(const TransformerModel& m, Element element) {
  const size_t item = sizeOf(element), branches = static_cast<size_t>(shape.branches()), sequences = static_cast<size_t>(shape.sequences), slots = static_cast<size_t>(shape.slots);
  const size_t places = sequences * static_cast<size_t>(shape.maxRows), rows = branches * places, list = sequences * static_cast<size_t>(shape.tokens) * 4;
  const size_t head = static_cast<size_t>(paddedHead(m.headSize)), vocabulary = static_cast<size_t>(m.vocabulary);
  xStride = rowStride(m.dim);
  wideStride = rowStride(m.heads * m.headSize);
  ffStride = rowStride(m.feedForward);
  vocabularyStride = rowStride(m.vocabulary);
  chunk = static_cast<int>(std::min(places, mostLogitRows / branches));
  cacheBytes = static_cast<size_t>(shape.streams()) * static_cast<size_t>(m.kvHeads) * slots * head * item;
  Attention a{};
  a.rows.count = splitRows(shape.maxRows, m.heads, m.kvHeads);
  a.streams = shape.streams(), a.heads = m.heads, a.kvHeads = m.kvHeads, a.headSize = m.headSize, a.cache.slots = shape.slots;
  counterBytes_ = attentionCounters(a) * 4;

  // Twice over the same list: what is needed, then where it lies.
  const size_t ringBytes = static_cast<size_t>(depth * shape.maxRows) * sizeof(Row), logitRows = branches * static_cast<size_t>(chunk);
  for (const bool taken : {false, true}) {
    Layout layout;
    const auto place = [&](auto*& to, size_t bytes) {
      const size_t at = layout.add(bytes);
      if (taken) to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(memory_.data() + at);
    };
    const auto placeBehind = [&](Behind& to, size_t count) {
      to.stride = xStride;
      place(to.elements, count * static_cast<size_t>(xStride) * item);
      if (element != Element::float32) place(to.squares, count * static_cast<size_t>(squaresStride(m.dim)) * 4);
    };
    place(this->rows, static_cast<size_t>(shape.maxRows) * sizeof(Row));
    place(counter, 4);
    place(nonFinite, 4);
    place(x, rows * static_cast<size_t>(xStride) * 4);
    placeBehind(behind, rows);
    place(queries, rows * static_cast<size_t>(m.heads) * head * item);
    place(attended, rows * static_cast<size_t>(wideStride) * item);
    place(gated, rows * static_cast<size_t>(ffStride) * item);
    place(logits, logitRows * static_cast<size_t>(vocabularyStride) * 4);
    placeBehind(gathered, logitRows);
    place(guided, shape.positions == 0 ? 0 : static_cast<size_t>(chunk) * vocabulary * 4);
    place(cache, static_cast<size_t>(m.layers) * 2 * cacheBytes);
    place(partial, attentionPartials(a) * 4);
    place(counters, counterBytes_);
    place(classIds, sequences * 4);
    place(seeds, sequences * 8);
    place(tokens, list);
    place(logProbs, list);
    place(kept, sequences * shape.positions * vocabulary * 4);
    place(predictions, mostKinds * places * sizeof(Prediction));
    place(gather, mostKinds * rows * 4);
    if (taken) break;
    const bool one = shape.sequences == 1;
    const Purpose purpose{"The KV cache and activations of " + std::to_string(shape.sequences) + (one ? " image" : " images"),
                          one ? modelCure(element) : "Free memory of the device, or ask for fewer images at a time."};
    if (Status s = DeviceMemory::allocate(device_, layout.bytes(), purpose, memory_); !s.ok()) return s;
    if (Status s = HostMemory::allocate(ringBytes + sizeof(int), host_); !s.ok()) return s;
  }
  ring = reinterpret_cast<Row*>(host_.data());
  flag = reinterpret_cast<int*>(host_.data() + ringBytes);
  return {};
}

Status Workspace::reset(const TransformerModel& m, const SessionOptions& o) {
  const size_t list = static_cast<size_t>(shape.sequences) * static_cast<size_t>(shape.tokens) * 4;
  const cudaStream_t stream = device_->stream();
  *flag = 0;  // nothing runs: a workspace that is kept has been waited for
  // What is not known is -1, what is not scored NaN: all bits set. What the cache still holds is finite, and seen by no row
  // before it is written over.
  cudaError_t e = cudaMemsetAsync(tokens, 0xff, list, stream);
  const auto then = [&](cudaError_t next) { e = e == cudaSuccess ? next : e; };
  then(cudaMemsetAsync(logProbs, 0xff, list, stream));
  then(cudaMemsetAsync(kept, 0xff, static_cast<size_t>(shape.sequences) * shape.positions * static_cast<size_t>(m.vocabulary) * 4, stream));
  then(cudaMemsetAsync(counter, 0, 4, stream));
  then(cudaMemsetAsync(nonFinite, 0, 4, stream));
  then(cudaMemsetAsync(counters, 0, counterBytes_, stream));
  then(cudaMemcpyAsync(classIds, o.classIds.data(), o.classIds.size() * 4, cudaMemcpyHostToDevice, stream));
  then(cudaMemcpyAsync(seeds, o.seeds.data(), o.seeds.size() * 8, cudaMemcpyHostToDevice, stream));
  if (!o.known.empty()) then(cudaMemcpyAsync(tokens, o.known.data(), list, cudaMemcpyHostToDevice, stream));
  return statusOf(e, "preparing a session");
}

Workspace::~Workspace() {
  if (!memory_.data()) return;
  cudaSetDevice(device_->index());
  if (!idle) (void)device_->finish("ending a session");
  for (Kind& k : kinds_)
    if (k.graph) cudaGraphExecDestroy(k.graph);
  memory_.freeIdle();
}

// ---- kinds of steps -----------------------------------------------------------------------------------------

bool Workspace::Kind::same(int rows, const std::vector<int>& which, const StepRule& r) const {
  return count == rows && predicting == which && rule.mode == r.mode && rule.guidanceScale == r.guidanceScale && rule.temperature == r.temperature && rule.topK == r.topK && rule.topP == r.topP;
}

Status Workspace::kindOf(const Row* rows, int count, const StepRule& rule, Kind*& out) {
  std::vector<int> predicting;
  for (int i = 0; i < count; i++)
    if (rows[i].predicts >= 0) predicting.push_back(i);
  const auto known = std::find_if(kinds_.begin(), kinds_.end(), [&](const Kind& k) { return k.same(count, predicting, rule); });
  if (known != kinds_.end()) {
    std::rotate(known, known + 1, kinds_.end());
    out = &kinds_.back();
    return {};
  }
  Kind k;
  k.count = count;
  k.predicting = predicting;
  k.rule = rule;
  k.table = kinds_.size();
  if (kinds_.size() == mostKinds) {  // the one not used for longest goes
    if (Status s = device_->finish("preparing a step"); !s.ok()) return s;
    k.table = kinds_.front().table;
    if (kinds_.front().graph) cudaGraphExecDestroy(kinds_.front().graph);
    kinds_.pop_front();
  }
  const size_t places = static_cast<size_t>(shape.sequences) * static_cast<size_t>(shape.maxRows), branches = static_cast<size_t>(shape.branches());
  for (int s = 0; s < shape.sequences; s++)
    for (const int row : predicting) k.predicted.push_back({s, row});
  // Chunk by chunk, the branches of one behind each other.
  for (size_t first = 0; first < k.predicted.size(); first += static_cast<size_t>(chunk))
    for (size_t b = 0; b < branches; b++)
      for (size_t i = first; i < std::min(k.predicted.size(), first + static_cast<size_t>(chunk)); i++)
        k.gathering.push_back((static_cast<int32_t>(b) * shape.sequences + k.predicted[i].sequence) * count + k.predicted[i].row);
  kinds_.push_back(std::move(k));
  out = &kinds_.back();
  if (out->predicted.empty()) return {};
  const cudaStream_t stream = device_->stream();
  cudaError_t e = cudaMemcpyAsync(predictions + out->table * places, out->predicted.data(), out->predicted.size() * sizeof(Prediction), cudaMemcpyHostToDevice, stream);
  if (e == cudaSuccess) e = cudaMemcpyAsync(gather + out->table * places * branches, out->gathering.data(), out->gathering.size() * 4, cudaMemcpyHostToDevice, stream);
  return statusOf(e, "preparing a step");
}

}  // namespace parvis::cuda
