// Asynchronous copies, shared memory with poisoned borders, and the sanitizer's reports in terms of kernels.
#include <algorithm>
#include <cstdio>
#include <utility>

#include "state.h"

namespace simt {

// ---- copies -------------------------------------------------------------------------------------------------

void deliverLate(std::function<void()> copy) {
  if (random() % 4 == 0) copy();
  else s.late.push_back(std::move(copy));
}

static void perform(void* to, const void* from, int bytes, int valid) {
  std::memcpy(to, from, static_cast<size_t>(valid));
  std::memset(static_cast<uint8_t*>(to) + valid, 0, static_cast<size_t>(bytes - valid));
}
void asyncCopy(void* to, const void* from, int bytes, int valid) {
  if (random() % 4 == 0) return perform(to, from, bytes, valid);
  std::memset(to, 0xff, static_cast<size_t>(bytes));  // neither the old nor the new
  s.now->copies.all.push_back({to, from, bytes, valid});
}
void asyncCommit() { s.now->copies.ends.push_back(s.now->copies.all.size()); }
void asyncWait(int groupsLeft) {
  Copies& c = s.now->copies;
  for (; c.groups + static_cast<size_t>(groupsLeft) < c.ends.size(); c.groups++)
    for (; c.arrived < c.ends[c.groups]; c.arrived++) {
      const auto& [to, from, bytes, valid] = c.all[c.arrived];
      perform(to, from, bytes, valid);
    }
  if (c.arrived == c.all.size()) c.clear();
}

// ---- shared memory ------------------------------------------------------------------------------------------

uint8_t* addArray(Block* b, const void* site, const char* name, size_t bytes, size_t align) {
  b->memory.emplace_back(new uint8_t[bytes + 2 * guard + align]);
  uint8_t* whole = b->memory.back().get();
  uint8_t* data = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(whole) + guard + align - 1) / align * align);
  std::memset(data, random() % 4 == 0 ? 0 : 0xff, bytes);  // NaN, -1, true; or 0
  __asan_poison_memory_region(whole, static_cast<size_t>(data - whole));
  __asan_poison_memory_region(data + bytes, static_cast<size_t>(whole + bytes + 2 * guard + align - (data + bytes)));
  b->arrays.push_back({site, name, data, bytes});
  b->sharedBytes += (bytes + align - 1) / align * align;
  return data;
}

void* sharedArray(const void* site, const char* name, size_t bytes, size_t align) {
  Block* b = s.now->block;
  for (const Array& a : b->arrays)
    if (a.site == site) return a.data;
  uint8_t* data = addArray(b, site, name, bytes, std::max<size_t>(align, 16));
  // platform.cuh asks for more than 48 KB by the dynamic part alone.
  const size_t limit = s.launch->sharedBytes > askedShared ? s.launch->sharedLimit : unaskedShared;
  if (b->sharedBytes > limit)
    fail(std::to_string(b->sharedBytes) + " bytes of shared memory, and a block of this device may have " +
             std::to_string(limit) + (limit < s.launch->sharedLimit ? " without asking" : ""),
         Where::current(), cudaErrorInvalidValue);
  return data;
}
uint8_t* dynamicShared() { return s.now->block->dynamic; }
bool isShared(const void* p) {
  const uint8_t* q = static_cast<const uint8_t*>(p);
  for (const Array& a : s.now->block->arrays)
    if (q >= a.data && q < a.data + a.bytes) return true;
  return false;
}

void* sharedOf(const void* p, unsigned rank, Where where) {
  const Block* const mine = s.now->block;
  const Launch& l = *s.launch;
  const ptrdiff_t offset = static_cast<const uint8_t*>(p) - mine->dynamic;
  if (offset < 0 || static_cast<size_t>(offset) >= l.sharedBytes)
    fail("mapa: address is not in the block's dynamic shared memory", where);
  if (rank >= l.cluster) fail("mapa: rank " + std::to_string(rank) + " is not in the cluster", where);
  const uint64_t of = mine->index.x / l.cluster * l.cluster + rank,
                 index = of + l.grid.x * (mine->index.y + uint64_t{l.grid.y} * mine->index.z);
  const Block* const other = s.blocks[index].get();
  if (!other || other->alive == 0)
    fail("the block of rank " + std::to_string(rank) + " has ended, and its shared memory is read", where);
  return other->dynamic + offset;
}

}  // namespace simt

// ---- the sanitizer's reports name the thread ----------------------------------------------------------------

// A launch that failed gives up its fibers and what they held.
extern "C" const char* __asan_default_options() { return "detect_leaks=0"; }

// Which thread of which kernel it was, or that the host was where it must not be.
static void describe() {
  using namespace simt;
  static bool done = false;
  if (std::exchange(done, true)) return;
  const uint8_t* p = static_cast<const uint8_t*>(__asan_get_report_address());
  const int device = p ? deviceOf(p) : -1;
  const bool host = !s.launch || s.runner != std::this_thread::get_id();
  if (device >= 0)
    std::fprintf(stderr, "simt: %s touches memory of device %d\n", host ? "the host" : "a kernel", device);
  if (host) return;
  std::fprintf(stderr, "simt: %s: invalid access\n", whereabouts().c_str());
  if (!s.now) return;
  for (const Array& a : s.now->block->arrays)
    if (p >= a.data - guard && p < a.data + a.bytes + guard) {
      const bool before = p < a.data;
      const size_t by = static_cast<size_t>(before ? a.data - p : p - a.data - static_cast<ptrdiff_t>(a.bytes));
      std::fprintf(stderr, "simt: %zu bytes %s %s (%zu bytes), shared memory of the block\n", by,
                   before ? "before" : "past the end of", a.name, a.bytes);
    }
}
// A program is asked by its name, a library (the addon) as it was told.
extern "C" void __asan_on_error() { describe(); }
void simt::describeAtDeath() { __sanitizer_set_death_callback(describe); }
