// What the programs of both projections share: packed weights, and a projection to fill in.
#pragma once

#include "../../common/floats.h"
#include "reference.h"

namespace projections {

using namespace parvis::cuda;
using namespace reference;

using parvis::WeightFormat;
inline const char* nameOf(WeightFormat format) { return format == WeightFormat::int8 ? "int8" : "bfloat16"; }

inline Array<float> widened(const Array<uint16_t>& bits) {
  Array<float> numbers;
  for (const uint16_t b : bits) numbers.push_back(cases::widen(b));
  return numbers;
}

// Rows of bfloat16 elements times a matrix of floats, in double precision: [rows, outputs rounded up to 32].
inline Array<float> multiplied(const Array<uint16_t>& x, int stride, int rows, const Array<float>& matrix, int outputs,
                               int inputs) {
  Array<float> y(static_cast<size_t>(rows * up(outputs, 32)));
  for (int r = 0; r < rows; r++) {
    const Array<float> row = widened({x.begin() + r * stride, x.begin() + r * stride + inputs});
    for (int o = 0; o < outputs; o++) {
      double sum = 0;
      for (int k = 0; k < inputs; k++)
        sum += static_cast<double>(row[static_cast<size_t>(k)]) *
               static_cast<double>(matrix[static_cast<size_t>(o * inputs + k)]);
      y[static_cast<size_t>(r * up(outputs, 32) + o)] = static_cast<float>(sum);
    }
  }
  return y;
}

struct Weights {
  int pairs, inputs;
  Array<uint16_t> data;
  Packed packed;
  Array<float> low, high;  // what the packed numbers are
  // Interleaved outputs of one matrix, or gates and ups of two.
  Weights(const Array<uint16_t>& first, const Array<uint16_t>* second, int outputs, int inputs,
          WeightFormat format = WeightFormat::bfloat16)
      : pairs(second ? outputs : (outputs + 1) / 2), inputs(inputs), low(widened(first)),
        high(second ? widened(*second) : Array<float>()) {
    packed = {nullptr, pairs, inputs, format};
    data.resize(packed.bytes() / 2 + 8, 0x7fc0);  // NaN where nothing is packed
    uint16_t* aligned = data.data();
    while (reinterpret_cast<uintptr_t>(aligned) % 16 != 0) aligned++;
    packed.data = aligned;
    const int lowRows = second ? outputs : (outputs + 1) / 2, highRows = second ? outputs : outputs / 2;
    cudaError_t e;
    if (format == WeightFormat::int8) {
      const Integers a(low, outputs, inputs), b(high, second ? outputs : 0, inputs);
      const int each = second ? 1 : 2;  // rows between two of the low ones
      const auto from = [&](int firstRow, int rows) {
        const auto at = [&](const Integers& of, int row) {
          return std::pair(of.integers.data() + row * inputs, of.scales.data() + row * packed.groups());
        };
        const auto [lows, lowScales] = at(a, each * firstRow);
        const auto [highs, highScales] = second ? at(b, firstRow) : at(a, std::min(outputs - 1, each * firstRow + 1));
        return IntegerPacking{lows,          highs,
                              each * inputs, lowScales,
                              highScales,    each * packed.groups(),
                              rows,          std::max(0, std::min(rows, highRows - firstRow))};
      };
      // In two parts, as a long matrix comes.
      const int firstTiles = packed.tiles() / 2;
      e = firstTiles > 0 ? packIntegers(from(0, 8 * firstTiles), packed, 0, 64, nullptr) : cudaSuccess;
      if (e == cudaSuccess)
        e = packIntegers(from(8 * firstTiles, lowRows - 8 * firstTiles), packed, firstTiles, 64, nullptr);
      e = cases::finish(e);
      low = a.numbers, high = b.numbers;
    } else {
      const Packing from =
          second ? Packing{first.data(), second->data(), inputs, lowRows, highRows, Element::bfloat16}
                 : Packing{first.data(), first.data() + inputs, 2 * inputs, lowRows, highRows, Element::bfloat16};
      e = cases::finish(pack(from, packed, 64, nullptr));
    }
    if (e != cudaSuccess) cases::check(false, "packing");
  }

 private:
  struct Integers {
    Array<int8_t> integers;
    Array<float> scales, numbers;
    Integers(const Array<float>& matrix, int rows, int inputs)
        : integers(matrix.size()), scales(static_cast<size_t>(rows * (parvis::scaleGroups(inputs)))),
          numbers(matrix.size()) {
      const int groups = parvis::scaleGroups(inputs);
      for (int r = 0; r < rows; r++) {
        parvis::quantizeRow(matrix.data() + r * inputs, inputs, integers.data() + r * inputs,
                            scales.data() + r * groups);
        parvis::dequantizeRow(integers.data() + r * inputs, scales.data() + r * groups, inputs,
                              numbers.data() + r * inputs);
      }
    }
  };
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
                               const Array<float>& matrix, int outputs, int inputs) {
  Array<float> y = multiplied(behind.elements, behind.stride, rows, matrix, outputs, inputs);
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
