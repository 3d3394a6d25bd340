// What the kernels of attention share: which query is which, and where queries, keys, values and outputs lie.
#pragma once

#include "elements.cuh"
#include "kernels.cuh"

namespace parvis::cuda {

constexpr float noScore = -1e30f;  // a maximum of nothing; finite, so that differences are

// Query `m` of a key/value head: row m / group of the step, head m % group of those that share the key.
struct Queries {
  int group, count, first;  // count: rows of the step; first: query of this tile
  __device__ Queries(const Attention& a, int first) : group(a.heads == a.kvHeads ? 1 : a.heads / a.kvHeads), count(a.rows.count), first(first) {}
  __device__ bool exists(int m) const { return first + m < count * group; }
  __device__ int row(int m) const { return group == 1 ? first + m : (first + m) / group; }
  __device__ int head(int m) const { return group == 1 ? 0 : (first + m) % group; }

  template <int width>
  __device__ const uint16_t* of(const Attention& a, int stream, int kvHead, int m) const {
    return static_cast<const uint16_t*>(a.queries) + ((static_cast<ptrdiff_t>(stream) * count + row(m)) * a.heads + kvHead * group + head(m)) * width;
  }
  __device__ uint16_t* output(const Attention& a, int stream, int kvHead, int m) const {
    return static_cast<uint16_t*>(a.out) + (static_cast<ptrdiff_t>(stream) * count + row(m)) * a.outStride + (kvHead * group + head(m)) * a.headSize;
  }
};

// Keys or values of a stream and key/value head.
template <int width>
__device__ inline const uint16_t* cached(const Attention& a, const void* keysOrValues, int stream, int kvHead) {
  return static_cast<const uint16_t*>(keysOrValues) + (static_cast<ptrdiff_t>(stream) * a.kvHeads + kvHead) * a.cache.slots * width;
}

// Scores are powers of two, of this times the products.
__device__ inline float scoreScale(const Attention& a) { return 1.44269504f / sqrtf(static_cast<float>(a.headSize)); }

inline bool possible(const Attention& a) {
  return a.rows.count >= 1 && a.streams >= 1 && a.streams <= 65535 && a.kvHeads >= 1 && a.kvHeads <= 65535 && a.heads >= 1 && a.heads % a.kvHeads == 0 && a.cache.slots >= 1;
}

template <int w>
struct Width {
  static constexpr int value = w;
};
// Calls `run` with the head sizes, padded, that kernels are built for.
template <class Run>
cudaError_t withWidth(const Attention& a, Run&& run) {
  switch (paddedHead(a.headSize)) {
    case 16: return run(Width<16>());
    case 32: return run(Width<32>());
    case 48: return run(Width<48>());
    case 64: return run(Width<64>());
    case 80: return run(Width<80>());
    case 96: return run(Width<96>());
    case 112: return run(Width<112>());
    case 128: return run(Width<128>());
    default: return cudaErrorInvalidValue;
  }
}

}  // namespace parvis::cuda
