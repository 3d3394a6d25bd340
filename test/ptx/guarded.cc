// See guarded.h.
#include "guarded.h"

namespace ptx {

template <class W>
W readGlobal(const void* p) {
  return *static_cast<const W*>(p);
}
template <class W>
void writeGlobal(void* p, W value) {
  *static_cast<W*>(p) = value;
}

template uint8_t readGlobal(const void*);
template uint16_t readGlobal(const void*);
template uint32_t readGlobal(const void*);
template uint64_t readGlobal(const void*);
template Sixteen readGlobal(const void*);
template void writeGlobal(void*, uint8_t);
template void writeGlobal(void*, uint16_t);
template void writeGlobal(void*, uint32_t);
template void writeGlobal(void*, uint64_t);
template void writeGlobal(void*, Sixteen);

}  // namespace ptx
