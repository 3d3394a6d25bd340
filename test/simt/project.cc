// cuda/pack.cu, cuda/project.cu and the projections of cuda/plain.cu against the CPU backend's norms and products. What
// a projection does besides must give the bits of kernels or definitions that do it by themselves, as must a row in any
// number of rows, and any number of tiles a block.
#include <thread>

#include "parvis/sampling.h"
#include "projection.h"

using namespace parvis::cuda;
using namespace reference;
using namespace projections;

namespace {

bool possibleTiles(const Projection& p, int tiles) { return tiles < 4 || p.rows <= (p.weights.scaled() ? 8 : 32); }

void products(WeightFormat format, int outputs, int inputs, int rows) {
  cases::Numbers numbers(static_cast<uint64_t>(outputs + inputs + rows));
  const int stride = up(inputs, 16), yStride = up(outputs, 32);
  Array<float> x = numbers.normals(static_cast<size_t>(rows * stride), 2),
               weight = numbers.normals(static_cast<size_t>(stride));
  zeroPads(x, stride, inputs);
  const Array<uint16_t> matrix = cases::bf16(numbers.normals(static_cast<size_t>(outputs * inputs), 0.2f)),
                        bits = cases::bf16(x);
  const Weights w(matrix, nullptr, outputs, inputs, format);
  const Array<float> expected = multiplied(bits, stride, rows, w.low, outputs, inputs);
  const Array<uint16_t> normed = norm<uint16_t>(x, stride, rows, weight, inputs, 1e-5f);
  const Array<float> expectedNormed = multiplied(normed, stride, rows, w.low, outputs, inputs);

  Array<float> y(static_cast<size_t>(rows * yStride));
  Projection p = plain(w, rows, Epilogue::store);
  p.elements = bits.data();
  p.y = y.data();
  p.yStride = yStride;
  cudaError_t e = cases::finish(project(p, nullptr));
  double off = relative(y, expected);
  bool same = true;
  for (const int tiles : {1, 2, 4}) {
    Array<float> again(y.size());
    Projection q = p;
    q.tilesABlock = tiles;
    q.prefetched = tiles == 1 ? 16 << 20 : tiles * 65536;  // all that registers do not hold; some steps of it
    q.y = again.data();
    for (const bool few : {false, true}) {  // a device of one multiprocessor, whose blocks share all tiles
      if (cases::isInterpreted() && few != (tiles == 2)) continue;
      q.processors = few ? 1 : 0, q.sharedBytes = few ? 228 << 10 : 0;
      Tuning tuning;
      tuning.lateRelease = few;
      std::fill(again.begin(), again.end(), 0.0f);
      same = same &&
             cases::finish(project(q, {nullptr, few && cases::hasCapability9(), tuning})) ==
                 (possibleTiles(q, tiles) ? cudaSuccess : cudaErrorInvalidValue) &&
             (again == y || !possibleTiles(q, tiles));
    }
  }
  cases::check(
      same,
      "the same bits with 1, 2 and 4 tiles a block, blocks that share all tiles, eight stages, and weights that "
      "come before they are needed, %d rows of %d -> %d",
      rows, inputs, outputs);
  cases::check(e == cudaSuccess && off < cases::sumsOff, "store, %d rows of %d -> %d: %.2g off", rows, inputs, outputs,
               off);

  p.epilogue = Epilogue::add;
  e = cases::finish(project(p, nullptr));
  Array<float> twice = expected;
  for (float& v : twice) v *= 2;
  off = relative(y, twice);
  cases::check(e == cudaSuccess && off < cases::sumsOff, "add, %d rows of %d -> %d: %.2g off", rows, inputs, outputs,
               off);

  // What is added to, left for the next norm: what the kernel of its own leaves of the same rows.
  if (outputs % 2 == 0) {
    const Array<float> nextWeight = numbers.normals(static_cast<size_t>(up(outputs, 16)));
    const Left byDefinition(y, yStride, rows, nextWeight, outputs);
    Left apart(rows, outputs);
    e = cases::finish(weigh({y.data(), yStride, nullptr, rows, outputs, apart.of(nextWeight), 64}, nullptr));
    cases::check(e == cudaSuccess && apart == byDefinition, "rows weighed and their squares, %d of %d", rows, outputs);
    bool left = e == cudaSuccess;
    for (const int tiles : {1, 2, 4}) {
      Array<float> again(y.size());
      Left by(rows, outputs);
      Projection q = p;
      q.tilesABlock = tiles;
      q.y = again.data();
      q.next = by.of(nextWeight);
      q.processors = tiles == 1 ? 1 : 0;
      for (int i = 0; i < 2 && possibleTiles(q, tiles); i++)
        left = cases::finish(project(q, nullptr)) == cudaSuccess && left;
      left = left && (!possibleTiles(q, tiles) || (again == y && by == apart));
    }
    cases::check(
        left,
        "add leaves rows for the next norm, %d of %d -> %d, 1, 2 and 4 tiles a block: the bits of the kernel apart",
        rows, inputs, outputs);
  }

  // Behind a norm, and the last row by itself.
  const Left behind(x, stride, rows, weight, inputs);
  p = plain(w, rows, Epilogue::store);
  behind.give(p);
  p.y = y.data();
  p.yStride = yStride;
  std::fill(y.begin(), y.end(), 0.0f);
  e = cases::finish(project(p, nullptr));
  const Array<float> exactly = behindNorm(behind, x, stride, rows, w.low, outputs, inputs);
  off = relative(y, exactly);
  cases::check(e == cudaSuccess && off < 2 * cases::sumsOff, "norm + store, %d rows of %d -> %d: %.2g off", rows,
               inputs, outputs, off);
  off = relative(y, expectedNormed);
  cases::check(off < 6e-3, "norm + store, %d rows of %d -> %d: %.2g off the CPU's, which rounds what is normed twice",
               rows, inputs, outputs, off);
  p.rows = 1;
  behind.give(p, rows - 1);
  for (const int tiles : {1, 2, 4}) {
    Array<float> alone(static_cast<size_t>(yStride));
    p.tilesABlock = tiles;
    p.y = alone.data();
    if (e == cudaSuccess) e = cases::finish(project(p, nullptr));
    cases::check(e == cudaSuccess && std::equal(alone.begin(), alone.end(), y.end() - yStride),
                 "norm and product of one row of %d, %d tiles a block: the bits that it has among %d", inputs, tiles,
                 rows);
  }
}

void swiglu(WeightFormat format, int features, int inputs, int rows) {
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
  Array<uint16_t> out(static_cast<size_t>(rows * outStride));
  Projection p = plain(w, rows, Epilogue::swiglu);
  behind.give(p);
  p.out = out.data();
  p.yStride = outStride;
  cudaError_t e = cases::finish(project(p, nullptr));
  for (const int tiles : {1, 2, 4}) {
    if (!possibleTiles(p, tiles)) continue;
    Array<uint16_t> again(out.size());
    p.tilesABlock = tiles, p.processors = tiles == 1 ? 1 : 0;
    p.out = again.data();
    if (e == cudaSuccess) e = cases::finish(project(p, nullptr));
    cases::check(e == cudaSuccess && again == out,
                 "gate, up and SwiGLU, %d rows of %d -> %d, %d tiles a block: the same bits", rows, inputs, features,
                 tiles);
  }
  Array<float> found, expected;
  for (int r = 0; r < rows; r++)
    for (int f = 0; f < outStride; f++) {
      const size_t at = static_cast<size_t>(r * up(features, 32) + f);
      found.push_back(cases::widen(out[static_cast<size_t>(r * outStride + f)]));
      expected.push_back(f < features ? g[at] / (1 + std::exp(-g[at])) * u[at] : 0.0f);
    }
  const double off = relative(found, expected);
  cases::check(e == cudaSuccess && off < 4e-3, "norm + gate, up and SwiGLU, %d rows of %d -> %d: %.2g off", rows,
               inputs, features, off);
}

void append(WeightFormat format, int heads, int kvHeads, int headSize, int dim, int streams, int count, int tiles) {
  cases::Numbers numbers(static_cast<uint64_t>(headSize + count));
  const int slots = 24, quarter = headSize / 4, width = paddedHead(headSize),
            outputs = (heads + 2 * kvHeads) * headSize, stride = up(dim, 16), rows = streams * count,
            qkvStride = up(outputs, 16);
  Array<float> x = numbers.normals(static_cast<size_t>(rows * stride), 2);
  const Array<float> weight = numbers.normals(static_cast<size_t>(stride)),
                     cosine = numbers.normals(static_cast<size_t>(16 * quarter)),
                     sine = numbers.normals(static_cast<size_t>(16 * quarter));
  zeroPads(x, stride, dim);
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
  Array<float> qkv(static_cast<size_t>(rows * qkvStride));
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
  const Left behind(x, stride, rows, weight, dim);
  behind.give(p);
  p.rotation = r[0];
  p.tilesABlock = possibleTiles(p, tiles) ? tiles : 2, p.processors = 1;
  cudaError_t e = project(p, nullptr);
  p.epilogue = Epilogue::store;
  p.y = qkv.data();
  p.yStride = qkvStride;
  if (e == cudaSuccess) e = project(p, nullptr);
  e = cases::finish(e);
  rotateByDefinition<uint16_t>(r[1], qkv, qkvStride);
  cases::check(e == cudaSuccess && queries[0] == queries[1] && keys[0] == keys[1] && values[0] == values[1] &&
                   keys[0] != values[0],
               "norm + QKV + rotation + append, head size %d, %d rows of %d, %d tiles a block: the definition's bits",
               headSize, rows, dim, tiles);
}

// The head of a model guides logits as `guide` says, and stores no others.
void guidedLogits(WeightFormat format, int vocabulary, int inputs, int rows, int predictions) {
  cases::Numbers numbers(static_cast<uint64_t>(vocabulary + rows));
  const int stride = up(inputs, 16), yStride = up(vocabulary, 16);
  Array<float> x = numbers.normals(static_cast<size_t>(rows * stride), 2);
  const Array<float> weight = numbers.normals(static_cast<size_t>(stride));
  zeroPads(x, stride, inputs);
  const Weights w(cases::bf16(numbers.normals(static_cast<size_t>(vocabulary * inputs), 0.2f)), nullptr, vocabulary,
                  inputs, format);
  const Left behind(x, stride, rows, weight, inputs);
  Array<float> plainly(static_cast<size_t>(rows * yStride)), logits(plainly.size());
  Array<Drawing> table;
  for (int i = 0; i < predictions; i++)
    table.push_back({0, i, i, i % 3 != 1 ? rows - 1 - i : -1, -1, i % 4 == 3 ? 1.0f : 1.75f, {}});
  table.push_back({0, -1, 0, -1, -1, 1, {}});  // padding
  Projection p = plain(w, rows, Epilogue::store);
  behind.give(p);
  p.y = plainly.data(), p.yStride = yStride;
  cudaError_t e = cases::finish(project(p, nullptr));
  p.guides = {table.data(), static_cast<int>(table.size())};
  p.y = logits.data();
  int wrong = 0;
  for (const int tiles : {1, 2, 4}) {
    if (!possibleTiles(p, tiles)) continue;
    p.tilesABlock = tiles, p.processors = tiles == 2 ? 1 : 0;
    std::fill(logits.begin(), logits.end(), -7.0f);
    if (e == cudaSuccess) e = cases::finish(project(p, nullptr));
    for (int row = 0; row < rows; row++)
      for (int v = 0; v < vocabulary; v++) {
        const auto at = [&](int of) { return plainly[static_cast<size_t>(of * yStride + v)]; };
        float expected = -7;
        if (row < predictions) {
          const Drawing& d = table[static_cast<size_t>(row)];
          expected = d.unconditional < 0 || d.guidance == 1 ? at(row)
                                                            : parvis::guide(at(row), at(d.unconditional), d.guidance);
        }
        wrong += logits[static_cast<size_t>(row * yStride + v)] != expected;
      }
  }
  cases::check(e == cudaSuccess && wrong == 0, "guided logits of %d tokens, %d rows, %d predictions: %d wrong",
               vocabulary, rows, predictions, wrong);
}

// ---- plain.cu: float32, weights as they are in the checkpoint -----------------------------------------------

Packing rowsOf(const Array<float>& matrix, int outputs, int inputs) {
  const float* first = matrix.data();
  return {first, first + inputs, 2 * inputs, (outputs + 1) / 2, outputs / 2, Element::float32};
}

void plainProducts(int outputs, int inputs, int rows) {
  cases::Numbers numbers(static_cast<uint64_t>(outputs + inputs + rows));
  const int stride = up(inputs, 16), yStride = up(outputs, 32);
  Array<float> x = numbers.normals(static_cast<size_t>(rows * stride));
  zeroPads(x, stride, inputs);
  const Array<float> matrix = numbers.normals(static_cast<size_t>(outputs * inputs), 0.2f);
  const Array<float> second = numbers.normals(static_cast<size_t>(outputs * inputs), 0.2f);
  const Array<float> expected = product(x, stride, rows, matrix, outputs, inputs);
  Array<float> y(static_cast<size_t>(rows * yStride)), gated = y, expectedGated = y;
  Projection p{};
  p.elements = x.data(), p.xStride = stride, p.rows = rows, p.y = y.data(), p.yStride = yStride;
  cudaError_t e = cudaSuccess;
  for (const Epilogue epilogue : {Epilogue::store, Epilogue::add}) {
    p.epilogue = epilogue;
    if (e == cudaSuccess) e = cases::finish(projectPlain(p, rowsOf(matrix, outputs, inputs), inputs, nullptr));
  }
  Array<float> twice = expected;
  for (float& v : twice) v *= 2;
  const double off = relative(y, twice);
  cases::check(e == cudaSuccess && off < 2e-6, "float32, store and add, %d rows of %d -> %d: %.2g off", rows, inputs,
               outputs, off);

  const Array<float> ups = product(x, stride, rows, second, outputs, inputs);
  for (size_t i = 0; i < ups.size(); i++) expectedGated[i] = expected[i] / (1 + std::exp(-expected[i])) * ups[i];
  p.epilogue = Epilogue::swiglu;
  p.out = gated.data();
  const Packing gates{matrix.data(), second.data(), inputs, outputs, outputs, Element::float32};
  e = cases::finish(projectPlain(p, gates, inputs, nullptr));
  const double gatedOff = relative(gated, expectedGated);
  cases::check(e == cudaSuccess && gatedOff < 4e-6, "float32, gate, up and SwiGLU, %d rows of %d -> %d: %.2g off", rows,
               inputs, outputs, gatedOff);
}

void plainAppend(int heads, int kvHeads, int headSize, int dim, int streams, int count) {
  cases::Numbers numbers(static_cast<uint64_t>(headSize + count));
  const int slots = 40, quarter = headSize / 4, outputs = (heads + 2 * kvHeads) * headSize, rows = streams * count;
  const int stride = up(dim, 16), qkvStride = up(outputs, 16);
  const Array<float> x = numbers.normals(static_cast<size_t>(rows * stride));
  const Array<float> matrix = numbers.normals(static_cast<size_t>(outputs * dim), 0.2f);
  const Array<float> cosine = numbers.normals(static_cast<size_t>(16 * quarter));
  const Array<float> sine = numbers.normals(static_cast<size_t>(16 * quarter));
  Array<parvis::Row> table;  // the second one has no cell, the third one is not appended
  for (int stream = 0; stream < streams; stream++)
    for (int i = 0; i < count; i++) {
      const bool cell = i % 3 != 1;
      table.push_back({stream, 0, -1, {i % 5, cell ? i % 8 : -1, cell ? 7 - i % 8 : -1}, i == 2 ? -1 : 33 - i, 34});
    }
  const int pairs[3] = {1, quarter - 1, quarter - 1};
  const size_t width = static_cast<size_t>(paddedHead(headSize));
  Array<float> queries[2], keys[2], values[2], qkv(static_cast<size_t>(rows * qkvStride));
  Rotation r[2];
  for (int i = 0; i < 2; i++) {
    queries[i].resize(static_cast<size_t>(rows * heads) * width);
    keys[i].resize(static_cast<size_t>(streams * kvHeads * slots) * width);
    values[i] = keys[i];
    r[i] = {{table.data(), rows},
            heads,
            kvHeads,
            headSize,
            {pairs[0], pairs[1], pairs[2]},
            cosine.data(),
            sine.data(),
            Element::float32,
            queries[i].data(),
            {keys[i].data(), values[i].data(), slots}};
  }
  Projection p{};
  p.elements = x.data(), p.xStride = stride, p.rows = rows, p.epilogue = Epilogue::append, p.rotation = r[0];
  cudaError_t e = projectPlain(p, rowsOf(matrix, outputs, dim), dim, nullptr);
  p.epilogue = Epilogue::store, p.y = qkv.data(), p.yStride = qkvStride;
  if (e == cudaSuccess) e = cases::finish(projectPlain(p, rowsOf(matrix, outputs, dim), dim, nullptr));
  rotateByDefinition<float>(r[1], qkv, qkvStride);
  const bool same = queries[0] == queries[1] && keys[0] == keys[1] && values[0] == values[1];
  cases::check(e == cudaSuccess && same && keys[0] != values[0],
               "float32, QKV + rotation + append, head size %d, %d of %d heads: the bits of the definition", headSize,
               kvHeads, heads);
}

// Two threads of a process launch one kernel: neither disturbs the other, whose shared memory it has to ask for.
void together(int times) {
  struct One {
    Array<uint16_t> x;
    Array<float> y;
    Weights w;
    Projection p;
    cudaError_t error = cudaSuccess;
    One(int inputs, int rows)
        : x(static_cast<size_t>(rows * inputs), 0x3f80), y(static_cast<size_t>(rows * 16)),
          w(Array<uint16_t>(static_cast<size_t>(16 * inputs)), nullptr, 16, inputs) {
      p = plain(w, rows, Epilogue::store);
      p.elements = x.data(), p.y = y.data(), p.yStride = 16, p.tilesABlock = 1;
    }
    void run(int times) {
      for (int i = 0; i < times && error == cudaSuccess; i++) error = project(p, nullptr);
    }
  };
  One a(512, 64), b(256, 64);
  std::thread other([&] { a.run(times); });
  b.run(times);
  other.join();
  const cudaError_t e = cases::finish(a.error == cudaSuccess ? b.error : a.error);
  cases::check(e == cudaSuccess, "one kernel launched by two threads, %d times each: %s", times, cudaGetErrorName(e));
}

}  // namespace

int main(int, char** argv) {
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  for (const WeightFormat format : {WeightFormat::bfloat16, WeightFormat::int8}) {
    cases::subject = nameOf(format);
    products(format, 40, 64, 1);
    products(format, 33, 200, 8);
    products(format, 48, 1200, 9);  // two stages in flight and more to come
    products(format, 16, 2112, 2);  // more squares a row than a warp reads at once
    products(format, 100, 2048, 5);
    products(format, 36, 900, 16);
    products(format, 20, 96, 27);
    products(format, 20, 96, maxSkinnyRows(format));
    products(format, 24, 4160, 3);  // more than `depth` steps a warp, of either format
    products(format, 7, 130, 3);    // less than a tile of outputs, inputs that fill no tile
    swiglu(format, 24, 96, 8);
    swiglu(format, 13, 104, 17);
    append(format, 2, 2, 64, 96, 2, 4, 0);
    append(format, 2, 1, 100, 200, 2, 1, 2);
    append(format, 2, 1, 100, 200, 2, 2, 4);
    append(format, 4, 2, 128, 64, 2, 16, 4);
    append(format, 6, 2, 4, 24, 2, 3, 0);
    guidedLogits(format, 100, 96, 8, 4);
    guidedLogits(format, 133, 64, 1, 1);
    guidedLogits(format, 90, 200, 24, 12);
  }
  cases::subject = "";
  plainProducts(33, 200, 9);
  plainProducts(7, 130, 1);
  plainProducts(64, 64, 70);
  plainAppend(2, 2, 64, 64, 2, 5);
  plainAppend(2, 2, 100, 96, 1, 5);
  plainAppend(6, 2, 4, 24, 2, 3);
  together(cases::often);
  Projection p{};
  cases::check(project(p, nullptr) == cudaErrorInvalidValue, "nothing to do is refused");
  const Weights w(Array<uint16_t>(32), nullptr, 2, 16);
  const Array<uint16_t> x(9 * 16);
  const Array<float> weight(16);
  Array<float> y(9 * 2);
  Left left(9, 2);
  p = plain(w, 9, Epilogue::store);
  p.elements = x.data(), p.y = y.data(), p.yStride = 2, p.next = left.of(weight);
  cases::check(project(p, nullptr) == cudaErrorInvalidValue, "rows that nothing is added to leave nothing for a norm");
  p.epilogue = Epilogue::add;
  cases::check(cases::finish(project(p, nullptr)) == cudaSuccess, "and those that something is added to do");
  return cases::failures > 0;
}
