// Puts the interpreter in place of the kernels' C++ where PARVIS_PTX names files of PTX, divided by `:`. A launch's
// kernel is a function of the program; its name, from the symbol table of the file that it was loaded from, and that of
// an entry are compared as people write them, template arguments included: nvcc gives names without linkage decorations
// of its own that do not show there. What cannot be read, or a kernel that is not exactly one entry, ends the process.
//
// PARVIS_PTX_COUNTS: prints to stderr at the end how many instructions each entry ran.
#include <dlfcn.h>
#include <elf.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>

#include "../simt/state.h"
#include "guarded.h"
#include "program.h"

namespace ptx {
namespace {

[[noreturn]] void giveUp(const std::string& message) {
  std::fflush(stdout);
  std::fprintf(stderr, "ptx: %s\n", message.c_str());
  std::_Exit(3);
}

// ---- names of functions -------------------------------------------------------------------------------------

// The function of the program that begins at `address`, by the symbols of its file.
std::string nameOf(const void* address) {
  Dl_info info{};
  if (!dladdr(address, &info) || !info.dli_fname) giveUp("a kernel that belongs to no file");
  static std::map<std::string, std::map<uint64_t, std::string>> files;
  const auto [file, fresh] = files.try_emplace(info.dli_fname);
  uint64_t bias = reinterpret_cast<uintptr_t>(info.dli_fbase);
  if (fresh) {
    std::ifstream in(info.dli_fname, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    const auto at = [&]<class T>(uint64_t offset, T value) {
      if (offset + sizeof(T) > bytes.size()) giveUp(std::string(info.dli_fname) + ": not a whole program");
      std::memcpy(&value, bytes.data() + offset, sizeof(T));
      return value;
    };
    const Elf64_Ehdr header = at(0, Elf64_Ehdr{});
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64)
      giveUp(std::string(info.dli_fname) + ": not a program of 64 bits");
    for (unsigned s = 0; s < header.e_shnum; s++) {
      const Elf64_Shdr section = at(header.e_shoff + s * sizeof(Elf64_Shdr), Elf64_Shdr{});
      if (section.sh_type != SHT_SYMTAB) continue;
      const Elf64_Shdr names = at(header.e_shoff + section.sh_link * sizeof(Elf64_Shdr), Elf64_Shdr{});
      for (uint64_t k = 0; k < section.sh_size / sizeof(Elf64_Sym); k++) {
        const Elf64_Sym symbol = at(section.sh_offset + k * sizeof(Elf64_Sym), Elf64_Sym{});
        if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_value != 0)
          file->second[symbol.st_value] = bytes.data() + names.sh_offset + symbol.st_name;
      }
    }
    if (header.e_type == ET_EXEC) giveUp(std::string(info.dli_fname) + ": not a position-independent program");
  }
  const auto found = file->second.find(reinterpret_cast<uintptr_t>(address) - bias);
  if (found == file->second.end())
    giveUp(std::string(info.dli_fname) + ": no symbol for a kernel; it must not be stripped");
  return demangled(found->second);
}

// ---- entries ------------------------------------------------------------------------------------------------

struct Programs {
  Forms forms;
  std::deque<Module> modules;
  struct Place {
    const Module* module;
    std::string mangled;
  };
  std::map<std::string, std::vector<Place>> places;  // by the name as people write it
  std::map<const void*, std::unique_ptr<Entry>> entries;

  explicit Programs(const std::string& files) {
    for (size_t from = 0; from < files.size();) {
      const size_t end = std::min(files.find(':', from), files.size());
      const Module& m = modules.emplace_back(files.substr(from, end - from));
      for (const std::string& name : m.entries()) places[demangled(name)].push_back({&m, name});
      from = end + 1;
    }
  }
  Entry& of(const void* kernel) {
    std::unique_ptr<Entry>& entry = entries[kernel];
    if (entry) return *entry;
    const std::string name = nameOf(kernel);
    const auto found = places.find(name);
    if (found == places.end()) giveUp("no entry for kernel " + name);
    if (found->second.size() > 1) giveUp("more than one entry for kernel " + name);
    entry = found->second[0].module->decode(found->second[0].mangled, forms);
    return *entry;
  }
};
Programs* programs = nullptr;

// ---- a thread -----------------------------------------------------------------------------------------------

Slot specialOf(Entry::Special which, const Thread& t) {
  using enum Entry::Special;
  switch (which) {
    case tidX: return threadIdx.x;
    case tidY: return threadIdx.y;
    case tidZ: return threadIdx.z;
    case ntidX: return blockDim.x;
    case ntidY: return blockDim.y;
    case ntidZ: return blockDim.z;
    case ctaidX: return blockIdx.x;
    case ctaidY: return blockIdx.y;
    case ctaidZ: return blockIdx.z;
    case nctaidX: return gridDim.x;
    case nctaidY: return gridDim.y;
    case nctaidZ: return gridDim.z;
    case laneId: return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
    case local: break;
  }
  return reinterpret_cast<uintptr_t>(t.local);
}

void runThread(Entry& entry, const uint8_t* parameters, size_t dynamicBytes) {
  const std::unique_ptr<Slot[]> r(new Slot[entry.initial.size()]);
  std::memcpy(r.get(), entry.initial.data(), entry.initial.size() * sizeof(Slot));
  Thread t{&entry, parameters, {}};
  for (size_t i = 0; i < entry.shared.size(); i++) {
    const Variable& v = entry.shared[i];
    void* data = v.dynamic ? simt::dynamicShared() : simt::sharedArray(&v, v.name.c_str(), v.bytes, v.align);
    t.shared[i] = {static_cast<uint8_t*>(data), static_cast<uint32_t>(v.dynamic ? dynamicBytes : v.bytes),
                   sharedBase(i, v.align)};
  }
  const std::unique_ptr<Sixteen[]> local(entry.localBytes > 0 ? new Sixteen[(entry.localBytes + 15) / 16] : nullptr);
  t.local = reinterpret_cast<uint8_t*>(local.get());
  for (const auto& [slot, which] : entry.specials) r[slot] = specialOf(which, t);
  uint64_t count = 0;
  for (const Instruction* i = entry.code.data(); i; count++) i = i->run(i, r.get(), t);
  entry.instructions += count;
  entry.threads++;
}

std::function<void()> prepare(const simt::Launch& launch, simt::Parameters parameters) {
  try {
    Entry& entry = programs->of(launch.kernel);
    bool same = entry.parameters.size() == parameters.places.size();
    for (size_t i = 0; same && i < entry.parameters.size(); i++)
      same = entry.parameters[i].offset == parameters.places[i].offset &&
             entry.parameters[i].bytes == parameters.places[i].bytes;
    if (!same) giveUp(entry.name + ": its parameters have other sizes or places for nvcc than for the host's compiler");
    const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
    if (entry.maxThreads > 0 && threads > entry.maxThreads)
      giveUp(entry.name + ": launched with " + std::to_string(threads) + " threads, bounds say " +
             std::to_string(entry.maxThreads));
    return [&entry, bytes = std::make_shared<const std::vector<uint8_t>>(std::move(parameters.bytes)),
            shared = launch.sharedBytes] { runThread(entry, bytes->data(), shared); };
  } catch (const Failure& failure) {
    giveUp(failure.message);
  }
}

void printCounts() {
  for (const auto& [kernel, entry] : programs->entries)
    if (entry)
      std::fprintf(stderr, "ptx: %12llu instructions, %9llu threads: %s\n",
                   static_cast<unsigned long long>(entry->instructions),
                   static_cast<unsigned long long>(entry->threads), entry->name.c_str());
}

const struct Begin {
  Begin() {
    const char* files = std::getenv("PARVIS_PTX");
    if (!files) return;
    try {
      programs = new Programs(files);
    } catch (const Failure& failure) {
      giveUp(failure.message);
    }
    simt::interpret = prepare;
    simt::place = [] {
      return now.instruction ? now.thread->entry->file + ":" + std::to_string(now.instruction->line) : std::string();
    };
    if (std::getenv("PARVIS_PTX_COUNTS")) std::atexit(printCounts);
  }
} begin;

}  // namespace

simt::Where where(const Instruction* i, const Thread& t) { return {t.entry->file.c_str(), i->line}; }
void fail(const Instruction* i, const Thread& t, const std::string& what) {
  now = {};
  simt::fail(what, where(i, t));
}

}  // namespace ptx
