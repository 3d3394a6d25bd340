#include "layout.h"

#include <algorithm>

#include "../common/passes.h"
#include "../common/steps.h"
#include "../common/transformer.h"
#include "parvis/backend.h"

namespace parvis::cuda {

int roundedCount(int count) {
  if (count == 0) return 0;
  if (count <= 16) {
    int power = 1;
    while (power < count) power *= 2;
    return power;
  }
  const int unit = count <= 64 ? 16 : count <= 512 ? 64 : 256;
  return (count + unit - 1) / unit * unit;
}

// ---- weights --------------------------------------------------------------------------------------------------

size_t matrixBytes(WeightFormat format, int outputs, int inputs) {
  if (format == WeightFormat::float32) return tableBytes(Element::float32, outputs, inputs);
  return Packed{nullptr, (outputs + 1) / 2, inputs, format}.bytes();
}

size_t gateUpBytes(WeightFormat format, int outputs, int inputs) {
  if (format == WeightFormat::float32) return 2 * tableBytes(Element::float32, outputs, inputs);
  return Packed{nullptr, outputs, inputs, format}.bytes();
}

size_t countOf(const std::vector<int64_t>& shape) {
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}

size_t angleBytes(const TransformerModel& m) {
  return static_cast<size_t>(maxPosition) * static_cast<size_t>(std::max(1, rotatedPairs(m))) * sizeof(float);
}

// ---- a session ------------------------------------------------------------------------------------------------

namespace {

// The most that two counts are together, each rounded up, which are so many together before.
int roundedParts(int count) {
  int most = 0;
  for (int first = 0; first <= count; first++) most = std::max(most, roundedCount(first) + roundedCount(count - first));
  return most;
}

// Tiles of attend() that any groups of a step can have: each group has at most one that is not full.
int maxTiles(const TransformerModel& m, const SessionOptions& o) {
  const int64_t shared = m.heads / m.kvHeads, streams = o.streams();
  const int64_t each = streams * (maxSplitQueries / tileQueries), all = streams + o.maxRows * shared / tileQueries;
  return static_cast<int>(std::min(each, all));
}

}  // namespace

WorkspaceLayout::WorkspaceLayout(const TransformerModel& m, Element element, const SessionOptions& o) {
  const size_t item = sizeOf(element), seats = static_cast<size_t>(o.seats),
               head = static_cast<size_t>(paddedHead(m.headSize));
  const int groupsEach = std::min(o.streams(), o.maxRows);
  maxRows = m.crossLayers > 0 ? roundedParts(o.maxRows) : roundedCount(o.maxRows);
  maxGroups = m.crossLayers > 0 ? 2 * roundedCount(groupsEach) : roundedCount(groupsEach);
  chunk = std::min((maxRows + 1) / 2 * 2, maxLogitRows);  // even: rows of logits come in pairs
  // A prediction has two rows of logits at most, and a pair does not go over the end of a chunk.
  maxGather = roundedCount(2 * o.maxRows + 2 * (2 * o.maxRows / chunk + 1));
  xStride = rowStride(m.dim);
  wideStride = rowStride(m.heads * m.headSize);
  ffStride = rowStride(m.feedForward);
  vocabularyStride = rowStride(m.vocabulary);
  cacheBytes =
      static_cast<size_t>(o.streams()) * static_cast<size_t>(m.kvHeads) * static_cast<size_t>(o.slots) * head * item;
  fusedNorm = element != Element::float32 && m.norm == NormKind::rms;
  const int tiles = maxTiles(m, o);
  counterBytes = attentionCounters(tiles, m.kvHeads) * 4;

  const auto ints = [](size_t bytes) { return static_cast<int>(bytes / sizeof(int32_t)); };
  const size_t rowBytes = static_cast<size_t>(maxRows) * sizeof(Row),
               groupBytes = static_cast<size_t>(maxGroups) * sizeof(StreamRows);
  const size_t drawingBytes = static_cast<size_t>(maxRows) * sizeof(Drawing),
               gatherBytes = static_cast<size_t>(maxGather) * 4;
  groupsAt = ints(rowBytes);
  drawingsAt = groupsAt + ints(groupBytes);
  gatherAt = drawingsAt + ints(drawingBytes);
  part = (std::max(gatherAt + ints(gatherBytes), roundedCount(o.seats) * passEntryInts) + 3) / 4 * 4 + partEndInts;
  const int planRows = maxPlanRows(o);
  planInts = (cuda::planInts(planRows, planRows, o.tokens) + 3) / 4 * 4;

  Layout layout;
  const size_t all = static_cast<size_t>(maxRows), some = static_cast<size_t>(chunk),
               list = seats * static_cast<size_t>(o.tokens) * 4;
  const size_t normedRow = static_cast<size_t>(xStride) * item,
               squaresRow = fusedNorm ? static_cast<size_t>(squaresStride(m.dim)) * 4 : 0;
  rows = layout.add(rowBytes);
  groups = layout.add(groupBytes);
  drawings = layout.add(drawingBytes);
  gather = layout.add(gatherBytes);
  counter = layout.add(4);
  nonFinite = layout.add(seats * 4);
  x = layout.add(all * static_cast<size_t>(xStride) * 4);
  normed = layout.add(all * normedRow);
  normedSquares = layout.add(all * squaresRow);
  queries = layout.add(all * static_cast<size_t>(m.heads) * head * item);
  attended = layout.add(all * static_cast<size_t>(wideStride) * item);
  gated = layout.add(all * static_cast<size_t>(ffStride) * item);
  logits = layout.add(some * static_cast<size_t>(vocabularyStride) * 4);
  gathered = layout.add(some * normedRow);
  gatheredSquares = layout.add(some * squaresRow);
  cache = layout.add(static_cast<size_t>(cacheCount(m)) * 2 * cacheBytes);
  partial = layout.add(element == Element::float32 ? 0 : attentionPartials(tiles, m.kvHeads, m.headSize, o.slots) * 4);
  counters = layout.add(counterBytes);
  classIds = layout.add(seats * 4);
  seeds = layout.add(seats * 8);
  tokens = layout.add(list);
  logProbs = layout.add(list);
  kept = layout.add(seats * static_cast<size_t>(o.kept) * static_cast<size_t>(m.vocabulary) * 4);
  plans = layout.add(seats * static_cast<size_t>(planInts) * 4);
  seatPasses = layout.add(seats * sizeof(SeatPass));
  read = layout.add(seats * static_cast<size_t>(maxSplitQueries) * 4);
  ahead = layout.add(static_cast<size_t>(part) * 4);
  bytes = layout.bytes();

  Layout host;
  host.add(static_cast<size_t>(depth) * static_cast<size_t>(part) * 4);
  flags = host.add(seats * sizeof(int));
  entries = host.add(seats * sizeof(SeatEntry));
  known = host.add(list);
  stagedPlans = host.add(seats * static_cast<size_t>(planInts) * 4);
  progress = host.add(seats * sizeof(uint64_t));
  hostBytes = host.bytes();
}

}  // namespace parvis::cuda

namespace parvis {

MemoryPlan planCuda(const TransformerModel& model, Precision precision, const SessionOptions* session) {
  struct Place {
    float *weight, *bias;
  };
  struct {
    struct Layer {
      Place attentionNorm, qkv, attentionOutput, feedForwardNorm, up, down;
    };
    std::vector<Layer> layers_;
    Place embeddingNorm_, sharedNorm_, sharedKeysValues_, finalNorm_;
    void *classes_, *tokens_, *specials_, *positions_, *head_;
  } nothing;
  const cuda::Element element = cuda::elementOf(precision);
  cuda::WeightBytes weights(precision);
  planTransformer(weights, nothing, model);
  return {weights.bytes() + 2 * cuda::angleBytes(model),
          session ? cuda::WorkspaceLayout(model, element, *session).bytes : 0};
}

}  // namespace parvis
