// The one place that knows the operating system: large memory, instruction sets; machine.h has what it leaves to this
// process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "parvis/status.h"

namespace parvis::cpu {

// Zeroed memory on huge pages where the system has them, 64-byte aligned; untouched pages cost nothing. Owns it.
class Memory {
 public:
  Memory() = default;
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  ~Memory();
  // Refuses what the machine cannot hold: `what` starts the message ("The weights").
  static Status check(size_t bytes, const std::string& what);
  static Status allocate(size_t bytes, const std::string& what, Memory& out);
  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  // What it holds is of no more use: the system may take the pages until they are written to again.
  void rest() const;

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Memory that this process may still take, in bytes, by the tightest limit of machine.h. 0: unknown, or not to be asked
// for.
uint64_t availableMemory();

// Names of the instruction sets that this processor can run, in the order of the tables of kernels (backend.cc).
std::vector<std::string> instructionSets();
// Which of them is used: the fastest one, or the one that PARVIS_ISA asks for.
int bestIsa();

}  // namespace parvis::cpu
