// Products of rows in float64, for evaluations: features are compared in double precision.
#pragma once

#include "../kernels.h"
#include "simd.h"

namespace {

using parvis::Products;

typedef double vd __attribute__((vector_size(lanes * 4)));
typedef double vdu __attribute__((vector_size(lanes * 4), aligned(8), may_alias));

// Every sum has the same order, wherever its rows stand: equal rows have equal products.
void multiplyRows(const Products& p) {
  constexpr int high = 4, wide = 2, step = lanes / 2;
  for (int i = 0; i < p.rowsA; i += high)
    for (int j = 0; j < p.rowsB; j += wide) {
      const double* a = p.a + i * p.stride;
      const double* b = p.b + j * p.stride;
      vd sums[high][wide] = {};
      for (ptrdiff_t k = 0; k < p.stride; k += step)
        for (int x = 0; x < high; x++)
          for (int y = 0; y < wide; y++)
            sums[x][y] += *reinterpret_cast<const vdu*>(a + x * p.stride + k) *
                          *reinterpret_cast<const vdu*>(b + y * p.stride + k);
      for (int x = 0; x < high; x++)
        for (int y = 0; y < wide; y++) {
          double sum = 0;
          for (int lane = 0; lane < step; lane++) sum += sums[x][y][lane];
          p.out[(i + x) * p.outStride + j + y] += sum;
        }
    }
}

}  // namespace
