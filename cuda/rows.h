// How rows of activations are multiplied and attended: which kernels, by how many rows there are and in what precision.
#pragma once

#include "device.h"
#include "loader.h"

namespace parvis::cuda {

constexpr int rowThreads = 256;
constexpr int mostLogitRows = 1024;  // that exist at a time
int samplingThreads(int vocabulary);

inline ptrdiff_t rowStride(int elements) { return (static_cast<ptrdiff_t>(elements) + 15) / 16 * 16; }

// Rows behind a norm, as projections take them: in bfloat16 what makers of x leave (kernels.cuh, Weighted), in float32 normed.
struct Behind {
  void* elements;      // [rows, stride]
  ptrdiff_t stride;
  float* squares;      // [rows, squaresStride(dim)]; null in float32
  Weighted weighted(const float* weight) const { return squares ? Weighted{weight, static_cast<uint16_t*>(elements), stride, squares} : Weighted{}; }
  void give(Projection& p, float eps) const { p.elements = elements, p.xStride = stride, p.squares = squares, p.eps = eps; }
};
struct NormedRows {
  const float* x;      // [any, xStride]
  ptrdiff_t xStride;
  const int32_t* from; // [rows]: which row of x; null: the same
  int rows, dim;
  const float* weight; // [dim], and zeroes to a multiple of 16
  float eps;
};
cudaError_t norm(const Device& device, const NormedRows& n, const Behind& to);

// Fills in p's weights. Rows up to mostSkinnyRows stream the packed weights, more go through tiles: a row has the same bits in
// both. In float32 plain.
cudaError_t multiply(const Device& device, Element element, Projection p, const Matrix& w);

// In float32 plain; else split over the keys for up to mostSplitQueries a key/value head, by tiles of queries above it.
cudaError_t attendCached(const Device& device, Element element, const Attention& a);
// The most rows of a stream that are split: what partials and counters are taken for.
int splitRows(int maxRows, int heads, int kvHeads);

}  // namespace parvis::cuda
