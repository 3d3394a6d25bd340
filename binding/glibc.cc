// For prebuilt addons only (PARVIS_PORTABLE): what the static C++ runtime of a new compiler asks of glibc and what
// glibc 2.34 does not have yet. Defined here, the addon loads there too. Both are called by the C++ runtime alone, and
// only it sees them.
#include <dlfcn.h>
#include <link.h>
#include <sys/random.h>

#include <cstdint>
#include <cstdlib>

extern "C" {

// glibc 2.36, of std::random_device, which nothing here uses.
uint32_t arc4random() noexcept {
  uint32_t value = 0;
  if (getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value))
    std::abort();  // no weak numbers in its name
  return value;
}

// glibc 2.35: the object that holds an address, and its table of frames. An exception that is thrown needs it; without
// it the process would end. The program headers have both, only slower.
struct Search {
  uintptr_t address;
  dl_find_object* found;
};

int _dl_find_object(void* address, dl_find_object* found) noexcept {
  Search search = {reinterpret_cast<uintptr_t>(address), found};
  const auto look = [](dl_phdr_info* object, size_t, void* data) {
    const Search& s = *static_cast<Search*>(data);
    const ElfW(Phdr)* frames = nullptr;
    bool inside = false;
    uintptr_t begin = UINTPTR_MAX, end = 0;
    for (int i = 0; i < object->dlpi_phnum; i++) {
      const ElfW(Phdr)& part = object->dlpi_phdr[i];
      const uintptr_t at = object->dlpi_addr + part.p_vaddr;
      if (part.p_type == PT_GNU_EH_FRAME) frames = &part;
      if (part.p_type != PT_LOAD) continue;
      inside = inside || (s.address >= at && s.address < at + part.p_memsz);
      begin = at < begin ? at : begin;
      end = at + part.p_memsz > end ? at + part.p_memsz : end;
    }
    if (!inside || !frames) return 0;
    *s.found = {};
    s.found->dlfo_map_start = reinterpret_cast<void*>(begin);
    s.found->dlfo_map_end = reinterpret_cast<void*>(end);
    s.found->dlfo_eh_frame = reinterpret_cast<void*>(object->dlpi_addr + frames->p_vaddr);
    return 1;
  };
  return dl_iterate_phdr(look, &search) == 1 ? 0 : -1;
}

}  // extern "C"
