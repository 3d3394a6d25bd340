// A pass of several steps (common/passes.h) begins: the device looks at what the pass before has drawn, and puts the
// next one together from the plans of its sequences. So each sequence goes on from where it stands, and no pass waits
// for the host. A warp a sequence; nothing of a sequence is read or written by another warp.
#include "kernels.cuh"
#include "ring.cuh"

namespace parvis::cuda {

namespace {

constexpr int maxComposeThreads = 1024;

// Plans, tokens and states: what others have written.
__device__ inline int32_t fresh(const int32_t* p) { return ptx::loadFresh(p); }

__device__ inline float floatOf(int32_t bits) { return __uint_as_float(static_cast<uint32_t>(bits)); }

struct Plan {
  int32_t steps, streams;
  SamplingRule rule;
  const int32_t *rows, *queries, *notBefore;
  const int32_t* guesses;  // null: there are none
  const DeviceRow* table;
  __device__ const int32_t* row(int i) const { return reinterpret_cast<const int32_t*>(table + i); }
};

__device__ Plan planOf(const PassTables& t, int seat) {
  const int32_t* const at = t.plans + seat * t.planStride;
  Plan plan;
  plan.steps = fresh(at), plan.streams = fresh(at + 1);
  const int guesses = fresh(at + 2);
  plan.rule = {static_cast<Mode>(fresh(at + 4)), floatOf(fresh(at + 5)), fresh(at + 6), floatOf(fresh(at + 7))};
  plan.rows = at + 8;
  plan.queries = plan.rows + plan.steps + 1;
  plan.notBefore = plan.queries + plan.steps + 1;
  plan.guesses = guesses > 0 ? plan.notBefore + plan.steps : nullptr;
  plan.table = reinterpret_cast<const DeviceRow*>(plan.notBefore + plan.steps + guesses);
  return plan;
}

// Where the fields of a row of a plan lie, in ints.
constexpr int tokenAt = offsetof(PlannedRow, token) / 4, slotAt = offsetof(PlannedRow, slot) / 4,
              stepAt = offsetof(DeviceRow, step) / 4, queriesAt = offsetof(DeviceRow, queries) / 4,
              guidanceAt = offsetof(DeviceRow, guidance) / 4;
static_assert(offsetof(DeviceRow, row) == 0 && offsetof(PlannedRow, input) == offsetof(Row, input) &&
              offsetof(PlannedRow, sees) == offsetof(Row, sees));

__device__ inline int leastOfLanes(int v) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) v = min(v, __shfl_xor_sync(fullWarp, v, bits));
  return v;
}

// Steps that are done, by what the pass before has drawn. All lanes of a warp.
__device__ int doneBy(const PassTables& t, int seat, const Plan& plan, int lane) {
  const int base = fresh(&t.seats[seat].base), end = fresh(&t.seats[seat].end);
  if (end <= base) return base;
  const int first = fresh(plan.rows + base), last = fresh(plan.rows + end - 1);  // tokens of its last step nobody read
  const int32_t* const read = t.read + static_cast<ptrdiff_t>(seat) * maxSplitQueries;
  const int32_t* const tokens = t.tokens + static_cast<ptrdiff_t>(seat) * t.tokensEach;
  constexpr int none = 0x7fffffff;
  int wrong = none;  // the first row that drew another token than was read
  for (int i = first + lane; i < last; i += 32) {
    const int32_t token = fresh(plan.row(i) + tokenAt);
    if (token >= 0 && fresh(tokens + token) != fresh(read + i - first)) wrong = min(wrong, i);
  }
  wrong = leastOfLanes(wrong);
  return wrong == none ? end : fresh(plan.row(wrong) + stepAt) + 1;
}

__device__ inline void tell(const PassTables& t, int seat, uint32_t passes, int done) {
  *static_cast<volatile uint64_t*>(t.progress + seat) =
      static_cast<uint64_t>(passes) << 32 | static_cast<uint32_t>(done);
}

// The end of a pass that begins at step `base`: as the host decides it (Passes::compose), within the places it has.
__device__ int endOf(const PassTables& t, const PassEntry& e, const Plan& plan, int base, int lane) {
  if (base >= plan.steps) return base;
  const int first = fresh(plan.rows + base), firstQuery = fresh(plan.queries + base);
  int end = base + 1;
  for (;;) {  // 32 steps at a time
    const int step = end + lane;
    bool fits = step < plan.steps && step < base + e.steps;
    if (fits) {
      const int rows = fresh(plan.rows + step + 1) - first, queries = fresh(plan.queries + step + 1) - firstQuery;
      fits = rows <= t.maxTogether && rows - queries <= e.places[0] && queries <= e.places[1] &&
             fresh(plan.notBefore + step) <= base;
    }
    const uint32_t misfits = ~__ballot_sync(fullWarp, fits);
    if (misfits != 0) return end + __ffs(static_cast<int>(misfits)) - 1;
    end += 32;
  }
}

// The first guess of a token that was never drawn: what its neighbour is, or what that one is guessed to be.
__device__ int32_t guessOf(const PassTables& t, const Plan& plan, const int32_t* tokens, int32_t token) {
  for (int hops = 0; plan.guesses && hops < t.tokensEach; hops++) {
    token = fresh(plan.guesses + token);
    if (token < 0) break;
    const int32_t value = fresh(tokens + token);
    if (value >= 0) return value < t.vocabulary ? value : 0;
  }
  return 0;
}

// Tokens that later steps of the pass read become what is guessed of them, and are kept to be compared with.
__device__ void guess(const PassTables& t, int seat, const Plan& plan, int base, int end, int lane) {
  if (end - base < 2) return;
  const int first = fresh(plan.rows + base), last = fresh(plan.rows + end - 1);
  int32_t* const tokens = t.tokens + static_cast<ptrdiff_t>(seat) * t.tokensEach;
  int32_t* const read = t.read + static_cast<ptrdiff_t>(seat) * maxSplitQueries;
  constexpr int each = maxSplitQueries / 32;
  int32_t token[each], value[each];
  bool isNew[each];
#pragma unroll
  for (int k = 0; k < each; k++) {
    const int i = first + lane + 32 * k;
    token[k] = i < last ? fresh(plan.row(i) + tokenAt) : -1;
    value[k] = token[k] < 0 ? -1 : fresh(tokens + token[k]);
    isNew[k] = token[k] >= 0 && value[k] < 0;
    if (isNew[k]) value[k] = guessOf(t, plan, tokens, token[k]);
  }
  __syncwarp();  // all have read before one writes
#pragma unroll
  for (int k = 0; k < each; k++) {
    const int i = first + lane + 32 * k;
    if (i < last) read[i - first] = value[k];
    if (isNew[k]) tokens[token[k]] = value[k];
  }
}

// The tables of one sequence: rows [first, last) of its plan.
__device__ void writeRows(const ComposePass& c, const PassEntry& e, const Plan& plan, int base, int end, int lane) {
  const int first = fresh(plan.rows + base), last = fresh(plan.rows + end), firstQuery = fresh(plan.queries + base);
  const int predicting = c.crosses ? 1 : 0;
  for (int i = first + lane; i < last; i += 32) {
    const int32_t* const from = plan.row(i);
    const int32_t slot = fresh(from + slotAt), token = fresh(from + tokenAt);
    const int queries = fresh(from + queriesAt) - firstQuery, kind = c.crosses && slot < 0 ? 1 : 0;
    const int place = kind == 1 ? queries : i - first - queries;
    for (int k = 0; k < plan.streams; k++) {
      Row row;
      int32_t* const fields = reinterpret_cast<int32_t*>(&row);
      fields[0] = e.seat * c.streamsEach + k;
#pragma unroll
      for (int field = 1; field < 8; field++)
        fields[field] = fresh(from + field);  // the fields of a planned row, but for its token
      c.rows[(kind == 1 ? c.layerRows : 0) + e.first[kind][k] + place] = row;
    }
    if (token < 0 || kind != predicting) continue;
    const int32_t rowOf = e.first[kind][0] + place, guidedBy = e.first[kind][1] + place;
    const bool guided = plan.streams == 2;
    const int32_t logits = e.logits + plan.streams * place;
    const bool every = c.gatherCount == 0;
    c.drawings[e.drawing + place] = {e.seat,
                                     token,
                                     every ? rowOf : logits,
                                     !guided ? -1
                                     : every ? guidedBy
                                             : logits + 1,
                                     -1,
                                     floatOf(fresh(from + guidanceAt)),
                                     plan.rule};
    if (every) continue;
    c.gather[logits] = rowOf;
    if (guided) c.gather[logits + 1] = guidedBy;
  }
  if (lane >= 2 * plan.streams) return;
  const int kind = lane % 2, k = lane / 2, queries = fresh(plan.queries + end) - firstQuery;
  if (e.places[kind] == 0) return;
  const int count = kind == 1 ? queries : last - first - queries;
  c.groups[(kind == 1 ? c.layerGroups : 0) + e.group[kind][k]] = {e.seat * c.streamsEach + k, e.first[kind][k], count,
                                                                  e.tile[kind][k]};
}

// shared: where the warp has its entry, whose fields are indexed
__device__ void compose(const ComposePass& c, const volatile int32_t* entry, PassEntry* shared, int lane) {
  __syncwarp();  // the entry before is done with
  if (lane < passEntryInts) reinterpret_cast<int32_t*>(shared)[lane] = entry[lane];
  __syncwarp();
  const PassEntry& e = *shared;
  if (e.seat < 0) return;
  const PassTables& t = c.tables;
  const Plan plan = planOf(t, e.seat);
  const int base = e.base >= 0 ? e.base : doneBy(t, e.seat, plan, lane), end = endOf(t, e, plan, base, lane);
  __syncwarp();  // all have read what is written now
  guess(t, e.seat, plan, base, end, lane);
  if (end > base) writeRows(c, e, plan, base, end, lane);
  if (lane == 0) {
    SeatPass& seat = t.seats[e.seat];
    const uint32_t passes = ptx::loadFresh(&seat.passes);
    tell(t, e.seat, passes, base);
    seat = {base, end, passes + 1};
  }
}

template <class T>
__device__ inline void fillWith(T* to, int count, const T& value) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) to[i] = value;
}

__global__ void __launch_bounds__(maxComposeThreads) composePassKernel(const __grid_constant__ ComposePass c) {
  ptx::dependencyWait();
  ptx::releaseDependents();  // as takeStep does
  PARVIS_SHARED(uint32_t, found, 2);
  PARVIS_SHARED(PassEntry, entries, maxComposeThreads / 32);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  fillWith(c.rows, c.layerRows + c.crossRows, Row{0, classInput, -1, {-1, -1, -1}, -1, 0});
  fillWith(c.groups, c.layerGroups + c.crossGroups, StreamRows{0, 0, 0, 0});
  fillWith(c.drawings, c.drawingCount, Drawing{0, -1, 0, -1, -1, 1, {Mode::sample, 1, 0, 1}});
  fillWith(c.gather, c.gatherCount, 0);
  const PartOfStep part = partOfStep(c.ring, found);
  for (int i = thread / 32; i < c.parts; i += threads / 32)
    compose(c, part.ints + i * passEntryInts, entries + thread / 32, thread % 32);
  for (int seat = thread; seat < c.seatCount; seat += threads) c.flags[seat] = ptx::loadFresh(c.nonFinite + seat);
  if (thread == 0) *c.ring.counter = part.step + 1;
}

__global__ void settlePassKernel(const __grid_constant__ PassTables t, int seat) {
  const int lane = static_cast<int>(threadIdx.x);
  const int done = doneBy(t, seat, planOf(t, seat), lane);
  __syncwarp();
  if (lane > 0) return;
  const uint32_t passes = ptx::loadFresh(&t.seats[seat].passes);
  t.seats[seat] = {done, done, passes};
  tell(t, seat, passes, done);
}

bool valid(const PassTables& t) {
  return t.maxTogether >= 1 && t.maxTogether <= maxSplitQueries && t.planStride >= planInts(0, 0, 0);
}

}  // namespace

cudaError_t composePass(const ComposePass& c, StepStream stream) {
  if (!valid(c.tables) || !valid(c.ring) || c.parts < 1 || c.parts * passEntryInts > c.ring.stride - partEndInts ||
      c.layerRows < 0 || c.crossRows < 0 || c.layerRows + c.crossRows < 1)
    return cudaErrorInvalidValue;
  const int most = c.layerRows + c.crossRows;
  return launchInStep(composePassKernel, 1u, c.parts > 8 || most > 512 ? unsigned{maxComposeThreads} : 256u, 0, stream,
                      c);
}

cudaError_t settlePass(const PassTables& t, int seat, cudaStream_t stream) {
  if (!valid(t) || seat < 0) return cudaErrorInvalidValue;
  return launch(settlePassKernel, 1u, 32u, 0, stream, t, seat);
}

}  // namespace parvis::cuda
