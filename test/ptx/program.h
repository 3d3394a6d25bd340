// Kernels as nvcc compiled them, decoded: what test/ptx runs in place of their C++ on the SIMT layer of test/simt.
// nvcc's reading of the sources, the inline PTX of cuda/ptx.cuh and the branches that only nvcc takes are so compared
// with the CPU backend on any machine. Everything here is written from NVIDIA's manual of PTX and calls nothing of
// test/simt/ptx.h: a mistake has to be made twice to go unseen. What is not in the tables of forms is an error that
// names its line.
//
// What this is not: ptxas and the machine code that it makes, the device's memory model (all threads share one thread
// of the operating system), its order of sums within a matrix product, its approximations (here exact values, rounded),
// time.
//
// A thread has a file of 64-bit slots, one a virtual register; a narrower value lies in the low bits and whoever reads
// it cuts it to its width, since PTX lets registers be wider than an instruction's type. Constants, addresses and
// special registers are slots too, filled when the thread begins. A generic or global address is the host's; the
// windows below hold the others.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "../simt/simt.h"

namespace ptx {

struct Instruction;
struct Thread;
using Slot = uint64_t;
// Returns what comes next; null: the thread has ended.
using Run = const Instruction* (*)(const Instruction* i, Slot* r, Thread& t);

struct Instruction {
  Run run = nullptr;
  uint32_t d = 0, a = 0, b = 0, c = 0;  // slots
  union {
    int64_t value = 0;  // beside an address; or a number of the instruction
    const Instruction* target;
  };
  const uint32_t* more = nullptr;  // slots, where there are others
  uint32_t line = 0;
};

struct Variable {
  std::string name;
  size_t bytes, align;
  bool dynamic;
};
// Where a thread touches global memory, or waits for the kernel before.
enum class Touch : uint8_t { none, load, store, wait };

struct Entry {
  std::string name, file;  // demangled; of the PTX
  std::vector<simt::Parameters::Place> parameters;
  size_t parameterBytes = 0;
  unsigned maxThreads = 0;  // of .maxntid; 0: not said
  std::vector<Variable> shared;
  size_t localBytes = 0;
  std::vector<Instruction> code;
  std::vector<Touch> touches;  // of each instruction
  std::deque<std::vector<uint32_t>> lists;
  std::vector<Slot> initial;  // of the slots
  enum class Special : uint8_t {
    tidX,
    tidY,
    tidZ,
    ntidX,
    ntidY,
    ntidZ,
    ctaidX,
    ctaidY,
    ctaidZ,
    nctaidX,
    nctaidY,
    nctaidZ,
    laneId,
    local
  };
  std::vector<std::pair<uint32_t, Special>> specials;  // slots that differ from thread to thread
  uint64_t instructions = 0, threads = 0;
};

// ---- addresses ----------------------------------------------------------------------------------------------

// A 32-bit shared address: the array's number, then an offset that does not start at 0, so that an address before the
// array is known as such, and that is a multiple of the array's alignment but of no more.
constexpr unsigned arrayBits = 19, maxArrays = 24;
constexpr uint32_t sharedBase(size_t array, size_t align) {
  return static_cast<uint32_t>((array + 1) << arrayBits | 4096 | align);
}
// The same of another block of the cluster: its rank plus 1 is above that.
constexpr unsigned rankBits = 28;
static_assert((uint64_t{maxArrays + 1} << arrayBits) < uint64_t{1} << rankBits);
constexpr uint64_t sharedWindow = uint64_t{1} << 60, parameterWindow = uint64_t{2} << 60;  // in the generic space
constexpr uint64_t parameterBase = 1 << 16;

struct Thread {
  Entry* entry;
  const uint8_t* parameters;
  struct Array {
    uint8_t* data;
    uint32_t bytes, base;
  } shared[maxArrays];
  uint8_t* local = nullptr;
};

[[noreturn]] void fail(const Instruction* i, const Thread& t, const std::string& what);
simt::Where where(const Instruction* i, const Thread& t);

// `bytes` of the block's shared memory, by a 32-bit address.
uint8_t* sharedAt(const Instruction* i, const Thread& t, uint32_t address, uint32_t bytes);

// Of whoever touches global memory, for reports.
struct Now {
  const Instruction* instruction;
  const Thread* thread;
};
extern Now now;

// ---- values -------------------------------------------------------------------------------------------------

template <size_t bytes>
struct WordOf;
template <>
struct WordOf<1> {
  using type = uint8_t;
};
template <>
struct WordOf<2> {
  using type = uint16_t;
};
template <>
struct WordOf<4> {
  using type = uint32_t;
};
template <>
struct WordOf<8> {
  using type = uint64_t;
};
template <class T>
using Word = typename WordOf<sizeof(T)>::type;

template <class T>
T get(const Slot* r, uint32_t slot) {
  return std::bit_cast<T>(static_cast<Word<T>>(r[slot]));
}
template <class T>
void put(Slot* r, uint32_t slot, T value) {
  r[slot] = std::bit_cast<Word<T>>(value);
}
// The NaN of single precision, whatever went in.
template <>
inline void put(Slot* r, uint32_t slot, float value) {
  r[slot] = value != value ? 0x7fffffffu : std::bit_cast<uint32_t>(value);
}
// Also right where the register is wider than the type.
template <class T>
Slot widened(T value) {
  if constexpr (std::is_signed_v<T> && std::is_integral_v<T>) return static_cast<Slot>(static_cast<int64_t>(value));
  else return std::bit_cast<Word<T>>(value);
}
inline bool holds(const Slot* r, uint32_t slot) { return r[slot] & 1; }

// ---- forms --------------------------------------------------------------------------------------------------

// An instruction with its modifiers, and what its operands are, one letter each:
//   d a b c  a register or number in that field        x  the same, appended to `more`
//   q        d|p: field d, and p appended to `more`    v  {...}, each appended to `more`
//   m        [address]: slot in a, offset in `value`   n  [address] in b, without an offset;  w: appended to `more`
//   i        a number, into `value`                    0  a number that must be 0;  s: that must be 16
struct Form {
  Run run;
  const char* operands;
  Touch touch;
};
class Forms {
 public:
  Forms();
  void add(const std::string& name, Run run, const char* operands, Touch touch = Touch::none) {
    table_[name] = {run, operands, touch};
  }
  const Form* find(const std::string& name) const {
    const auto found = table_.find(name);
    return found == table_.end() ? nullptr : &found->second;
  }

 private:
  std::unordered_map<std::string, Form> table_;
};
void addArithmetic(Forms& forms);   // arithmetic.cc
void addConversions(Forms& forms);  // convert.cc
void addMemory(Forms& forms);       // memory.cc
void addWarp(Forms& forms);         // warp.cc
void addCopies(Forms& forms);       // copies.cc

// `@p` before an instruction that is no branch: goes on with it, or with the one behind it.
const Instruction* guard(const Instruction* i, Slot* r, Thread& t);
const Instruction* guardNot(const Instruction* i, Slot* r, Thread& t);
const Instruction* branchIf(const Instruction* i, Slot* r, Thread& t);
const Instruction* branchIfNot(const Instruction* i, Slot* r, Thread& t);
const Instruction* branch(const Instruction* i, Slot* r, Thread& t);

// ---- decoding -----------------------------------------------------------------------------------------------

struct Token {
  std::string_view text;
  uint32_t line;
};
struct Failure {
  std::string message;
};  // thrown while decoding

// A file of PTX: which entries it has. They are decoded when they are first needed.
class Module {
 public:
  explicit Module(const std::string& file);
  std::vector<std::string> entries() const;  // as they are mangled
  std::unique_ptr<Entry> decode(const std::string& mangled, const Forms& forms) const;

 private:
  std::string file_, text_;
  std::vector<Token> tokens_;
  std::map<std::string, size_t> entries_;  // where the name is
  std::vector<Variable> shared_;           // of the module: the dynamic one
};

std::vector<Token> tokens(const std::string& text, const std::string& file);
std::unique_ptr<Entry> decodeEntry(const std::string& file, const std::vector<Token>& tokens, size_t at,
                                   const std::vector<Variable>& shared, const Forms& forms);
[[noreturn]] void refuse(const std::string& file, uint32_t line, const std::string& what);
size_t bytesOf(std::string_view type);  // ".b32" -> 4; 0: no such type
std::string demangled(const std::string& name);

}  // namespace ptx
