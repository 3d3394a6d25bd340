#include "platform.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "ledger.h"
#include "machine.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace parvis::cpu {

namespace {

std::string megabytes(uint64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MB"; }

}  // namespace

// ---- memory -------------------------------------------------------------------------------------------------

uint64_t availableMemory() { return memoryChecked() ? memoryLimit().free : 0; }

// What is free, without what was promised already; 0 stays "unknown".
static uint64_t without(uint64_t free, uint64_t promised) {
  return free == 0 ? 0 : free > promised ? free - promised : 1;
}

static Status refusal(size_t bytes, const std::string& what, const MemoryLimit& limit) {
  std::string free;
  if (limit.free)
    free = " and " + std::to_string(limit.free >> 20) + " MB are free" +
           (limit.group.empty() ? "" : " of the " + megabytes(limit.total) + " of the control group " + limit.group);
  return {Code::outOfMemory,
          what + " need " + megabytes(bytes) + " of memory" + free +
              ". Free memory, or use fewer images at a time or precision 'bfloat16'." +
              (limit.free && bytes > limit.free ? " PARVIS_MEMORY_CHECK=0 turns this check off." : "")};
}

Status Memory::check(size_t bytes, const std::string& what) {
  // Asking costs more than taking a little: some ten files of the system.
  if (bytes < (1u << 20) || !memoryChecked()) return {};
  MemoryLimit limit = memoryLimit();
  limit.free = without(limit.free, promisedMemory());
  return limit.free && bytes > limit.free ? refusal(bytes, what, limit) : Status{};
}

Status Memory::allocate(size_t bytes, const std::string& what, Memory& out) {
  bytes = std::max<size_t>((bytes + 63) / 64 * 64, 64);
  MemoryLimit limit = bytes >= leastPromised && memoryChecked() ? memoryLimit() : MemoryLimit{};
  bool tooMuch = false;
  void* const p = promise(bytes, [&](uint64_t promised) -> void* {
    limit.free = without(limit.free, promised);
    tooMuch = limit.free && bytes > limit.free;
    if (tooMuch) return nullptr;
#if defined(_WIN32)
    return VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
#else
    void* const mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mapped == MAP_FAILED ? nullptr : mapped;
#endif
  });
  if (!p) return refusal(bytes, what, tooMuch ? limit : MemoryLimit{});
#if defined(MADV_HUGEPAGE)
  if (bytes >= (8u << 20)) madvise(p, bytes, MADV_HUGEPAGE);  // a wish: failure is no error
#endif
  Memory m;
  m.data_ = static_cast<uint8_t*>(p);
  m.bytes_ = bytes;
  out = std::move(m);
  return {};
}

Memory::Memory(Memory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

Memory::~Memory() {
  if (!data_) return;
  forget(data_);
#if defined(_WIN32)
  VirtualFree(data_, 0, MEM_RELEASE);
#else
  // In pieces: the system holds a lock of the whole process while it frees pages, and the JavaScript thread needs it.
  for (size_t at = 0; at < bytes_; at += size_t{16} << 20) munmap(data_ + at, std::min(bytes_ - at, size_t{16} << 20));
#endif
}

// ---- processor ----------------------------------------------------------------------------------------------

Isa bestIsa() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  Isa best = Isa::baseline;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) best = Isa::avx2;
  if (best == Isa::avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512cd"))
    best = Isa::avx512;
  if (best == Isa::avx512 && __builtin_cpu_supports("avx512bf16")) best = Isa::avx512_bf16;
  // For tests of the other instruction sets: a lower one may be asked for, a higher one never.
  if (const char* asked = std::getenv("PARVIS_ISA")) {
    const char* names[] = {"baseline", "avx2", "avx512", "avx512_bf16"};
    for (int i = 0; i < static_cast<int>(best); i++)
      if (std::strcmp(asked, names[i]) == 0) return static_cast<Isa>(i);
  }
  return best;
#else
  return Isa::baseline;
#endif
}

}  // namespace parvis::cpu
