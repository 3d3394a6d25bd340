// What the programs of kernel families share: numbers to try, and one line a case.
#pragma once

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../../cuda/kernels.cuh"

namespace cases {

// Arrays that kernels see: on a device memory that both sides reach, under the SIMT layer plain memory.
#if defined(__CUDACC__)
// Memory that both sides reach by one address: managed, or the host's, page-locked, where a machine (a virtual one,
// most often) has none of the former. Decided by the first allocation.
inline bool hasManaged() {
  static const bool has = [] {
    void* p = nullptr;
    const bool taken = cudaMallocManaged(&p, 256) == cudaSuccess;
    if (taken) cudaFree(p);
    cudaGetLastError();
    std::fprintf(stderr, "case arrays lie in %s memory\n", taken ? "managed" : "page-locked");
    return taken;
  }();
  return has;
}
template <class T>
struct Managed {
  using value_type = T;
  Managed() = default;
  template <class U>
  Managed(const Managed<U>&) {}
  T* allocate(size_t count) {
    void* p = nullptr;
    const size_t bytes = count * sizeof(T);
    const cudaError_t e = hasManaged() ? cudaMallocManaged(&p, bytes)
                                       : cudaHostAlloc(&p, bytes, cudaHostAllocMapped | cudaHostAllocPortable);
    if (e != cudaSuccess) {
      std::fprintf(stderr, "%zu bytes for a case: %s\n", bytes, cudaGetErrorString(e));
      std::abort();
    }
    return static_cast<T*>(p);
  }
  void deallocate(T* p, size_t) {
    if (hasManaged()) cudaFree(p);
    else cudaFreeHost(p);
  }
  template <class U>
  bool operator==(const Managed<U>&) const {
    return true;
  }
  template <class U>
  bool operator!=(const Managed<U>&) const {
    return false;
  }
};
template <class T>
using Array = std::vector<T, Managed<T>>;
constexpr double sumsOff = 2e-5;  // a device cuts what it adds, in an order of its own
constexpr int often = 300;        // to meet what happens now and then
inline cudaError_t finish(cudaError_t e) { return e == cudaSuccess ? cudaDeviceSynchronize() : e; }
inline void setSeed(uint64_t) {}
#else
template <class T>
using Array = std::vector<T>;
constexpr double sumsOff = 1e-6;  // of products that are not rounded again, relative to the largest
constexpr int often = 2;
// Kernels have run when it returns; a launch that failed stays failed.
inline cudaError_t finish(cudaError_t e) { return e; }
inline void setSeed(uint64_t seed) { simt::setSeed(seed); }
#endif

inline int failures = 0;
inline const char* subject = "";  // of the cases that follow, in front of their names

__attribute__((format(printf, 2, 3))) inline void check(bool ok, const char* format, ...) {
  char name[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(name, sizeof name, format, arguments);
  va_end(arguments);
  std::printf("%sok %s%s%s\n", ok ? "" : "not ", subject, *subject ? ": " : "", name);
  failures += !ok;
}

// Whether kernels can overlap on this device, and blocks be clusters.
inline bool hasCapability9() {
  int major = 0;
  return cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess && major >= 9;
}

// Whether kernels run out of what nvcc made of them (test/ptx), which takes a hundred times as long: some cases then do
// with less.
inline bool isInterpreted() {
#if defined(__CUDACC__)
  return false;
#else
  return simt::interpret != nullptr;
#endif
}

class Numbers {  // the same in every run
 public:
  explicit Numbers(uint64_t seed) : state_(seed * 2654435769u + 1) {}
  uint64_t bits() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }
  int below(int n) { return static_cast<int>((bits() >> 20) % static_cast<uint64_t>(n)); }
  float uniform() { return static_cast<float>(bits() >> 40) * 0x1p-24f; }
  float normal() {  // near enough
    float sum = 0;
    for (int i = 0; i < 12; i++) sum += uniform();
    return sum - 6;
  }
  Array<float> normals(size_t count, float scale = 1) {
    Array<float> v(count);
    for (float& f : v) f = normal() * scale;
    return v;
  }

 private:
  uint64_t state_;
};

inline uint32_t bits(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}
inline uint16_t bf16(float f) { return static_cast<uint16_t>((bits(f) + 0x7fffu + (bits(f) >> 16 & 1)) >> 16); }
inline float widen(uint16_t h) {
  const uint32_t u = static_cast<uint32_t>(h) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline Array<uint16_t> bf16(const Array<float>& v) {
  Array<uint16_t> out(v.size());
  for (size_t i = 0; i < v.size(); i++) out[i] = bf16(v[i]);
  return out;
}

}  // namespace cases
