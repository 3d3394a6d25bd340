// Loads, stores and atomic operations. An address must be a multiple of what is accessed, as on a device. Shared memory
// and parameters are checked against the array that an address belongs to, global memory by the address sanitizer.
#include "guarded.h"
#include "program.h"

namespace ptx {

Now now{};

uint8_t* sharedAt(const Instruction* i, const Thread& t, uint32_t address, uint32_t bytes) {
  const uint32_t array = (address >> arrayBits) - 1;
  if (array >= t.entry->shared.size()) fail(i, t, "a shared address that belongs to no array");
  const Thread::Array& a = t.shared[array];
  const int64_t offset = static_cast<int64_t>(address) - a.base;
  if (address % bytes != 0) fail(i, t, "misaligned access to shared memory");
  if (offset < 0 || offset + bytes > a.bytes)
    fail(i, t,
         std::to_string(bytes) + " bytes at " + std::to_string(offset) + " of " + t.entry->shared[array].name + " (" +
             std::to_string(a.bytes) + " bytes), shared memory of the block");
  return a.data + offset;
}

namespace {

enum class Space { global, shared, parameter, local, generic };

template <size_t bytes>
struct AccessOf {
  using type = Word<
      std::conditional_t<bytes == 1, uint8_t,
                         std::conditional_t<bytes == 2, uint16_t, std::conditional_t<bytes == 4, uint32_t, uint64_t>>>>;
};
template <>
struct AccessOf<16> {
  using type = Sixteen;
};
template <size_t bytes>
using Access = typename AccessOf<bytes>::type;

const uint8_t* parameterAt(const Instruction* i, const Thread& t, uint64_t address, uint32_t bytes) {
  const uint64_t offset = address - parameterBase;
  if (offset > t.entry->parameterBytes || offset + bytes > t.entry->parameterBytes)
    fail(i, t, "a read beyond the parameters");
  if (offset % bytes != 0) fail(i, t, "misaligned read of a parameter");
  return t.parameters + offset;
}
uint8_t* globalAt(const Instruction* i, const Thread& t, uint64_t address, uint32_t bytes) {
  if (address % bytes != 0) fail(i, t, "misaligned access to global memory");
  now = {i, &t};
  return reinterpret_cast<uint8_t*>(address);
}
uint8_t* localAt(const Instruction* i, const Thread& t, uint64_t address, uint32_t bytes) {
  const uint64_t offset = address - reinterpret_cast<uintptr_t>(t.local);
  if (offset > t.entry->localBytes || offset + bytes > t.entry->localBytes || address % bytes != 0)
    fail(i, t, "an access beyond local memory, or misaligned");
  return t.local + offset;
}

template <Space space, size_t bytes>
Access<bytes> read(const Instruction* i, const Slot* r, Thread& t) {
  using W = Access<bytes>;
  const uint64_t address = r[i->a] + static_cast<uint64_t>(i->value);
  const void* p;
  if constexpr (space == Space::shared) p = sharedAt(i, t, static_cast<uint32_t>(address), bytes);
  else if constexpr (space == Space::parameter) p = parameterAt(i, t, address, bytes);
  else if constexpr (space == Space::local) p = localAt(i, t, address, bytes);
  else if (space == Space::generic && address >> 60 == sharedWindow >> 60)
    p = sharedAt(i, t, static_cast<uint32_t>(address), bytes);
  else if (space == Space::generic && address >> 60 == parameterWindow >> 60)
    p = parameterAt(i, t, address - parameterWindow, bytes);
  else return readGlobal<W>(globalAt(i, t, address, bytes));
  W value;
  std::memcpy(&value, p, bytes);
  return value;
}
template <Space space, size_t bytes>
void write(const Instruction* i, const Slot* r, Thread& t, Access<bytes> value) {
  const uint64_t address = r[i->a] + static_cast<uint64_t>(i->value);
  if (space == Space::shared || (space == Space::generic && address >> 60 == sharedWindow >> 60))
    std::memcpy(sharedAt(i, t, static_cast<uint32_t>(address), bytes), &value, bytes);
  else if (space == Space::local) std::memcpy(localAt(i, t, address, bytes), &value, bytes);
  else writeGlobal(globalAt(i, t, address, bytes), value);
}

// T: the type of an element; its sign matters where the register is wider.
template <Space space, class T>
const Instruction* load(const Instruction* i, Slot* r, Thread& t) {
  r[i->d] = widened(std::bit_cast<T>(read<space, sizeof(T)>(i, r, t)));
  return i + 1;
}
template <Space space, class T, size_t count>
const Instruction* loadVector(const Instruction* i, Slot* r, Thread& t) {
  const Access<sizeof(T)* count> whole = read<space, sizeof(T) * count>(i, r, t);
  T elements[count];
  std::memcpy(elements, &whole, sizeof elements);
  for (size_t k = 0; k < count; k++) r[i->more[k]] = widened(elements[k]);
  return i + 1;
}
template <Space space, class T>
const Instruction* store(const Instruction* i, Slot* r, Thread& t) {
  write<space, sizeof(T)>(i, r, t, get<T>(r, i->b));
  return i + 1;
}
template <Space space, class T, size_t count>
const Instruction* storeVector(const Instruction* i, Slot* r, Thread& t) {
  T elements[count];
  for (size_t k = 0; k < count; k++) elements[k] = get<T>(r, i->more[k]);
  Access<sizeof(T) * count> whole;
  std::memcpy(&whole, elements, sizeof elements);
  write<space, sizeof(T) * count>(i, r, t, whole);
  return i + 1;
}
// An address of this block's shared memory, in another block of the cluster.
const Instruction* mapRank(const Instruction* i, Slot* r, Thread& t) {
  const uint32_t address = get<uint32_t>(r, i->a), rank = get<uint32_t>(r, i->b);
  sharedAt(i, t, address, 4);
  if (rank >= 8) fail(i, t, "mapa: no cluster has a block of rank " + std::to_string(rank));
  r[i->d] = address | (rank + 1) << rankBits;
  return i + 1;
}
template <class T, size_t count>
const Instruction* loadOfCluster(const Instruction* i, Slot* r, Thread& t) {
  const uint32_t address = static_cast<uint32_t>(r[i->a] + static_cast<uint64_t>(i->value)), rank = address >> rankBits;
  if (rank == 0) fail(i, t, "ld.shared::cluster: an address that mapa did not make");
  const uint8_t* const own = sharedAt(i, t, address & ((1u << rankBits) - 1), sizeof(T) * count);
  T elements[count];
  std::memcpy(elements, simt::sharedOf(own, rank - 1, where(i, t)), sizeof elements);
  for (size_t k = 0; k < count; k++) r[count == 1 ? i->d : i->more[k]] = widened(elements[k]);
  return i + 1;
}
// Most likely of a spin, so it goes on when nobody else can.
template <class T>
const Instruction* loadAcquire(const Instruction* i, Slot* r, Thread& t) {
  simt::waitUntil(
      "ld.acquire", [] { return true; }, where(i, t));
  return load<Space::global, T>(i, r, t);
}

// What was there; others may come before.
template <Space space, class T, auto f>
const Instruction* atomic(const Instruction* i, Slot* r, Thread& t) {
  simt::perturb();
  const T old = read<space, sizeof(T)>(i, r, t);
  write<space, sizeof(T)>(i, r, t, static_cast<Word<T>>(f(old, get<T>(r, i->b))));
  r[i->d] = static_cast<Word<T>>(old);
  return i + 1;
}
template <Space space, class T, auto f>
const Instruction* reduce(const Instruction* i, Slot* r, Thread& t) {
  write<space, sizeof(T)>(i, r, t,
                          static_cast<Word<T>>(f(static_cast<T>(read<space, sizeof(T)>(i, r, t)), get<T>(r, i->b))));
  simt::perturb();
  return i + 1;
}
template <Space space, class T>
const Instruction* exchangeIfEqual(const Instruction* i, Slot* r, Thread& t) {
  simt::perturb();
  const T old = read<space, sizeof(T)>(i, r, t);
  if (old == get<T>(r, i->b)) write<space, sizeof(T)>(i, r, t, get<T>(r, i->c));
  r[i->d] = old;
  return i + 1;
}

template <Space space, class T>
void addElement(Forms& f, const std::string& name, const std::string& type) {
  constexpr bool outside = space == Space::global || space == Space::generic;
  constexpr Touch loads = outside ? Touch::load : Touch::none, stores = outside ? Touch::store : Touch::none;
  f.add("ld" + name + type, load<space, T>, "dm", loads);
  f.add("ld" + name + ".v2" + type, loadVector<space, T, 2>, "vm", loads);
  if constexpr (sizeof(T) <= 4) f.add("ld" + name + ".v4" + type, loadVector<space, T, 4>, "vm", loads);
  if constexpr (space != Space::parameter) {
    using W = Word<T>;
    f.add("st" + name + type, store<space, W>, "mb", stores);
    f.add("st" + name + ".v2" + type, storeVector<space, W, 2>, "mv", stores);
    if constexpr (sizeof(T) <= 4) f.add("st" + name + ".v4" + type, storeVector<space, W, 4>, "mv", stores);
  }
}
template <Space space>
void addSpace(Forms& f, const std::string& name) {
  for (const char* kind : {".u", ".b"}) {
    addElement<space, uint8_t>(f, name, kind + std::string("8"));
    addElement<space, uint16_t>(f, name, kind + std::string("16"));
    addElement<space, uint32_t>(f, name, kind + std::string("32"));
    addElement<space, uint64_t>(f, name, kind + std::string("64"));
  }
  addElement<space, int8_t>(f, name, ".s8");
  addElement<space, int16_t>(f, name, ".s16");
  addElement<space, int32_t>(f, name, ".s32");
  addElement<space, int64_t>(f, name, ".s64");
  addElement<space, uint32_t>(f, name, ".f32");
  addElement<space, uint64_t>(f, name, ".f64");
}

template <Space space, class T>
void addAtomic(Forms& f, const std::string& name, const std::string& type) {
  constexpr Touch touch = space == Space::shared ? Touch::none : Touch::store;
  const auto both = [&]<auto op>(const char* what) {
    f.add("atom" + name + what + type, atomic<space, T, op>, "dmb", touch);
    f.add("red" + name + what + type, reduce<space, T, op>, "mb", touch);
  };
  both.template operator()<[](T a, T b) { return static_cast<Word<T>>(a) + static_cast<Word<T>>(b); }>(".add");
  both.template operator()<[](T a, T b) { return a < b ? a : b; }>(".min");
  both.template operator()<[](T a, T b) { return (a > b) ? a : b; }>(".max");
}
template <Space space, class T>
void addAtomicBits(Forms& f, const std::string& name, const std::string& type) {
  constexpr Touch touch = space == Space::shared ? Touch::none : Touch::store;
  f.add("atom" + name + ".exch" + type, atomic<space, T, [](T, T b) { return b; }>, "dmb", touch);
  f.add("atom" + name + ".cas" + type, exchangeIfEqual<space, T>, "dmbc", touch);
  f.add("atom" + name + ".or" + type, atomic<space, T, [](T a, T b) { return a | b; }>, "dmb", touch);
  f.add("atom" + name + ".and" + type, atomic<space, T, [](T a, T b) { return a & b; }>, "dmb", touch);
}
template <Space space>
void addAtomics(Forms& f, const std::string& name) {
  addAtomic<space, uint32_t>(f, name, ".u32"), addAtomic<space, int32_t>(f, name, ".s32");
  addAtomic<space, uint64_t>(f, name, ".u64"), addAtomic<space, int64_t>(f, name, ".s64");
  addAtomicBits<space, uint32_t>(f, name, ".b32"), addAtomicBits<space, uint64_t>(f, name, ".b64");
}

}  // namespace

void addMemory(Forms& f) {
  addSpace<Space::global>(f, ".global");
  addSpace<Space::shared>(f, ".shared");
  addSpace<Space::parameter>(f, ".param");
  addSpace<Space::local>(f, ".local");
  addSpace<Space::generic>(f, "");
  addAtomics<Space::global>(f, ".global");
  addAtomics<Space::shared>(f, ".shared");
  addAtomics<Space::generic>(f, "");
  f.add("mapa.shared::cluster.u32", mapRank, "dab");
  f.add("ld.shared::cluster.u32", loadOfCluster<uint32_t, 1>, "dm");
  f.add("ld.shared::cluster.v4.u32", loadOfCluster<uint32_t, 4>, "vm");
  for (const char* type : {".u32", ".b32"})
    f.add(std::string("ld.acquire.global") + type, loadAcquire<uint32_t>, "dm", Touch::load);
}

}  // namespace ptx
