// What happens row by row: cuda/embed.cu and cuda/norm.cu against the CPU backend, in both precisions.
#include "projection.h"

using namespace parvis::cuda;
using namespace reference;

namespace {

template <class E>
constexpr Element element = sizeof(E) == 4 ? Element::float32 : Element::bfloat16;
template <class E>
const char* precision = sizeof(E) == 4 ? "float32" : "bfloat16";

// headSize: of special vectors that are rotated; 0: they are not.
template <class E>
void embeddings(int dim, int threads, int headSize) {
  cases::Numbers numbers(7);
  const int classes = 4, vocabulary = 9, specials = 3, tokensEach = 6, stride = up(dim, 16);
  const auto table = [&](int rows) { return elements<E>(numbers.normals(static_cast<size_t>(rows * dim))); };
  const Array<E> classTable = table(classes + 1), tokenTable = table(vocabulary), specialTable = table(specials);
  const Array<int32_t> tokens = {8, 0, 3, -1, -1, -1, 1, 7, 2, -1, -1, -1}, classIds = {3, 1};
  const Array<E> positionTable = table(3);
  const auto row = [](int stream, int input, int position = -1) {
    return parvis::Row{stream, input, position, {1, 2, -1}, 0, 1};
  };
  // Rows of two seats with two streams each, in no order; a token that is not known reads any entry.
  const Array<parvis::Row> rows = {row(0, -1), row(2, -4), row(3, 2),     row(1, 0),
                                   row(3, -1), row(2, 1),  row(1, -1, 2), row(0, 5)};
  const auto entry = [&](const Array<E>& of, int i) { return of.data() + i * dim; };
  const E* expected[] = {entry(classTable, 3),       entry(specialTable, 2),     entry(tokenTable, 2),
                         entry(tokenTable, 8),       entry(classTable, classes), entry(tokenTable, 7),
                         entry(classTable, classes), entry(tokenTable, 0)};
  // The first pairs of a head turn along frame, row and column, the others stay; numbers that are no angles show more.
  const int pairs[3] = {1, 2, 1}, allPairs = 4;
  const Array<float> cosine = numbers.normals(3 * allPairs), sine = numbers.normals(3 * allPairs);
  const auto rotated = [&](const E* from, int d) {
    const int pair = d % headSize / 2, axis = pair < 1 ? 0 : pair < 3 ? 1 : 2;
    if (pair >= allPairs) return value(from[d]);
    if (axis == 2) return 0.0f;  // the row has no column
    const size_t at = static_cast<size_t>((axis + 1) * allPairs + pair);
    const float a = value(from[d / 2 * 2]), b = value(from[d / 2 * 2 + 1]);
    const float turned = d % 2 == 0 ? a * cosine[at] - b * sine[at] : a * sine[at] + b * cosine[at];
    return value(elements<E>({turned})[0]);
  };
  const int count = static_cast<int>(rows.size());
  Array<float> x(static_cast<size_t>(count * stride), -7);
  const Array<float> weight = numbers.normals(static_cast<size_t>(stride));
  projections::Left left(count, dim);
  const bool leaves = sizeof(E) == 2 && threads % 32 == 0;
  const cudaError_t e = cases::finish(embed({{rows.data(), count},
                                             2,
                                             tokens.data(),
                                             tokensEach,
                                             classIds.data(),
                                             classes,
                                             classTable.data(),
                                             tokenTable.data(),
                                             specialTable.data(),
                                             positionTable.data(),
                                             element<E>,
                                             dim,
                                             headSize,
                                             {pairs[0], pairs[1], pairs[2]},
                                             cosine.data(),
                                             sine.data(),
                                             x.data(),
                                             stride,
                                             leaves ? left.of(weight) : NormInput{},
                                             threads},
                                            nullptr));
  int wrong = 0;
  for (int i = 0; i < count; i++)
    for (int d = 0; d < stride; d++) {
      const float found = x[static_cast<size_t>(i * stride + d)];
      if (d >= dim) wrong += found != -7;
      else if (i == 1 && headSize > 0)  // sums may be fused
        wrong += std::fabs(found - rotated(expected[i], d)) > (sizeof(E) == 4 ? 1e-6f : 1e-2f * std::fabs(found));
      else wrong += found != value(expected[i][d]) + (i == 6 ? value(entry(positionTable, 2)[d]) : 0);
    }
  cases::check(e == cudaSuccess && wrong == 0, "embedding, %s, width %d, heads of %d: %d wrong", precision<E>, dim,
               headSize, wrong);
  if (leaves)
    cases::check(left == projections::Left(x, stride, count, weight, dim),
                 "embedding leaves rows for the first norm, width %d", dim);
}

// LayerNorm, by its definition, gathered and in place.
template <class E>
void layerNorms(int dim, int rows, int threads) {
  cases::Numbers numbers(static_cast<uint64_t>(dim));
  const int stride = up(dim, 16);
  Array<float> x = numbers.normals(static_cast<size_t>(rows * stride), 2);
  for (float& v : x) v += 3;
  const Array<float> weight = numbers.normals(static_cast<size_t>(stride)),
                     bias = numbers.normals(static_cast<size_t>(stride));
  Array<int32_t> from;
  for (int r = 0; r < rows; r++) from.push_back(rows - 1 - r);
  Array<E> out(static_cast<size_t>(rows * stride));
  Array<float> inPlace = x;
  Norm n{parvis::NormKind::layer,
         x.data(),
         stride,
         from.data(),
         rows,
         dim,
         weight.data(),
         bias.data(),
         1e-5f,
         element<E>,
         out.data(),
         stride,
         threads};
  cudaError_t e = cases::finish(parvis::cuda::norm(n, nullptr));
  n.x = inPlace.data(), n.from = nullptr, n.element = Element::float32, n.out = inPlace.data();
  if (e == cudaSuccess) e = cases::finish(parvis::cuda::norm(n, nullptr));
  double worst = 0, worstInPlace = 0;
  for (int r = 0; r < rows; r++) {
    const auto at = [&](int row, int d) { return static_cast<size_t>(row * stride + d); };
    double mean = 0, variance = 0;
    for (int d = 0; d < dim; d++) mean += static_cast<double>(x[at(r, d)]) / dim;
    for (int d = 0; d < dim; d++) variance += std::pow(static_cast<double>(x[at(r, d)]) - mean, 2) / dim;
    for (int d = 0; d < dim; d++) {
      const size_t k = static_cast<size_t>(d);
      const double expected =
          (static_cast<double>(x[at(r, d)]) - mean) / std::sqrt(variance + 1e-5) * static_cast<double>(weight[k]) +
          static_cast<double>(bias[k]);
      worst = std::fmax(worst, std::fabs(static_cast<double>(value(out[at(rows - 1 - r, d)])) - expected) /
                                   (std::fabs(expected) + 1));
      worstInPlace = std::fmax(
          worstInPlace, std::fabs(static_cast<double>(inPlace[at(r, d)]) - expected) / (std::fabs(expected) + 1));
    }
  }
  cases::check(e == cudaSuccess && worst < (sizeof(E) == 4 ? 2e-6 : 4e-3) && worstInPlace < 2e-6,
               "LayerNorm, %s, %d rows of %d: %.2g off, %.2g in place", precision<E>, rows, dim, worst, worstInPlace);
}

// The tables of a step out of a ring of three parts, steps one after the other.
void steps() {
  constexpr int depth = 3, stride = 5000, end = stride - partEndInts, seats = 3;
  Array<int32_t> ring(depth * stride);
  for (size_t i = 0; i < ring.size(); i++) ring[i] = static_cast<int32_t>(i);
  Array<uint32_t> counter(1, 4);
  Array<int> nonFinite = {0, 1, 0}, flags(seats, -1);
  Array<int32_t> large(3000, -1), small(7, -1), empty(1, -1), last(1, -1);
  Array<int32_t> ahead(stride);
  for (size_t i = 0; i < ahead.size(); i++) ahead[i] = -static_cast<int32_t>(i);
  PartEnd& brought = *reinterpret_cast<PartEnd*>(ahead.data() + end);
  const TakeStep t{{ring.data(), depth, stride, counter.data(), ahead.data()},
                   {{large.data(), 0, 3000}, {small.data(), 3010, 7}, {empty.data(), 0, 0}, {last.data(), end - 1, 1}},
                   nonFinite.data(),
                   flags.data(),
                   seats};
  int wrong = 0;
  cudaError_t e = cudaSuccess;
  for (int step = 4; step < 8 && e == cudaSuccess; step++) {
    brought.step = step == 6 ? 7 : 4;  // of this step, or of another one
    e = cases::finish(takeStep(t, nullptr));
    const auto expected = [&](int i) { return step == 6 ? -i : step % depth * stride + i; };
    for (int i = 0; i < 3000; i++) wrong += large[static_cast<size_t>(i)] != expected(i);
    for (int i = 0; i < 7; i++) wrong += small[static_cast<size_t>(i)] != expected(3010 + i);
    wrong += empty[0] != -1 || last[0] != expected(end - 1) || counter[0] != static_cast<uint32_t>(step + 1) ||
             flags != nonFinite;
    nonFinite[static_cast<size_t>(step % seats)] ^= 1;
  }
  cases::check(e == cudaSuccess && wrong == 0, "tables of four steps, of one of them brought ahead: %d wrong", wrong);
  TakeStep outside = t;
  outside.tables[3].count = 2;
  cases::check(takeStep(outside, nullptr) == cudaErrorInvalidValue,
               "a table that goes over the end of its part is refused");
}

void norms(int dim, int rows, int threads) {
  cases::Numbers numbers(static_cast<uint64_t>(dim));
  const int stride = up(dim, 16);
  const Array<float> x = numbers.normals(static_cast<size_t>(rows * stride), 2),
                     weight = numbers.normals(static_cast<size_t>(stride));
  Array<int32_t> from;
  for (int r = 0; r < rows; r++) from.push_back(rows - 1 - r);
  const Array<float> expected = norm<float>(x, stride, rows, weight, dim, 1e-5f);
  const projections::Left whole(x, stride, rows, weight, dim);
  for (const bool gathered : {false, true}) {
    Array<float> out(static_cast<size_t>(rows * stride));
    projections::Left left(rows, dim);
    cudaError_t e = cases::finish(
        parvis::cuda::norm({parvis::NormKind::rms, x.data(), stride, gathered ? from.data() : nullptr, rows, dim,
                            weight.data(), nullptr, 1e-5f, Element::float32, out.data(), stride, threads},
                           nullptr));
    if (e == cudaSuccess)
      e = cases::finish(
          weigh({x.data(), stride, gathered ? from.data() : nullptr, rows, dim, left.of(weight), threads}, nullptr));
    double worst = 0;
    int wrong = 0;
    for (int r = 0; r < rows; r++) {
      const int row = gathered ? rows - 1 - r : r;
      for (int d = 0; d < dim; d++) {
        const double b = static_cast<double>(expected[static_cast<size_t>(row * stride + d)]);
        worst = std::fmax(worst, std::fabs(static_cast<double>(out[static_cast<size_t>(r * stride + d)]) - b) /
                                     (std::fabs(b) + 1e-3));
        wrong +=
            left.elements[static_cast<size_t>(r * stride + d)] != whole.elements[static_cast<size_t>(row * stride + d)];
      }
      for (int i = 0; i < squaresStride(dim); i++)
        wrong += left.squares[static_cast<size_t>(r * squaresStride(dim) + i)] !=
                 whole.squares[static_cast<size_t>(row * squaresStride(dim) + i)];
    }
    cases::check(e == cudaSuccess && worst < 1e-6, "norm, %d rows of %d%s: %.2g off", rows, dim,
                 gathered ? ", gathered" : "", worst);
    cases::check(e == cudaSuccess && wrong == 0, "rows for a norm, %d of %d%s: %d wrong", rows, dim,
                 gathered ? ", gathered" : "", wrong);
  }
}

template <class E>
void all() {
  embeddings<E>(48, 32, 0);
  embeddings<E>(70, 7, 0);
  embeddings<E>(48, 32, 12);
  embeddings<E>(40, 7, 20);
  layerNorms<E>(48, 5, 64);
  layerNorms<E>(202, 3, 32);
}

}  // namespace

int main(int, char** argv) {
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  all<float>();
  all<uint16_t>();
  norms(96, 9, 64);
  norms(200, 3, 128);
  norms(1536, 2, 32);
  constexpr cudaError_t invalid = cudaErrorInvalidValue;
  const bool refused = embed({}, nullptr) == invalid && parvis::cuda::norm({}, nullptr) == invalid;
  cases::check(refused && weigh({}, nullptr) == invalid, "nothing to do is refused");
  return cases::failures > 0;
}
