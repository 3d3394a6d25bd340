// Products of rows in float64: not of a model, but of the features of pictures, which evaluations compare.
#pragma once

#include <cstddef>

namespace parvis {

// out[i][j] += sum over k of a[i][k] b[j][k]. Rows of a and b begin every `stride` numbers, and are padded with zeros.
struct Products {
  const double* a;
  const double* b;
  double* out;       // [rowsA, outStride]
  int rowsA, rowsB;  // multiples of 4 and 2
  ptrdiff_t stride;  // a multiple of 8
  ptrdiff_t outStride;
};

// On this thread.
void addProducts(const Products& products);

}  // namespace parvis
