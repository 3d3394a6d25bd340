// What the system leaves to this process: memory and processor time, of the machine and of every control group that the
// process is in. `root` is the folder in which /proc and /sys are looked for: tests have trees of their own.
#pragma once

#include <cstdint>
#include <string>

namespace parvis::cpu {

struct MemoryLimit {
  uint64_t total = 0, free = 0;  // bytes; 0: unknown. Free includes what the system would give up or swap out
  std::string group;             // the control group whose limit this is; empty: the machine
};

struct ThreadLimit {
  int cores = 1;      // processors that the process may run on
  int threads = 1;    // as many as can really run at a time: at most one a core
  double quota = 0;   // processors' worth of time; 0: no quota
  std::string group;  // the control group with that quota
};

MemoryLimit memoryLimit(const std::string& root = "");
ThreadLimit threadLimit(const std::string& root = "");

// Whether allocations are compared with what is free. Users turn it off by PARVIS_MEMORY_CHECK=0.
bool memoryChecked();

}  // namespace parvis::cpu
