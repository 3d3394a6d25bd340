// cuda/tile.cu against cuda/project.cu, whose bits every row must have, and against the CPU backend's products.
#include "projection.h"

using namespace parvis::cuda;
using namespace reference;
using namespace projections;

namespace {

const char* nameOf(Tile tile) { return tile == Tile::small ? "small" : tile == Tile::large ? "large" : "fitting"; }

// The same by project.cu, as many rows at a time as it takes.
cudaError_t skinny(Projection p) {
  cudaError_t e = cudaSuccess;
  const int most = maxSkinnyRows(p.weights.format);
  for (int first = 0; first < p.rows && e == cudaSuccess; first += most) {
    Projection part = p;
    part.rows = std::min(most, p.rows - first);
    if (p.squares) part.squares += first * squaresStride(p.weights.inputs);
    if (p.next.weight)
      part.next.elements += first * p.next.stride, part.next.squares += first * squaresStride(2 * p.weights.pairs);
    part.elements = static_cast<const uint16_t*>(p.elements) + first * p.xStride;
    if (p.y) part.y += first * p.yStride;
    if (p.out) part.out = static_cast<uint16_t*>(p.out) + first * p.yStride;
    e = project(part, nullptr);
  }
  return cases::finish(e);
}

void products(WeightFormat format, int outputs, int inputs, int rows, Tile tile) {
  cases::Numbers numbers(static_cast<uint64_t>(outputs + inputs + rows));
  const int stride = up(inputs, 16), yStride = up(outputs, 32);
  Array<float> x = numbers.normals(static_cast<size_t>(rows * stride), 2);
  zeroPads(x, stride, inputs);
  const Array<uint16_t> matrix = cases::bf16(numbers.normals(static_cast<size_t>(outputs * inputs), 0.2f)),
                        bits = cases::bf16(x);
  const Weights w(matrix, nullptr, outputs, inputs, format);
  const Array<float> expected = multiplied(bits, stride, rows, w.low, outputs, inputs);
  Array<float> y(static_cast<size_t>(rows * yStride)), y2 = y;
  Projection p = plain(w, rows, Epilogue::store), p2 = p;
  p.elements = p2.elements = bits.data();
  p.yStride = p2.yStride = yStride;
  p.y = y.data();
  p2.y = y2.data();
  cudaError_t e = cases::finish(projectTiled(p, nullptr, tile));
  const double off = relative(y, expected);
  cases::check(e == cudaSuccess && off < cases::sumsOff, "store, %s blocks, %d rows of %d -> %d: %.2g off",
               nameOf(tile), rows, inputs, outputs, off);
  if (e == cudaSuccess) e = skinny(p2);
  cases::check(e == cudaSuccess && y == y2, "store, %s blocks, %d rows of %d -> %d: the bits of few rows", nameOf(tile),
               rows, inputs, outputs);
  p.epilogue = p2.epilogue = Epilogue::add;
  e = cases::finish(projectTiled(p, nullptr, tile));
  if (e == cudaSuccess) e = skinny(p2);
  cases::check(e == cudaSuccess && y == y2 && y[0] != 0 && std::fabs(y[0] - 2 * expected[0]) < 1e-3f * std::fabs(y[0]),
               "add, %s blocks, %d rows of %d -> %d: the bits of few rows", nameOf(tile), rows, inputs, outputs);
  if (outputs % 2 != 0) return;
  const Array<float> weight = numbers.normals(static_cast<size_t>(up(outputs, 16)));
  Left left(rows, outputs), left2(rows, outputs);
  p.next = left.of(weight);
  p2.next = left2.of(weight);
  e = cases::finish(projectTiled(p, nullptr, tile));
  if (e == cudaSuccess) e = skinny(p2);
  cases::check(e == cudaSuccess && y == y2 && left == left2 && left == Left(y, yStride, rows, weight, outputs),
               "add leaves rows for the next norm, %s blocks, %d of %d -> %d: the bits of few rows", nameOf(tile), rows,
               inputs, outputs);
}

void swiglu(WeightFormat format, int features, int inputs, int rows, Tile tile) {
  cases::Numbers numbers(static_cast<uint64_t>(features + inputs + rows));
  const int stride = up(inputs, 16), outStride = up(features, 16);
  Array<float> x = numbers.normals(static_cast<size_t>(rows * stride), 2),
               weight = numbers.normals(static_cast<size_t>(stride));
  zeroPads(x, stride, inputs);
  const auto matrix = [&] { return cases::bf16(numbers.normals(static_cast<size_t>(features * inputs), 0.2f)); };
  const Array<uint16_t> gate = matrix(), upward = matrix();
  const Weights w(gate, &upward, features, inputs, format);
  const Left behind(x, stride, rows, weight, inputs);
  const Array<float> g = behindNorm(behind, x, stride, rows, w.low, features, inputs),
                     u = behindNorm(behind, x, stride, rows, w.high, features, inputs);
  Array<uint16_t> out(static_cast<size_t>(rows * outStride)), out2 = out;
  Projection p = plain(w, rows, Epilogue::swiglu), p2 = p;
  behind.give(p);
  behind.give(p2);
  p.out = out.data();
  p2.out = out2.data();
  p.yStride = p2.yStride = outStride;
  cudaError_t e = projectTiled(p, nullptr, tile);
  if (e == cudaSuccess) e = skinny(p2);
  cases::check(e == cudaSuccess && out == out2,
               "norm, then gate, up and SwiGLU, %s blocks, %d rows of %d -> %d: the bits of few rows", nameOf(tile),
               rows, inputs, features);
  std::vector<float> found, expected;
  for (int r = 0; r < rows; r++)
    for (int f = 0; f < outStride; f++) {
      const size_t at = static_cast<size_t>(r * up(features, 32) + f);
      found.push_back(cases::widen(out[static_cast<size_t>(r * outStride + f)]));
      expected.push_back(f < features ? g[at] / (1 + std::exp(-g[at])) * u[at] : 0.0f);
    }
  const double off = relative(found, expected);
  cases::check(off < 4e-3, "norm, then gate, up and SwiGLU, %s blocks, %d rows of %d -> %d: %.2g off", nameOf(tile),
               rows, inputs, features, off);
}

void append(WeightFormat format, int heads, int kvHeads, int headSize, int dim, int streams, int count, Tile tile) {
  cases::Numbers numbers(static_cast<uint64_t>(headSize + count));
  const int slots = count + 5, quarter = headSize / 4, width = paddedHead(headSize),
            outputs = (heads + 2 * kvHeads) * headSize, stride = up(dim, 16), rows = streams * count,
            qkvStride = up(outputs, 16);
  Array<float> x = numbers.normals(static_cast<size_t>(rows * stride), 2);
  const Array<float> cosine = numbers.normals(static_cast<size_t>(16 * quarter)),
                     sine = numbers.normals(static_cast<size_t>(16 * quarter));
  zeroPads(x, stride, dim);
  const Array<uint16_t> bits = cases::bf16(x);
  const Weights w(cases::bf16(numbers.normals(static_cast<size_t>(outputs * dim), 0.2f)), nullptr, outputs, dim,
                  format);
  Array<parvis::Row> table;
  for (int stream = 0; stream < streams; stream++)
    for (int i = 0; i < count; i++) {
      const bool cell = i % 3 != 1;
      table.push_back({stream, 0, -1, {i % 5, cell ? i % 8 : -1, cell ? 7 - i % 8 : -1}, i == 2 ? -1 : 3 + i, 20});
    }
  // Two axes as in a picture, or three and pairs that do not turn.
  const int pairs[3] = {count % 2, quarter - count % 2, count % 2 ? quarter - 1 : quarter};
  Array<uint16_t> queries[2], keys[2], values[2];
  Rotation r[2];
  for (int i = 0; i < 2; i++) {
    queries[i].resize(static_cast<size_t>(rows * heads * width));
    keys[i].resize(static_cast<size_t>(streams * kvHeads * slots * width));
    values[i] = keys[i];
    r[i] = {{table.data(), rows},
            heads,
            kvHeads,
            headSize,
            {pairs[0], pairs[1], pairs[2]},
            cosine.data(),
            sine.data(),
            Element::bfloat16,
            queries[i].data(),
            {keys[i].data(), values[i].data(), slots}};
  }
  Projection p = plain(w, rows, Epilogue::append);
  p.elements = bits.data();
  p.rotation = r[0];
  cudaError_t e = projectTiled(p, nullptr, tile);
  Array<float> qkv(static_cast<size_t>(rows * qkvStride));  // without rotation
  p.epilogue = Epilogue::store;
  p.y = qkv.data();
  p.yStride = qkvStride;
  if (e == cudaSuccess) e = skinny(p);
  e = cases::finish(e);
  rotateByDefinition<uint16_t>(r[1], qkv, qkvStride);
  cases::check(e == cudaSuccess && queries[0] == queries[1] && keys[0] == keys[1] && values[0] == values[1] &&
                   keys[0] != values[0],
               "QKV + rotation + append, %s blocks, head size %d, %d rows of %d: the definition's bits", nameOf(tile),
               headSize, rows, dim);
}

}  // namespace

int main(int, char** argv) {
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  for (const WeightFormat format : {WeightFormat::bfloat16, WeightFormat::int8}) {
    cases::subject = nameOf(format);
    products(format, 150, 200, 130, Tile::large);  // an empty run at the end; blocks that are not full, either way
    products(format, 33, 32, 65, Tile::large);     // six empty runs
    products(format, 40, 1200, 100, Tile::large);  // runs of ten; a short one at the end
    products(format, 70, 330, 200, Tile::small);
    products(format, 16, 2112, 1, Tile::small);
    products(format, 48, 10, 66, Tile::fitting);   // one tile of inputs
    products(format, 140, 32, 1100, Tile::small);  // more than one group of blocks of rows
    products(format, 140, 16, 1100, Tile::large);
    swiglu(format, 75, 104, 100, Tile::large);
    swiglu(format, 13, 96, 130, Tile::small);
    append(format, 2, 1, 100, 200, 2, 35, Tile::large);
    append(format, 4, 2, 64, 96, 3, 40, Tile::small);
    append(format, 2, 2, 64, 64, 1, 65, Tile::fitting);
  }
  cases::subject = "";
  Projection p{};
  cases::check(projectTiled(p, nullptr) == cudaErrorInvalidValue, "nothing to do is refused");
  const Array<uint16_t> matrix(32 * 32), elements(66 * 36);
  const Weights w(matrix, nullptr, 32, 32);
  Array<float> y(66 * 32);
  p = plain(w, 66, Epilogue::store);
  p.elements = elements.data();
  p.y = y.data();
  p.yStride = 32;
  p.xStride = 36;
  cases::check(projectTiled(p, nullptr) == cudaErrorInvalidValue,
               "rows that are not copied in pieces of 16 bytes are refused");
  p.xStride = 32;
  const Array<float> weight(32);
  Left left(66, 32);
  p.next = left.of(weight);
  cases::check(projectTiled(p, nullptr) == cudaErrorInvalidValue,
               "rows that nothing is added to leave nothing for a norm");
  return cases::failures > 0;
}
