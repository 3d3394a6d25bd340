// How rows of activations are multiplied and attended: which kernels, by how many rows there are and in what precision.
// Sessions and single operations (single-operation.h) share it, so that what is measured is what runs.
#pragma once

#include "device.h"
#include "loader.h"

namespace parvis::cuda {

constexpr int rowThreads = 256;
constexpr int mostLogitRows = 1024;  // that exist at a time
int samplingThreads(int vocabulary);

inline ptrdiff_t rowStride(int elements) { return (static_cast<ptrdiff_t>(elements) + 15) / 16 * 16; }

// Fills in p's weights. Rows up to mostSkinnyRows stream the packed weights, few of them norm and all in one kernel; more, or
// float32, have the norm apart, in `normed` (elements [rows, xStride]). A row has the same bits on all three ways.
cudaError_t multiply(const Device& device, Element element, Projection p, const Matrix& w, void* normed);

// In float32 plain; else split over the keys for up to mostSplitQueries a key/value head, by tiles of queries above it.
cudaError_t attendCached(const Device& device, Element element, const Attention& a);
// The most rows of a stream that are split: what partials and counters are taken for.
int splitRows(int maxRows, int heads, int kvHeads);

}  // namespace parvis::cuda
