// Global memory is read and written only here, in a file of its own that is compiled with the address sanitizer, while
// the rest of the interpreter is compiled without: a kernel's overrun is found, and registers cost nothing to check.
#pragma once

#include <cstdint>

namespace ptx {

struct alignas(16) Sixteen {
  uint64_t low, high;
};  // bytes

// uint8_t, uint16_t, uint32_t, uint64_t, Sixteen
template <class W>
W readGlobal(const void* p);
template <class W>
void writeGlobal(void* p, W value);

}  // namespace ptx
