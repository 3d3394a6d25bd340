// Copies from global to shared memory that arrive later, and the barriers in shared memory that some of them report to.
// How late they arrive the SIMT layer decides. A barrier's 8 bytes are its own business; here they hold how many
// arrivals a phase needs and how many it misses, the bytes under way, and the parity of the phase.
#include "guarded.h"
#include "program.h"

namespace ptx {
namespace {

const Instruction* copy(const Instruction* i, Slot* r, Thread& t) {
  const uint64_t from = r[i->b];
  const uint32_t valid = get<uint32_t>(r, i->c);
  if (from % 16 != 0) fail(i, t, "cp.async: misaligned global address");
  if (valid > 16) fail(i, t, "cp.async: more bytes to read than to write");
  uint8_t* to = sharedAt(i, t, static_cast<uint32_t>(r[i->a] + static_cast<uint64_t>(i->value)), 16);
  now = {i, &t};
  simt::asyncCopy(to, reinterpret_cast<const void*>(from), 16, static_cast<int>(valid));
  return i + 1;
}
const Instruction* commit(const Instruction* i, Slot*, Thread&) {
  simt::asyncCommit();
  return i + 1;
}
const Instruction* waitGroup(const Instruction* i, Slot*, Thread& t) {
  now = {i, &t};
  simt::asyncWait(static_cast<int>(i->value));
  return i + 1;
}

// ---- barriers -----------------------------------------------------------------------------------------------

struct Barrier {
  uint16_t needs, missing;
  uint32_t parity : 1;
  int32_t bytes : 31;
  void complete() {
    if (missing > 0 || bytes != 0) return;
    missing = needs;
    parity ^= 1;
  }
};
static_assert(sizeof(Barrier) == 8);

Barrier* barrier(const Instruction* i, const Slot* r, const Thread& t) {
  return reinterpret_cast<Barrier*>(
      sharedAt(i, t, static_cast<uint32_t>(r[i->a] + static_cast<uint64_t>(i->value)), 8));
}
void arriveAt(Barrier* b, int32_t bytes, const Instruction* i, const Thread& t) {
  if (b->missing == 0) fail(i, t, "one arrival at a barrier more than it was made for");
  b->bytes += bytes;
  b->missing--;
  b->complete();
}
const Instruction* make(const Instruction* i, Slot* r, Thread& t) {
  const uint32_t arrivals = get<uint32_t>(r, i->b);
  if (arrivals == 0 || arrivals > 0xffff) fail(i, t, "a barrier for " + std::to_string(arrivals) + " arrivals");
  *barrier(i, r, t) = {static_cast<uint16_t>(arrivals), static_cast<uint16_t>(arrivals), 0, 0};
  return i + 1;
}
const Instruction* arrive(const Instruction* i, Slot* r, Thread& t) {
  arriveAt(barrier(i, r, t), 0, i, t);
  r[i->d] = 0;  // the state: opaque, and nobody here takes it
  return i + 1;
}
const Instruction* arriveExpect(const Instruction* i, Slot* r, Thread& t) {
  arriveAt(barrier(i, r, t), static_cast<int32_t>(get<uint32_t>(r, i->b)), i, t);
  r[i->d] = 0;
  return i + 1;
}
// A test that comes as late as it may: when the phase is over.
const Instruction* testParity(const Instruction* i, Slot* r, Thread& t) {
  const Barrier* b = barrier(i, r, t);
  const uint32_t parity = get<uint32_t>(r, i->b) & 1;
  simt::waitUntil(
      "mbarrier wait", [=] { return b->parity != parity; }, where(i, t));
  r[i->d] = 1;
  return i + 1;
}
const Instruction* bulk(const Instruction* i, Slot* r, Thread& t) {
  const uint64_t from = r[i->b];
  const uint32_t bytes = get<uint32_t>(r, i->c);
  if (from % 16 != 0 || bytes % 16 != 0) fail(i, t, "cp.async.bulk: address or size is not a multiple of 16 bytes");
  const uint32_t to = static_cast<uint32_t>(r[i->a] + static_cast<uint64_t>(i->value));
  if (bytes > 0) sharedAt(i, t, to + bytes - 16, 16);
  uint8_t* const target = sharedAt(i, t, to, 16);
  Barrier* const b = reinterpret_cast<Barrier*>(sharedAt(i, t, get<uint32_t>(r, i->more[0]), 8));
  simt::deliverLate([=] {
    for (uint32_t at = 0; at < bytes; at += 16) {
      const Sixteen part = readGlobal<Sixteen>(reinterpret_cast<const void*>(from + at));
      std::memcpy(target + at, &part, 16);
    }
    b->bytes -= static_cast<int32_t>(bytes);
    b->complete();
  });
  return i + 1;
}

const Instruction* prefetch(const Instruction* i, Slot* r, Thread& t) {
  const uint64_t from = r[i->a] + static_cast<uint64_t>(i->value);
  const uint32_t bytes = get<uint32_t>(r, i->b);
  if (from % 16 != 0 || bytes % 16 != 0 || bytes == 0 || bytes >= 1u << 31)
    fail(i, t, "cp.async.bulk.prefetch: address or size is not a multiple of 16 bytes");
  now = {i, &t};
  for (uint32_t at = 0; at < bytes; at += 16) (void)readGlobal<Sixteen>(reinterpret_cast<const void*>(from + at));
  return i + 1;
}

}  // namespace

void addCopies(Forms& f) {
  f.add("cp.async.cg.shared.global", copy, "mnsc", Touch::load);
  f.add("cp.async.commit_group", commit, "");
  f.add("cp.async.wait_group", waitGroup, "i");
  f.add("mbarrier.init.shared.b64", make, "mb");
  f.add("mbarrier.arrive.shared.b64", arrive, "dm");
  f.add("mbarrier.arrive.expect_tx.shared.b64", arriveExpect, "dmb");
  f.add("mbarrier.test_wait.parity.shared.b64", testParity, "dmb");
  f.add("mbarrier.try_wait.parity.shared.b64", testParity, "dmb");
  f.add("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes", bulk, "mncw", Touch::load);
  f.add("cp.async.bulk.prefetch.L2.global", prefetch, "mb", Touch::load);
}

}  // namespace ptx
