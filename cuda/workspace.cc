#include "workspace.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "loader.h"

namespace parvis::cuda {

// ---- memory -------------------------------------------------------------------------------------------------

bool Workspace::fits(const SessionOptions& o) const {
  return options.seats == o.seats && options.streamsEach == o.streamsEach && options.slots == o.slots &&
         options.tokens == o.tokens && options.maxRows == o.maxRows && options.kept == o.kept;
}

Status Workspace::allocate(const TransformerModel& m, Element element) {
  const bool one = options.seats == 1;
  const Purpose purpose{
      "The KV cache and activations of " + std::to_string(options.seats) + (one ? " image" : " images"),
      one ? modelCure(element) : "Free memory of the device, or ask for fewer images at a time."};
  // Kernels count slots of all heads of a layer with 31 bits.
  if (static_cast<int64_t>(options.streams()) * m.kvHeads * options.slots > int64_t{1} << 31)
    return {Code::outOfMemory, purpose.what + " do not fit in any device. " + purpose.cure};
  layout = WorkspaceLayout(m, element, options);
  if (Status s = DeviceMemory::allocate(device_, layout.bytes, purpose, memory_); !s.ok()) return s;
  if (Status s = HostMemory::allocate(layout.hostBytes, host_); !s.ok()) return s;
  const auto place = [&](auto*& to, size_t at) {
    to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(memory_.data() + at);
  };
  const auto placeNormed = [&](NormedRows& to, size_t elements, size_t squares) {
    to.stride = layout.xStride;
    place(to.elements, elements);
    if (layout.fusedNorm) place(to.squares, squares);
  };
  place(rows, layout.rows);
  place(groups, layout.groups);
  place(drawings, layout.drawings);
  place(gather, layout.gather);
  place(ring.counter, layout.counter);
  place(nonFinite, layout.nonFinite);
  place(x, layout.x);
  placeNormed(normed, layout.normed, layout.normedSquares);
  place(queries, layout.queries);
  place(attended, layout.attended);
  place(gated, layout.gated);
  place(logits, layout.logits);
  placeNormed(gathered, layout.gathered, layout.gatheredSquares);
  place(cache, layout.cache);
  place(partial, layout.partial);
  place(counters, layout.counters);
  place(classIds, layout.classIds);
  place(seeds, layout.seeds);
  place(tokens, layout.tokens);
  place(logProbs, layout.logProbs);
  place(kept, layout.kept);
  place(plans, layout.plans);
  place(seatPasses, layout.seatPasses);
  place(read, layout.read);
  parts_ = reinterpret_cast<int32_t*>(host_.data());
  ring.parts = parts_, ring.depth = depth, ring.stride = layout.part;
  if (device_->tuning().rowsAhead) place(ring.ahead, layout.ahead);
  flags = reinterpret_cast<int*>(host_.data() + layout.flags);
  entries = reinterpret_cast<SeatEntry*>(host_.data() + layout.entries);
  known = reinterpret_cast<int32_t*>(host_.data() + layout.known);
  entered.resize(static_cast<size_t>(options.seats));
  stagedPlans_ = reinterpret_cast<int32_t*>(host_.data() + layout.stagedPlans);
  staged_.resize(static_cast<size_t>(options.seats));
  progress = reinterpret_cast<uint64_t*>(host_.data() + layout.progress);
  return {};
}

Status Workspace::reset() {
  const cudaStream_t stream = device_->stream();
  // Nothing runs: a workspace that is kept has been waited for.
  for (int i = 0; i < options.seats; i++) {
    flags[i] = 0;
    progress[i] = 0;
  }
  for (uint32_t i = 0; i < static_cast<uint32_t>(depth); i++) const_cast<PartEnd*>(ring.endOf(ring.part(i)))->step = 0;
  cudaError_t e = cudaMemsetAsync(ring.counter, 0, 4, stream);
  if (e == cudaSuccess && ring.ahead)
    e = cudaMemsetAsync(const_cast<PartEnd*>(ring.endOf(ring.ahead)), 0, sizeof(PartEnd), stream);
  if (e == cudaSuccess) e = cudaMemsetAsync(nonFinite, 0, static_cast<size_t>(options.seats) * 4, stream);
  if (e == cudaSuccess) e = cudaMemsetAsync(counters, 0, layout.counterBytes, stream);
  if (e == cudaSuccess)
    e = cudaMemsetAsync(seatPasses, 0, static_cast<size_t>(options.seats) * sizeof(SeatPass), stream);
  return statusOf(e, "preparing a session");
}

Workspace::~Workspace() {
  if (!memory_.data()) return;
  cudaSetDevice(device_->index());
  if (!idle) (void)device_->finish("ending a session");
  for (Captured& c : captured_)
    if (c.graph) cudaGraphExecDestroy(c.graph);
  memory_.freeIdle();
}

// ---- steps --------------------------------------------------------------------------------------------------

// Rows [begin, end) of the step and their groups, padding included.
StepPlan::Part Workspace::writePart(const Step& step, int begin, int end, int shared, Row* toRows,
                                    StreamRows* toGroups) {
  StepPlan::Part part;
  part.rows = roundedCount(end - begin);
  std::copy(step.rows + begin, step.rows + end, toRows);
  std::fill(toRows + end - begin, toRows + part.rows, Row{0, classInput, -1, {-1, -1, -1}, -1, 0});

  groupsOf(step, begin, end, found_);
  part.groups = roundedCount(static_cast<int>(found_.size()));
  int tile = 0, small = 0, large = 0;
  for (size_t i = 0; i < found_.size(); i++) {
    const int queries = found_[i].count * shared;
    toGroups[i] = {found_[i].stream, found_[i].first, found_[i].count, tile};
    (queries > maxSplitQueries ? large : small) = std::max(queries > maxSplitQueries ? large : small, queries);
    if (queries <= maxSplitQueries) tile += (queries + tileQueries - 1) / tileQueries;
  }
  std::fill(toGroups + found_.size(), toGroups + part.groups, StreamRows{0, 0, 0, 0});
  part.maxSmall = (small + tileQueries - 1) / tileQueries * tileQueries;
  part.maxLarge = roundedCount(large);
  return part;
}

StepPlan Workspace::write(const Step& step, const TransformerModel& m, WeightFormat head, const Seats& seats,
                          uint32_t index) {
  int32_t* const part = parts_ + static_cast<ptrdiff_t>(index % depth) * layout.part;
  const int shared = m.heads / m.kvHeads, inLayers = layerRows(m, step);
  Row* const toRows = reinterpret_cast<Row*>(part);
  StreamRows* const toGroups = reinterpret_cast<StreamRows*>(part + layout.groupsAt);
  StepPlan plan;
  plan.layers = writePart(step, 0, inLayers, shared, toRows, toGroups);
  plan.crossLayers =
      writePart(step, inLayers, step.rowCount, shared, toRows + plan.layers.rows, toGroups + plan.layers.groups);
  // Rows that predict are counted from the first one that can.
  const int firstPredicting = m.crossLayers > 0 ? inLayers : 0;
  const StepPlan::Part& predicting = m.crossLayers > 0 ? plan.crossLayers : plan.layers;

  // Rows whose logits are needed, layout.chunk by layout.chunk.
  int32_t* const toGather = part + layout.gatherAt;
  Drawing* const toDrawings = reinterpret_cast<Drawing*>(part + layout.drawingsAt);
  int wanted = 0;
  for (int i = 0; i < step.predictionCount; i++) {
    const Prediction& p = step.predictions[i];
    const bool guided = p.unconditional >= 0 && p.guidance != 1.0f;
    if (guided && wanted % layout.chunk == layout.chunk - 1) toGather[wanted++] = 0;
    toDrawings[i] = {seats.seatOf(step.rows[p.row].stream),
                     p.token,
                     wanted,
                     guided ? wanted + 1 : -1,
                     p.kept,
                     p.guidance,
                     step.rules[p.rule]};
    toGather[wanted++] = p.row - firstPredicting;
    if (guided) toGather[wanted++] = p.unconditional - firstPredicting;
    const Mode mode = step.rules[p.rule].mode;
    (mode == Mode::sample ? plan.sampled : mode == Mode::gumbel ? plan.raced : plan.scored) = true;
  }
  plan.predictions = roundedCount(step.predictionCount);
  std::fill(toDrawings + step.predictionCount, toDrawings + plan.predictions,
            Drawing{0, -1, 0, -1, -1, 1, {Mode::sample, 1, 0, 1}});
  plan.logitRows = roundedCount(wanted);
  std::fill(toGather + wanted, toGather + plan.logitRows, 0);
  // Logits of all rows cost next to nothing where the stream of weights decides, and nothing where all are wanted.
  const bool every =
      predicting.rows <= layout.chunk && (predicting.rows <= maxSkinnyRows(head) || plan.logitRows >= predicting.rows);
  if (every) {
    plan.logitRows = 0;
    for (int i = 0; i < step.predictionCount; i++) {
      const Prediction& p = step.predictions[i];
      toDrawings[i].conditional = p.row - firstPredicting;
      if (toDrawings[i].unconditional >= 0) toDrawings[i].unconditional = p.unconditional - firstPredicting;
    }
  }
  const TakeStep taken = taking(plan);
  mayTake(index, {taken.tables[0].from, taken.tables[1].from, taken.tables[2].from, taken.tables[3].from},
          {taken.tables[0].count, taken.tables[1].count, taken.tables[2].count, taken.tables[3].count});
  return plan;
}

void Workspace::mayTake(uint32_t index, const int (&from)[4], const int (&count)[4]) {
  PartEnd& end = *const_cast<PartEnd*>(ring.endOf(ring.part(index)));
  int all = 0;
  for (int i = 0; i < 4; i++) end.from[i] = from[i], end.count[i] = count[i], all += count[i];
  std::atomic_thread_fence(std::memory_order_release);  // the device that finds the step's number finds the rest
  *const_cast<volatile uint32_t*>(&end.step) = all <= maxAheadInts ? index + 1 : 0;
}

void Workspace::write(const std::vector<PassEntry>& entries, uint32_t index) {
  int32_t* const part = parts_ + static_cast<ptrdiff_t>(index % depth) * layout.part;
  std::copy(entries.begin(), entries.end(), reinterpret_cast<PassEntry*>(part));
  mayTake(index, {}, {static_cast<int>(entries.size()) * passEntryInts, 0, 0, 0});
}

Status Workspace::stage(int seat, const Passes& passes) {
  const PlannedSequence& p = passes.planned(seat);
  Event& event = staged_[static_cast<size_t>(seat)];
  if (Status s = event.wait("preparing a session"); !s.ok()) return s;
  const ptrdiff_t place = static_cast<ptrdiff_t>(seat) * layout.planInts;
  const SequencePlan& plan = p.plan;
  int32_t* const begin = stagedPlans_ + place;
  *reinterpret_cast<PlanHeader*>(begin) = {p.steps(), p.streams(), static_cast<int32_t>(plan.guesses.size()), 0,
                                           plan.rule};
  int32_t* to = begin + sizeof(PlanHeader) / sizeof(int32_t);
  *to++ = 0;
  to = std::copy(plan.ends.begin(), plan.ends.end(), to);
  to = std::copy(p.queries.begin(), p.queries.end(), to);
  to = std::copy(p.notBefore.begin(), p.notBefore.end(), to);
  to = std::copy(plan.guesses.begin(), plan.guesses.end(), to);
  DeviceRow* rows = reinterpret_cast<DeviceRow*>(to);
  int32_t queries = 0;
  for (int step = 0; step < p.steps(); step++)
    for (int i = p.rowsUpTo(step); i < p.rowsUpTo(step + 1); i++) {
      const PlannedRow& row = plan.rows[static_cast<size_t>(i)];
      *rows++ = {row, step, queries, plan.guidanceOf(static_cast<size_t>(i)), 0};
      queries += passes.isQuery(row) ? 1 : 0;
    }
  const size_t bytes = static_cast<size_t>(reinterpret_cast<uint8_t*>(rows) - reinterpret_cast<uint8_t*>(begin));
  const cudaStream_t stream = device_->stream();
  if (Status s =
          statusOf(cudaMemcpyAsync(plans + place, begin, bytes, cudaMemcpyHostToDevice, stream), "preparing a session");
      !s.ok())
    return s;
  return event.record(stream);
}

PassTables Workspace::passTables(const TransformerModel& m) const {
  return {plans,
          layout.planInts,
          seatPasses,
          read,
          tokens,
          options.tokens,
          m.vocabulary,
          maxGuessingRows(m),
          const_cast<uint64_t*>(progress)};
}

ComposePass Workspace::composing(const StepPlan& plan, const TransformerModel& m) const {
  return {ring,
          plan.composed,
          rows,
          plan.layers.rows,
          plan.crossLayers.rows,
          groups,
          plan.layers.groups,
          plan.crossLayers.groups,
          drawings,
          plan.predictions,
          gather,
          plan.logitRows,
          m.crossLayers > 0,
          options.streamsEach,
          passTables(m),
          nonFinite,
          const_cast<int*>(flags),
          options.seats};
}

TakeStep Workspace::taking(const StepPlan& plan) const {
  const auto table = [](auto* to, int at, int count) {
    return TakeStep::Table{reinterpret_cast<int32_t*>(to), at, count * static_cast<int>(sizeof(*to) / sizeof(int32_t))};
  };
  return {ring,
          {table(rows, 0, plan.layers.rows + plan.crossLayers.rows),
           table(groups, layout.groupsAt, plan.layers.groups + plan.crossLayers.groups),
           table(drawings, layout.drawingsAt, plan.predictions), table(gather, layout.gatherAt, plan.logitRows)},
          nonFinite,
          const_cast<int*>(flags),
          options.seats};
}

Status Workspace::find(const StepPlan& plan, Captured*& out) {
  const auto known =
      std::find_if(captured_.begin(), captured_.end(), [&](const Captured& c) { return c.plan == plan; });
  if (known != captured_.end()) {
    std::rotate(known, known + 1, captured_.end());
  } else {
    if (captured_.size() == maxPlans) {
      // A graph may still run.
      if (Status s = device_->finish("preparing a step"); !s.ok()) return s;
      if (captured_.front().graph) cudaGraphExecDestroy(captured_.front().graph);
      captured_.pop_front();
    }
    captured_.push_back({plan, 0, nullptr});
  }
  out = &captured_.back();
  return {};
}

}  // namespace parvis::cuda
