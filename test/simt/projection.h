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
  Weights(const Array<uint16_t>& low, const Array<uint16_t>* high, int outputs, int inputs)
      : pairs(high ? outputs : (outputs + 1) / 2), inputs(inputs) {
    packed = {nullptr, pairs, inputs};
    data.resize(packed.elements() + 8, 0x7fc0);  // NaN where nothing is packed
    packed.data = data.data();
    while (reinterpret_cast<uintptr_t>(packed.data) % 16 != 0) packed.data++;
    const Packing from =
        high ? Packing{low.data(), high->data(), inputs, outputs, outputs, Element::bfloat16}
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
  return p;
}

// What whoever makes rows of x leaves for the norm that comes next: by the definition.
struct Left {
  int dim, stride;
  Array<uint16_t> elements;
  Array<float> squares;
  Left(int rows, int dim)
      : dim(dim), stride(up(dim, 16)), elements(static_cast<size_t>(rows * stride)),
        squares(static_cast<size_t>(rows * squaresStride(dim))) {}
  Left(const Array<float>& x, int xStride, int rows, const Array<float>& weight, int dim) : Left(rows, dim) {
    for (int r = 0; r < rows; r++)
      for (int tile = 0; 16 * tile < dim; tile++) {
        float pairs[8] = {};
        for (int k = 16 * tile; k < std::min(dim, 16 * tile + 16); k++) {
          const float v = x[static_cast<size_t>(r * xStride + k)];
          elements[static_cast<size_t>(r * stride + k)] = cases::bf16(v * weight[static_cast<size_t>(k)]);
          pairs[k % 16 / 2] = k % 2 == 0 ? v * v : pairs[k % 16 / 2] + v * v;
        }
        squares[static_cast<size_t>(r * squaresStride(dim) + tile)] =
            ((pairs[0] + pairs[1]) + (pairs[2] + pairs[3])) + ((pairs[4] + pairs[5]) + (pairs[6] + pairs[7]));
      }
  }
  NormInput of(const Array<float>& weight) { return {weight.data(), elements.data(), stride, squares.data()}; }
  void give(Projection& p, int firstRow = 0) const {
    p.elements = elements.data() + firstRow * stride, p.xStride = stride,
    p.squares = squares.data() + firstRow * squaresStride(dim), p.eps = 1e-5f;
  }
  bool operator==(const Left& o) const { return elements == o.elements && squares == o.squares; }
};

// What a projection behind a norm gives, of the elements that it is given: [rows, outputs rounded up to 32].
inline Array<float> behindNorm(const Left& behind, const Array<float>& x, int xStride, int rows,
                               const Array<uint16_t>& matrix, int outputs, int inputs) {
  Array<float> y = product(behind.elements, behind.stride, rows, matrix, outputs, inputs);
  const size_t stride = y.size() / static_cast<size_t>(rows);
  for (int r = 0; r < rows; r++) {
    double squares = 0;
    for (int k = 0; k < inputs; k++)
      squares += std::pow(static_cast<double>(x[static_cast<size_t>(r * xStride + k)]), 2);
    for (size_t o = 0; o < stride; o++)
      y[static_cast<size_t>(r) * stride + o] *= static_cast<float>(1 / std::sqrt(squares / inputs + 1e-5));
  }
  return y;
}

// Where the rotation takes rows of QKV outputs [rows, stride], by its definition: pairs of a query or a key turn by the
// position along the axis that they belong to; without a position they are zero. Values, and pairs of no axis, are as
// they were.
template <class E>
void rotateByDefinition(const Rotation& r, const Array<float>& qkv, int stride) {
  const int width = paddedHead(r.headSize), all = r.pairs[0] + r.pairs[1] + r.pairs[2];
  for (int i = 0; i < r.rows.count; i++) {
    const parvis::Row& row = r.rows.rows[i];
    for (int o = 0; o < (r.heads + 2 * r.kvHeads) * r.headSize; o++) {
      const int head = o / r.headSize, d = o % r.headSize, pair = d / 2;
      const bool isValue = head >= r.heads + r.kvHeads;
      const float* in = qkv.data() + i * stride + o - d % 2;
      float out = in[d % 2];
      if (!isValue && pair < all) {
        const int axis = pair < r.pairs[0] ? 0 : pair < r.pairs[0] + r.pairs[1] ? 1 : 2;
        const int position = row.cell[axis], angle = position * all + pair;
        const float c = position < 0 ? 0 : r.cosine[angle], s = position < 0 ? 0 : r.sine[angle];
        out = d % 2 == 0 ? in[0] * c - in[1] * s : in[0] * s + in[1] * c;
      }
      if (head < r.heads) {
        convert(out, static_cast<E*>(r.queries)[(i * r.heads + head) * width + d]);
      } else if (row.slot >= 0) {
        const int keyHead = row.stream * r.kvHeads + (head - r.heads) % r.kvHeads;
        void* const to = isValue ? r.cache.values : r.cache.keys;
        convert(out, static_cast<E*>(to)[(keyHead * r.cache.slots + row.slot) * width + d]);
      }
    }
  }
}

inline void zeroPads(Array<float>& x, int stride, int used) {
  for (size_t i = 0; i < x.size(); i++)
    if (static_cast<int>(i % static_cast<size_t>(stride)) >= used) x[i] = 0;
}

}  // namespace projections
