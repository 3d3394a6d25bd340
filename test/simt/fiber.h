// Stacks and the switch between them. Written by hand where we can (a switch of ucontext makes a system call), with
// the calls that tell the address sanitizer which stack it is on. Stacks are pooled, and a page below each is shut.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)  // Clang's way of saying what GCC says with a macro
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(SIMT_SANITIZED)  // the program has them, if not the file (scheduler.cc)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#else
#include <cstdio>
inline void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
inline void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
inline void __sanitizer_symbolize_pc(void* pc, const char*, char* out, size_t bytes) {
  std::snprintf(out, bytes, "%p(", pc);
}
inline void __sanitizer_set_death_callback(void (*)()) {}
inline void __asan_poison_memory_region(const void*, size_t) {}
inline void __asan_unpoison_memory_region(const void*, size_t) {}
inline void* __asan_get_report_address() { return nullptr; }
#endif
#include <sys/mman.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

constexpr size_t stackBytes = 96 << 10, pageBytes = 4096;

class Stacks {
 public:
  uint8_t* take() {
    if (free_.empty()) {
      void* p = mmap(nullptr, stackBytes + pageBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED || mprotect(p, pageBytes, PROT_NONE) != 0) __builtin_trap();
      return static_cast<uint8_t*>(p) + pageBytes;
    }
    uint8_t* p = free_.back();
    free_.pop_back();
    return p;
  }
  // `live`: of a fiber that is given up, with its frames; of one that has ended only the scheduler's are left.
  void give(uint8_t* p, bool live) {
    const size_t used = live ? stackBytes : pageBytes;
    __asan_unpoison_memory_region(p + stackBytes - used, used);
    free_.push_back(p);
  }

 private:
  std::vector<uint8_t*> free_;
};

#if defined(__x86_64__)
using Context = void*;  // a stack pointer
extern "C" void simtSwitch(Context* from, Context to);
#define SIMT_SWITCH_ASSEMBLY                                                \
  asm(".text\n.globl simtSwitch\n.type simtSwitch,@function\nsimtSwitch:\n" \
      "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"  \
      "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"                                    \
      "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n.size simtSwitch,.-simtSwitch\n");
inline void prepare(Context& c, uint8_t* stack, void (*entry)()) {
  uintptr_t* top = reinterpret_cast<uintptr_t*>(stack + stackBytes);
  *--top = 0;
  *--top = reinterpret_cast<uintptr_t>(entry);
  for (int i = 0; i < 6; i++) *--top = 0;
  c = top;
}
inline void switchContext(Context& from, Context& to) { simtSwitch(&from, to); }
#else
using Context = ucontext_t;
#define SIMT_SWITCH_ASSEMBLY
inline void prepare(Context& c, uint8_t* stack, void (*entry)()) {
  getcontext(&c);
  c.uc_stack.ss_sp = stack;
  c.uc_stack.ss_size = stackBytes;
  c.uc_link = nullptr;
  makecontext(&c, entry, 0);
}
inline void switchContext(Context& from, Context& to) { swapcontext(&from, &to); }
#endif

}  // namespace simt
