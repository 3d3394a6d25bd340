#include "platform.h"

#include <algorithm>
#include <cstdlib>

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
#if defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif
#if defined(__APPLE__)
#include <sys/sysctl.h>
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
              ". Free memory, or use fewer images at a time or precision 'int8'." +
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

void Memory::rest() const {
#if defined(MADV_FREE)
  if (data_) madvise(data_, bytes_, MADV_FREE);  // a wish, too
#endif
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

std::vector<std::string> instructionSets() {
  std::vector<std::string> all{"baseline"};
#if defined(PARVIS_X86)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return all;
  all.push_back("avx2");
  for (const bool has : {__builtin_cpu_supports("avx512f") != 0, __builtin_cpu_supports("avx512bw") != 0,
                         __builtin_cpu_supports("avx512vl") != 0, __builtin_cpu_supports("avx512dq") != 0,
                         __builtin_cpu_supports("avx512cd") != 0})
    if (!has) return all;
  all.push_back("avx512");
  if (__builtin_cpu_supports("avx512bf16")) all.push_back("avx512_bf16");
#elif defined(PARVIS_ARM64) && defined(__linux__)
  constexpr unsigned long bfloat16 = 1ul << 14;  // HWCAP2_BF16, which old headers lack
  if (getauxval(AT_HWCAP2) & bfloat16) all.push_back("neon_bf16");
#elif defined(PARVIS_ARM64) && defined(__APPLE__)
  int has = 0;
  size_t size = sizeof has;
  if (sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has) all.push_back("neon_bf16");
#endif
  return all;
}

int bestIsa() {
  const std::vector<std::string> all = instructionSets();
  if (const char* asked = std::getenv("PARVIS_ISA"))
    for (size_t i = 0; i < all.size(); i++)
      if (all[i] == asked) return static_cast<int>(i);
  const int last = static_cast<int>(all.size()) - 1;
#if defined(PARVIS_X86)
  // Intel's cores multiply half as many bfloat16 numbers a second as float32 ones, AMD's twice as many. Told by the
  // maker and not measured, so that a seed gives the same picture whenever the machine is asked.
  if (all.back() == "avx512_bf16" && __builtin_cpu_is("intel")) return last - 1;
#endif
  return last;
}

}  // namespace parvis::cpu
