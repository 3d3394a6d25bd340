// Memory that this process was promised and has not touched yet. The system counts a page as taken when it is first
// written, so what it says is free includes pages that sessions and weights of ours will need: they are subtracted, for
// all instances and threads of the process together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace parvis::cpu {

// Smaller pieces are not counted: the work that takes them touches them at once.
constexpr size_t leastPromised = size_t{1} << 20;

// Has `take` take memory while nobody else does; it is told what is promised already, and returns the memory or null.
void* promise(size_t bytes, const std::function<void*(uint64_t promised)>& take);
void forget(void* memory);

// Bytes that are promised and not touched.
uint64_t promisedMemory();

}  // namespace parvis::cpu
