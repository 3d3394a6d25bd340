// What the kernels of attention share: which query is which, and where queries, keys, values and outputs lie.
#pragma once

#include "elements.cuh"
#include "kernels.cuh"

namespace parvis::cuda {

// Query `m` of a tile of a group: row (first + m) / shared of the group, head (first + m) % shared of those that share
// the key.
struct Queries {
  int shared, base, queries, first;  // base: row of the step that the group begins with; first: query of this tile
  __device__ Queries(const Attention& a, const StreamRows& group, int first)
      : shared(a.heads == a.kvHeads ? 1 : a.heads / a.kvHeads), base(group.first), queries(group.count * shared),
        first(first) {}
  // Does this launch answer the group, and has the group this tile?
  __device__ bool wanted(const Attention& a) const {
    return first < queries && queries >= a.leastQueries && queries <= a.maxQueries;
  }
  __device__ bool exists(int m) const { return first + m < queries; }
  __device__ int row(int m) const { return base + (shared == 1 ? first + m : (first + m) / shared); }
  __device__ int head(int m) const { return shared == 1 ? 0 : (first + m) % shared; }

  template <int width>
  __device__ const uint16_t* of(const Attention& a, int kvHead, int m) const {
    return static_cast<const uint16_t*>(a.queries) +
           (static_cast<ptrdiff_t>(row(m)) * a.heads + kvHead * shared + head(m)) * width;
  }
  __device__ uint16_t* output(const Attention& a, int kvHead, int m) const {
    return static_cast<uint16_t*>(a.out) + static_cast<ptrdiff_t>(row(m)) * a.outStride +
           (kvHead * shared + head(m)) * a.headSize;
  }
};

__device__ inline StreamRows groupOf(const Attention& a) { return ptx::loadFresh(a.groups + blockIdx.z); }

// Keys or values of a stream and key/value head.
template <int width>
__device__ inline const uint16_t* cached(const Attention& a, const void* keysOrValues, int stream, int kvHead) {
  return static_cast<const uint16_t*>(keysOrValues) +
         (static_cast<ptrdiff_t>(stream) * a.kvHeads + kvHead) * a.cache.slots * width;
}

// Scores are powers of two, of this times the products.
__device__ inline float scoreScale(const Attention& a) { return 1.44269504f / sqrtf(static_cast<float>(a.headSize)); }

inline bool valid(const Attention& a) {
  return a.rows.count >= 1 && a.groupCount >= 1 && a.groupCount <= 65535 && a.maxQueries >= 1 && a.kvHeads >= 1 &&
         a.kvHeads <= 65535 && a.heads >= 1 && a.heads % a.kvHeads == 0 && a.cache.slots >= 1;
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
