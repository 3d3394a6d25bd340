// The fibers of a launch and what they wait for. Of the fibers that can run one is picked, in an order that the seed
// decides, and runs until it waits. When none can run, waits on a condition are looked at, then one late copy arrives,
// then the next block starts; if none of that helps, the launch is deadlocked and says who waits where.
//   A program spends most of its time here, so this file alone is compiled without sanitizers, for speed: whatever
//   touches memory of a kernel does so in functions of others.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <map>
#include <utility>

#include "state.h"

SIMT_SWITCH_ASSEMBLY

namespace simt {

State& s = *new State;  // threads may outlive main()
Interpret interpret = nullptr;
std::string (*place)() = nullptr;

namespace {

std::string text(uint64_t n) { return std::to_string(n); }
std::string at(Where w) {
  const std::string file = w.file;
  return file.substr(file.rfind('/') + 1) + ":" + text(w.line);
}
std::string triple(uint3 v) { return "(" + text(v.x) + "," + text(v.y) + "," + text(v.z) + ")"; }
std::string kernelName(const Launch& l = *s.launch) {
  char name[512] = "?";
  __sanitizer_symbolize_pc(const_cast<char*>(static_cast<const char*>(l.kernel) + 1), "%f", name, sizeof name);
  const std::string n = name;
  return n.substr(0, n.rfind('('));
}
void setFailure(const std::string& message) {
  s.failed = true;
  s.message = "simt: " + message;
  std::fprintf(stderr, "%s\n", s.message.c_str());
}

// ---- switching ----------------------------------------------------------------------------------------------

void toMain(bool last) {
  Fiber* f = s.now;
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(last ? nullptr : &fake, s.mainStack, s.mainStackBytes);
  switchContext(f->context, s.main);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}

constexpr auto lower = [](const Ready& a, const Ready& b) { return a.priority < b.priority; };
void pushReady(Fiber* f) {
  if (s.order == Order::random) f->priority = random();
  s.ready.push_back({f->priority, f});
  std::push_heap(s.ready.begin(), s.ready.end(), lower);
}
Fiber* popReady() {
  std::pop_heap(s.ready.begin(), s.ready.end(), lower);
  Fiber* f = s.ready.back().fiber;
  s.ready.pop_back();
  return f;
}

void release(Fiber* f) {
  f->waits = nullptr;
  f->brought = nullptr;
  pushReady(f);
}

void releaseBlock(Block* b) {
  b->result = b->counted;
  b->arrived = b->counted = 0;
  for (auto& f : b->fibers)
    if (f->waits && f->mask == 0 && !f->until) release(f.get());
}

// Lanes of one warp that wait for the same mask go on together.
void releaseWarp(Block* b, int first, uint32_t mask) {
  for (int i = 0; i < 32 && first + i < static_cast<int>(b->fibers.size()); i++) {
    Fiber* f = b->fibers[static_cast<size_t>(first + i)].get();
    if (!(mask >> i & 1) || f->done) continue;
    f->mask = 0;
    b->warps[static_cast<size_t>(first / 32)].waiting &= ~(1u << i);
    release(f);
  }
}

// A barrier of a warp counts the lanes that have not ended: the last one missing may have ended just now.
void endInWarp(Fiber* f) {
  Block* b = f->block;
  const int first = f->index / 32 * 32;
  for (int i = 0; i < 32 && first + i < static_cast<int>(b->fibers.size()); i++) {
    const Fiber* waiting = b->fibers[static_cast<size_t>(first + i)].get();
    const uint32_t mask = waiting->mask;
    if (!(mask >> (f->index & 31) & 1) || waiting->brought) continue;
    bool all = true;
    for (int j = 0; j < 32 && first + j < static_cast<int>(b->fibers.size()); j++) {
      const Fiber* other = b->fibers[static_cast<size_t>(first + j)].get();
      if (mask >> j & 1 && !other->done && other->mask != mask) all = false;
    }
    if (all) releaseWarp(b, first, mask);
  }
}

void meetIfAllArrived(Cluster& c) {
  if (c.arrived < c.alive) return;
  c.arrived = 0;
  c.meetings++;
}

void finish() {
  Fiber* f = s.now;
  Block* b = f->block;
  f->done = true;
  if (s.launch->programmatic && !f->waited)
    setFailure(whereabouts() + ": ends without having waited for the kernels before it (ptx::dependencyWait)");
  b->alive--;
  if (--b->cluster->alive > 0) meetIfAllArrived(*b->cluster);
  b->warps[static_cast<size_t>(f->index / 32)].ended |= 1u << (f->index & 31);
  endInWarp(f);
  if (b->alive > 0 && b->arrived == b->alive) releaseBlock(b);
  toMain(true);
}

void enter() {
  __sanitizer_finish_switch_fiber(nullptr, &s.mainStack, &s.mainStackBytes);
  s.launch->body();
  finish();
  __builtin_trap();
}

void resume(Fiber* f) {
  s.now = f;
  threadIdx = f->thread;
  blockIdx = f->block->index;
  __sanitizer_start_switch_fiber(&s.mainFake, f->stack, stackBytes);
  switchContext(s.main, f->context);
  __sanitizer_finish_switch_fiber(s.mainFake, nullptr, nullptr);
  s.now = nullptr;
  if (f->done) s.stacks.give(std::exchange(f->stack, nullptr), false);
}

void wait(const char* what, Where where) {
  s.now->waits = what;
  s.now->where = where;
  toMain(false);
}

// ---- blocks -------------------------------------------------------------------------------------------------

void freeBlock(std::unique_ptr<Block>& b) {
  if (!b) return;
  for (auto& f : b->fibers) {
    if (f->stack) s.stacks.give(f->stack, true);
    s.spare.push_back(std::move(f));
  }
  b.reset();
}

std::unique_ptr<Fiber> takeFiber() {
  if (s.spare.empty()) return std::make_unique<Fiber>();
  auto f = std::move(s.spare.back());
  s.spare.pop_back();
  Copies copies = std::move(f->copies);  // with the room that it has
  copies.clear();
  *f = Fiber();
  f->copies = std::move(copies);
  return f;
}

void startBlock(uint64_t index) {
  const Launch& l = *s.launch;
  auto b = std::make_unique<Block>();
  uint64_t place = random();  // the upper half orders, the lower half breaks ties
  b->index = {static_cast<unsigned>(index % l.grid.x), static_cast<unsigned>(index / l.grid.x % l.grid.y),
              static_cast<unsigned>(index / l.grid.x / l.grid.y)};
  b->alive = static_cast<int>(l.block.x * l.block.y * l.block.z);
  b->cluster = &s.clusters[index / l.cluster];
  b->cluster->alive += b->alive;
  b->warps.resize(static_cast<size_t>(b->alive + 31) / 32);
  if (b->alive % 32 != 0) b->warps.back().ended = ~0u << b->alive % 32;
  b->dynamic = addArray(b.get(), nullptr, "dynamic shared memory", l.sharedBytes, 128);
  for (int i = 0; i < b->alive; i++) {
    auto f = takeFiber();
    const unsigned u = static_cast<unsigned>(i);
    f->block = b.get();
    f->index = i;
    f->thread = {u % l.block.x, u / l.block.x % l.block.y, u / l.block.x / l.block.y};
    f->stack = s.stacks.take();
    prepare(f->context, f->stack, enter);
    if (s.order == Order::threads || (s.order == Order::warps && i % 32 == 0)) place = random();
    f->priority = (place >> 32 | 1) << 32 | random() >> 32;
    pushReady(f.get());
    b->fibers.push_back(std::move(f));
  }
  s.blocks[index] = std::move(b);
  s.alive++;
}
// The next block, with those of its cluster.
void startNext() {
  for (unsigned i = 0; i < s.launch->cluster; i++) startBlock(s.next++);
}

std::string deadlock() {
  std::string t = "kernel " + kernelName() + ": deadlock, no thread can go on:";
  int lines = 0;
  for (auto& b : s.blocks) {
    if (!b || lines > 12) continue;
    std::map<std::string, std::vector<int>> places;
    for (auto& f : b->fibers)
      if (f->waits) places[std::string(f->waits) + " at " + at(f->where)].push_back(f->index);
      else if (f->done) places["the end of the kernel, ended"].push_back(f->index);
    for (auto& [place, who] : places) {
      t += "\n  block " + triple(b->index) + ": threads at " + place + ": " + text(who.size()) + " (";
      for (size_t i = 0; i < who.size() && i < 4; i++) t += (i ? ", " : "") + text(static_cast<uint64_t>(who[i]));
      t += who.size() > 4 ? ", ... " + text(static_cast<uint64_t>(who.back())) + ")" : ")";
      lines++;
    }
  }
  return t;
}

bool anyAwaitsOthers() {
  if (s.stopsAtRelease) return true;
  if (s.dependencies) return false;
  for (auto& b : s.blocks)
    for (size_t i = 0; b && i < b->fibers.size(); i++)
      if (const Fiber& f = *b->fibers[i]; f.until && f.waited) return true;
  return false;
}

// Something for an empty list of fibers; false: nothing is left to do, or nothing helps.
bool findWork() {
  const auto goesOn = [](Fiber* f) {
    if (!f->until()) return false;
    f->until = nullptr;
    release(f);
    return true;
  };
  s.polling.erase(std::remove_if(s.polling.begin(), s.polling.end(), goesOn), s.polling.end());
  if (!s.ready.empty()) return true;
  if (!s.late.empty()) {
    const size_t i = random() % s.late.size();
    const auto copy = std::move(s.late[i]);
    s.late.erase(s.late.begin() + static_cast<ptrdiff_t>(i));
    copy();
    return true;
  }
  if (s.next < s.total && s.alive < 2) {
    startNext();
    return true;
  }
  if (s.alive > 0 && !anyAwaitsOthers()) setFailure(deadlock());
  return false;
}

}  // namespace

std::string whereabouts() {
  std::string t = "kernel " + kernelName();
  if (s.now) t += ", block " + triple(s.now->block->index) + ", thread " + triple(s.now->thread);
  const std::string more = s.now && place ? place() : "";
  return more.empty() ? t : t + ", " + more;
}

// ---- a launch -----------------------------------------------------------------------------------------------

void setSeed(uint64_t seed) {
  s.seed = seed;
  s.launches = 0;
}
void setStepLimit(uint64_t most) { s.limit = most; }
const std::string& report() { return s.message; }

uint64_t random() {  // splitmix64
  uint64_t z = s.random += 0x9e3779b97f4a7c15ull;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

cudaError_t check(const Launch& l) {
  const uint64_t threads = uint64_t{l.block.x} * l.block.y * l.block.z,
                 blocks = uint64_t{l.grid.x} * l.grid.y * l.grid.z;
  const bool clusters = l.cluster >= 1 && l.cluster <= maxCluster && l.grid.x % l.cluster == 0;
  const bool fits = threads > 0 && threads <= 1024 && blocks > 0 && l.grid.y <= 65535 && l.grid.z <= 65535 && clusters;
  if (!fits) return cudaErrorInvalidConfiguration;
  if (l.sharedBytes <= l.sharedLimit) return cudaSuccess;
  std::fprintf(stderr, "simt: kernel %s: %zu bytes of shared memory, and a block of this device may have %zu\n",
               kernelName(l).c_str(), l.sharedBytes, l.sharedLimit);
  return cudaErrorInvalidValue;
}

namespace {

void begin(const Launch& l) {
  const uint64_t total = uint64_t{l.grid.x} * l.grid.y * l.grid.z;
  if (s.launches == 0) describeAtDeath();
  s.launch = &l;
  s.runner = std::this_thread::get_id();
  s.failed = false;
  s.error = cudaErrorLaunchFailure;
  s.switches = 0;
  s.random = s.seed * 1000003 + s.launches++;
  s.order = static_cast<Order>(random() % 4);
  s.lowest = uint64_t{1} << 32;
  s.blocks.resize(total);
  s.clusters.assign((total + l.cluster - 1) / l.cluster, Cluster());
  blockDim = l.block;
  gridDim = l.grid;
  s.alive = s.next = 0;
  s.total = total;
}

// Until all threads have ended, or, where it does not go on before others have ended, wait for those.
void goOn() {
  const Launch& l = *s.launch;
  while (!s.failed) {
    // Blocks of a plain launch run alone or beside one other, from wherever that one is.
    if (s.next < s.total && s.alive == 1 && random() % 256 == 0) startNext();
    if (s.ready.empty()) {
      if (!findWork()) break;
      continue;
    }
    Fiber* f = popReady();
    if (s.order != Order::random && random() % 256 == 0) {  // now and then one falls behind all others
      f->priority = --s.lowest;
      pushReady(f);
      continue;
    }
    if (++s.switches > s.limit) {
      setFailure("kernel " + kernelName() + ": more than " + text(s.limit) +
                 " switches between threads: a wait that spins for ever?");
      break;
    }
    resume(f);
    Block* b = f->block;
    if (b->alive > 0) continue;
    s.alive--;
    if (s.late.empty()) freeBlock(s.blocks[b->index.x + l.grid.x * (b->index.y + uint64_t{l.grid.y} * b->index.z)]);
  }
}

cudaError_t end() {
  for (auto& b : s.blocks) freeBlock(b);
  s.blocks.clear();
  s.ready.clear();
  s.polling.clear();
  s.late.clear();
  s.launch = nullptr;
  return s.failed ? s.error : cudaSuccess;
}

// ---- launches that overlap --------------------------------------------------------------------------------------

struct Held {
  std::unique_ptr<const Launch> launch;
  Running running;
};
std::deque<Held>& held = *new std::deque<Held>;

void exchange(Held& h) {
  std::swap(static_cast<Running&>(s), h.running);
  blockDim = h.launch->block;
  gridDim = h.launch->grid;
}

constexpr uint64_t maxThreadsAhead = 20000;  // each has two mappings of memory, and Linux gives a process 65530
uint64_t threadsOf(const Launch& l) {
  return uint64_t{l.grid.x} * l.grid.y * l.grid.z * l.block.x * l.block.y * l.block.z;
}

bool allReleased(const Held& h) {
  for (auto& b : h.running.blocks)
    for (size_t i = 0; b && i < b->fibers.size(); i++)
      if (!b->fibers[i]->released && !b->fibers[i]->done) return false;
  return true;
}

cudaError_t finishFirst() {
  Held h = std::move(held.front());
  held.pop_front();
  exchange(h);
  s.dependencies = true;
  goOn();
  return end();
}

// The last one goes on until the next may start: those before it end, and its threads release the next, at once behind
// their wait or later.
cudaError_t goOnToRelease() {
  while (held.size() > 1)
    if (const cudaError_t e = finishFirst(); e != cudaSuccess) return e;
  Held& h = held.front();
  exchange(h);
  s.dependencies = s.stopsAtRelease = true;
  goOn();
  if (s.failed) {
    held.clear();
    return end();
  }
  s.stopsAtRelease = false;
  exchange(h);
  return cudaSuccess;
}

}  // namespace

cudaError_t run(const Launch& l) {
  begin(l);
  goOn();
  return end();
}

cudaError_t runAhead(const Launch& l, size_t ahead) {
  cudaError_t e = cudaSuccess;
  if (threadsOf(l) > maxThreadsAhead / (ahead + 1)) {
    e = finishHeld();
    return e == cudaSuccess ? run(l) : e;
  }
  if (!held.empty() && !allReleased(held.back())) e = goOnToRelease();
  if (e != cudaSuccess) return e;
  Held h{std::make_unique<const Launch>(l), {}};
  begin(*h.launch);
  s.dependencies = false;
  while (s.next < s.total) startNext();
  goOn();
  if (s.failed) return end();
  exchange(h);
  held.push_back(std::move(h));
  return held.size() > ahead ? finishFirst() : cudaSuccess;
}

cudaError_t finishHeld() {
  cudaError_t e = cudaSuccess;
  while (!held.empty() && e == cudaSuccess) e = finishFirst();
  while (!held.empty()) {  // after one that failed nothing runs
    exchange(held.front());
    end();
    held.pop_front();
  }
  return e;
}

void awaitDependencies(Where where) {
  s.now->waited = true;
  if (!s.dependencies)
    waitUntil(
        "griddepcontrol.wait", [] { return s.dependencies; }, where);
}
void releaseDependents() {
  s.now->released = true;
  if (s.stopsAtRelease) waitUntil("griddepcontrol.launch_dependents", [] { return !s.stopsAtRelease; }, {});
}

void fail(const std::string& what, Where where, cudaError_t error) {
  s.error = error;
  setFailure(whereabouts() + ": " + what + " (" + at(where) + ")");
  for (;;) toMain(false);
}

// ---- meeting ------------------------------------------------------------------------------------------------

void meet(uint32_t mask, const char* what, void* mine, Combine combine, Where where) {
  Fiber* f = s.now;
  Block* b = f->block;
  Warp& warp = b->warps[static_cast<size_t>(f->index / 32)];
  const int first = f->index / 32 * 32;
  const uint32_t me = 1u << (f->index & 31);
  const auto lane = [&](int i) { return b->fibers[static_cast<size_t>(first + i)].get(); };
  if (!(mask & me)) fail(std::string(what) + ": the calling lane is not in its own mask", where);
  // A barrier of a warp counts the lanes that have not ended; whatever brings something needs them all.
  if (combine && (mask & warp.ended) != 0)
    fail(std::string(what) + ": lane " + text(static_cast<uint64_t>(__builtin_ctz(mask & warp.ended))) +
             " of its mask has ended or does not exist",
         where);
  const auto check = [&](int i) {  // whether lane i, which waits, waits for this
    const Fiber* other = lane(i);
    const bool mutual = (other->mask & me) != 0;
    if (mutual && (other->mask != mask || (other->waits != what && std::strcmp(other->waits, what) != 0) ||
                   (combine && other->where.line != where.line)))
      fail(std::string(what) + " meets lane " + text(static_cast<uint64_t>(i)) + " of its warp in " + other->waits +
               " at " + at(other->where) + (other->mask != mask ? " with another mask" : "") + ": the warp diverged",
           where);
    return mutual;
  };
  if (const uint32_t there = warp.waiting & mask; there != 0) check(__builtin_ctz(there));
  f->mask = mask;
  f->brought = mine;
  f->waits = what;
  f->where = where;
  warp.waiting |= me;
  bool all = ((warp.waiting | warp.ended) & mask) == mask;
  void* lanes[32] = {};
  for (uint32_t left = all ? mask & ~warp.ended : 0; left != 0; left &= left - 1) {
    const int i = __builtin_ctz(left);
    all = check(i) && all;
    lanes[i] = lane(i)->brought;
  }
  if (all) {
    if (combine) combine(lanes, mask);
    releaseWarp(b, first, mask);
  }
  toMain(false);
}

int meetBlock(const char* what, bool value, Where where) {
  Fiber* f = s.now;
  Block* b = f->block;
  if (b->arrived > 0 && b->first.line != where.line)
    for (auto& other : b->fibers)
      if (other->waits && other->mask == 0 && !other->until)
        fail(std::string(what) + " meets " + other->waits + " of thread " + triple(other->thread) + " at " +
                 at(other->where) + ": the block diverged",
             where);
  f->waits = what;
  f->where = where;
  if (b->arrived == 0) b->first = where;
  b->counted += value;
  if (++b->arrived == b->alive) releaseBlock(b);
  toMain(false);
  return b->result;
}

void meetCluster(Where where) {
  Cluster& c = *s.now->block->cluster;
  const uint64_t before = c.meetings;
  c.arrived++;
  meetIfAllArrived(c);
  waitUntil(
      "barrier.cluster", [&c, before] { return c.meetings != before; }, where);
}

void waitUntil(const char* what, std::function<bool()> holds, Where where) {
  s.now->until = std::move(holds);
  s.polling.push_back(s.now);
  wait(what, where);
}

void yield() {
  s.now->priority = --s.lowest;
  pushReady(s.now);
  toMain(false);
}
void perturb() {
  if (s.now && random() % 8 == 0) yield();
}

}  // namespace simt
