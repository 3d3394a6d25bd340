// What the programs of both projections share: packed weights, and a projection to fill in.
#pragma once

#include "reference.h"

namespace projections {

using namespace parvis::cuda;
using namespace reference;

struct Weights {
  int pairs, inputs;
  Array<uint16_t> data;
  Packed packed;
  // Interleaved outputs of one matrix, or gates and ups of two.
  Weights(const Array<uint16_t>& low, const Array<uint16_t>* high, int outputs, int inputs) : pairs(high ? outputs : (outputs + 1) / 2), inputs(inputs) {
    packed = {nullptr, pairs, inputs};
    data.resize(packed.elements() + 8, 0x7fc0);  // NaN where nothing is packed
    packed.data = data.data();
    while (reinterpret_cast<uintptr_t>(packed.data) % 16 != 0) packed.data++;
    const Packing from = high ? Packing{low.data(), high->data(), inputs, outputs, outputs, Element::bfloat16}
                              : Packing{low.data(), low.data() + inputs, 2 * inputs, (outputs + 1) / 2, outputs / 2, Element::bfloat16};
    if (cases::finish(pack(from, packed, 64, nullptr)) != cudaSuccess) cases::check(false, "packing");
  }
};

inline Projection plain(const Weights& w, int rows, Epilogue epilogue) {
  Projection p{};
  p.weights = w.packed;
  p.rows = rows;
  p.xStride = up(w.inputs, 16);
  p.epilogue = epilogue;
  p.eps = 1e-5f;
  return p;
}

inline void zeroPads(Array<float>& x, int stride, int used) {
  for (size_t i = 0; i < x.size(); i++)
    if (static_cast<int>(i % static_cast<size_t>(stride)) >= used) x[i] = 0;
}

}  // namespace projections
