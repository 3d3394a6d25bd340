// The one place that knows the operating system: large memory, instruction sets; machine.h has what it leaves to this
// process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

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

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Memory that this process may still take, in bytes, by the tightest limit of machine.h. 0: unknown, or not to be asked
// for.
uint64_t availableMemory();

enum class Isa { baseline, avx2, avx512, avx512_bf16 };
Isa bestIsa();

}  // namespace parvis::cpu
