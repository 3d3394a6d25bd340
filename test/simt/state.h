// What a launch consists of; shared by the scheduler and the memory of blocks, unseen by kernels.
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "fiber.h"
#include "simt.h"

namespace simt {

// A thread's asynchronous copies, in order, and where the groups of them end that are closed.
struct Copies {
  struct Copy {
    void* to;
    const void* from;
    int bytes, valid;
  };
  std::vector<Copy> all;
  std::vector<size_t> ends;
  size_t arrived = 0, groups = 0;  // how many of each have
  void clear() {
    all.clear();
    ends.clear();
    arrived = groups = 0;
  }
};

struct Block;
struct Fiber {
  Context context{};
  uint8_t* stack = nullptr;
  Block* block = nullptr;
  uint3 thread{};
  int index = 0;  // in the block
  uint64_t priority = 0;
  bool done = false;
  const char* waits = nullptr;  // what for; null: runs or can run
  Where where;
  bool waited = false;    // for the kernels before this one
  bool released = false;  // those after it
  uint32_t mask = 0;      // lanes it meets
  void* brought = nullptr;
  std::function<bool()> until;
  Copies copies;
};
struct Ready {
  uint64_t priority;
  Fiber* fiber;
};

struct Array {
  const void* site;
  const char* name;
  uint8_t* data;
  size_t bytes;
};
constexpr unsigned maxCluster = 8;  // blocks, on any device that has clusters
constexpr size_t guard = 1024;
constexpr size_t unaskedShared = 48 << 10;  // a block's without cudaFuncSetAttribute, which
constexpr size_t askedShared = 40 << 10;    // platform.cuh calls where the dynamic part is above this

struct Warp {
  uint32_t waiting = 0, ended = 0;  // lanes that meet others, lanes that ended or never were
};

// Blocks that run together and meet.
struct Cluster {
  int alive = 0, arrived = 0;  // threads
  uint64_t meetings = 0;
};

struct Block {
  uint3 index{};
  Cluster* cluster = nullptr;
  std::vector<Warp> warps;
  std::vector<std::unique_ptr<Fiber>> fibers;
  int alive = 0, arrived = 0, counted = 0, result = 0;
  Where first;  // of those who arrived
  std::vector<Array> arrays;
  std::vector<std::unique_ptr<uint8_t[]>> memory;
  size_t sharedBytes = 0;
  uint8_t* dynamic = nullptr;
};

// Who goes first. Random: anyone, at every wait anew. Otherwise a thread, a warp or a block has its place for the whole
// launch, so that the last one lags behind all others for as long as they can do without it; now and then one falls to
// the last place.
enum class Order { random, threads, warps, blocks };

// One launch under way.
struct Running {
  const Launch* launch = nullptr;
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<Cluster> clusters;
  std::vector<Ready> ready;  // a heap by priority
  std::vector<Fiber*> polling;
  Order order = Order::random;
  uint64_t lowest = 0;
  uint64_t alive = 0, next = 0, total = 0;  // blocks: running, not begun, all
  std::vector<std::function<void()>> late;
  uint64_t random = 1, switches = 0;
  bool dependencies = true;     // the kernels before this one are done
  bool stopsAtRelease = false;  // threads go no further than where they release those after this one
};

struct State : Running {  // the one that runs, and what all of them share
  Fiber* now = nullptr;
  Context main{};
  void* mainFake = nullptr;
  const void* mainStack = nullptr;
  size_t mainStackBytes = 0;
  uint64_t seed = 1, launches = 0, limit = 50'000'000;
  bool failed = false;
  cudaError_t error = cudaErrorLaunchFailure;  // where it has
  std::string message;
  std::thread::id runner;  // the thread of the operating system that runs the launch
  Stacks stacks;
  std::vector<std::unique_ptr<Fiber>> spare;  // of blocks that ended
};
extern State& s;

std::string whereabouts();      // kernel, block and thread
extern std::string (*place)();  // more precisely, by who interprets kernels; null: nobody
int deviceOf(const void* p);    // whose memory it is; -1: no device's
void describeAtDeath();         // has the sanitizer's reports end with that
uint8_t* addArray(Block* b, const void* site, const char* name, size_t bytes, size_t align);

}  // namespace simt
