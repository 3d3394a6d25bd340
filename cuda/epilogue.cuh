// What becomes of a pair of a projection's outputs: the same for packed bfloat16 weights and for plain float32 ones.
#pragma once

#include "rotate.cuh"

namespace parvis::cuda {

// silu(gate) up
__device__ inline float gated(float gate, float up) { return gate / (1.0f + ptx::exp2Fast(gate * -1.44269504f)) * up; }

template <class E>
__device__ inline void finish(const Projection& p, Epilogue epilogue, int row, int pair, float low, float high) {
  const ptrdiff_t at = row * p.yStride;
  if (epilogue == Epilogue::store) {
    storePair(p.y + at + 2 * pair, low, high);
  } else if (epilogue == Epilogue::add) {
    const float2 old = loadPair(p.y + at + 2 * pair);
    storePair(p.y + at + 2 * pair, old.x + low, old.y + high);
  } else if (epilogue == Epilogue::swiglu) {
    storeElement(static_cast<E*>(p.out) + at + pair, gated(low, high));
  } else {
    placePair<E>(p.rotation, row, 2 * pair, low, high);
  }
}

// The checks of either; rows of x are read four elements at a time, pairs of y are written together.
inline bool possible(const Projection& p, int pairs, int inputs) {
  if (p.rows < 1 || pairs < 1 || inputs < 2 || inputs % 2 != 0 || p.xStride % 4 != 0 || p.xStride < inputs || p.yStride % 2 != 0) return false;
  return p.epilogue != Epilogue::append || (possible(p.rotation) && p.rows == p.rotation.streams * p.rotation.rows.count &&
                                            2 * pairs == (p.rotation.heads + 2 * p.rotation.kvHeads) * p.rotation.headSize);
}

}  // namespace parvis::cuda
