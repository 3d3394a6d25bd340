// What happens row by row: cuda/embed.cu and cuda/norm.cu against the CPU backend, in both precisions.
#include "projection.h"

using namespace parvis::cuda;
using namespace reference;

namespace {

template <class E>
constexpr Element element = sizeof(E) == 4 ? Element::float32 : Element::bfloat16;
template <class E>
const char* precision = sizeof(E) == 4 ? "float32" : "bfloat16";

template <class E>
void embeddings(int dim, int threads) {
  cases::Numbers numbers(7);
  const int classes = 4, vocabulary = 9, transitions = 3, sequences = 2, streams = 4, tokensEach = 6, stride = up(dim, 16);
  const auto table = [&](int rows) { return elements<E>(numbers.normals(static_cast<size_t>(rows * dim))); };
  const Array<E> classTable = table(classes + 1), tokenTable = table(vocabulary), transitionTable = table(transitions);
  const Array<int32_t> tokens = {8, 0, 3, -1, -1, -1, 1, 7, 2, -1, -1, -1}, classIds = {3, 1};
  const Array<parvis::Row> rows = {{0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0},  // step 0 is not run
                                         {-1, 0, 0, 0, 0, 0, 0}, {-4, 0, 0, 0, 0, 0, 0}, {2, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0}};
  const Array<int> step(1, 1);
  const int count = 4;
  Array<float> x(static_cast<size_t>(streams * count * stride), -7);
  const Array<float> weight = numbers.normals(static_cast<size_t>(stride));
  projections::Left left(streams * count, dim);
  const bool leaves = sizeof(E) == 2 && threads % 32 == 0;
  const cudaError_t e = cases::finish(embed({{rows.data(), count, step.data()}, sequences, streams, tokens.data(), tokensEach, classIds.data(), classes, classTable.data(), tokenTable.data(),
                                             transitionTable.data(), element<E>, dim, x.data(), stride, leaves ? left.of(weight) : Weighted{}, threads}, nullptr));
  int wrong = 0;
  for (int stream = 0; stream < streams; stream++) {
    const int sequence = stream % sequences;
    const E* expected[] = {classTable.data() + (stream < sequences ? classIds[static_cast<size_t>(sequence)] : classes) * dim, transitionTable.data() + 2 * dim,
                           tokenTable.data() + tokens[static_cast<size_t>(sequence * tokensEach + 2)] * dim, tokenTable.data() + tokens[static_cast<size_t>(sequence * tokensEach)] * dim};
    for (int i = 0; i < count; i++)
      for (int d = 0; d < stride; d++) wrong += x[static_cast<size_t>((stream * count + i) * stride + d)] != (d < dim ? value(expected[i][d]) : -7);
  }
  cases::check(e == cudaSuccess && wrong == 0, "embedding, %s, width %d: %d wrong", precision<E>, dim, wrong);
  if (leaves) cases::check(left == projections::Left(x, stride, streams * count, weight, dim), "embedding leaves rows for the first norm, width %d", dim);
}

void norms(int dim, int rows, int threads) {
  cases::Numbers numbers(static_cast<uint64_t>(dim));
  const int stride = up(dim, 16);
  const Array<float> x = numbers.normals(static_cast<size_t>(rows * stride), 2), weight = numbers.normals(static_cast<size_t>(stride));
  Array<int32_t> from;
  for (int r = 0; r < rows; r++) from.push_back(rows - 1 - r);
  const Array<float> expected = norm<float>(x, stride, rows, weight, dim, 1e-5f);
  const projections::Left whole(x, stride, rows, weight, dim);
  for (const bool gathered : {false, true}) {
    Array<float> out(static_cast<size_t>(rows * stride));
    projections::Left left(rows, dim);
    cudaError_t e = cases::finish(parvis::cuda::norm({x.data(), stride, gathered ? from.data() : nullptr, rows, dim, weight.data(), 1e-5f, out.data(), stride, threads}, nullptr));
    if (e == cudaSuccess) e = cases::finish(weigh({x.data(), stride, gathered ? from.data() : nullptr, rows, dim, left.of(weight), threads}, nullptr));
    double worst = 0;
    int wrong = 0;
    for (int r = 0; r < rows; r++) {
      const int row = gathered ? rows - 1 - r : r;
      for (int d = 0; d < dim; d++) {
        const double b = static_cast<double>(expected[static_cast<size_t>(row * stride + d)]);
        worst = std::fmax(worst, std::fabs(static_cast<double>(out[static_cast<size_t>(r * stride + d)]) - b) / (std::fabs(b) + 1e-3));
        wrong += left.elements[static_cast<size_t>(r * stride + d)] != whole.elements[static_cast<size_t>(row * stride + d)];
      }
      for (int i = 0; i < squaresStride(dim); i++) wrong += left.squares[static_cast<size_t>(r * squaresStride(dim) + i)] != whole.squares[static_cast<size_t>(row * squaresStride(dim) + i)];
    }
    cases::check(e == cudaSuccess && worst < 1e-6, "norm, %d rows of %d%s: %.2g off", rows, dim, gathered ? ", gathered" : "", worst);
    cases::check(e == cudaSuccess && wrong == 0, "rows for a norm, %d of %d%s: %d wrong", rows, dim, gathered ? ", gathered" : "", wrong);
  }
}

template <class E>
void all() {
  embeddings<E>(48, 32);
  embeddings<E>(70, 7);
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
