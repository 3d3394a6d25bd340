// cuda/vq-attend.cu, codebook.cu and picture.cu against the CPU backend: attention blocks with their convolutions, and
// by themselves against sums in double precision; tokens to rows and back; resizing and bytes.
#include "vq.h"

#include "../../cpu/resize.h"

using namespace parvis::cuda::vq;
using namespace pictures;
using parvis::cpu::PictureRunner;

namespace {

const parvis::Cancel never{false};
constexpr int groups = 4;
constexpr float eps = 1e-6f;

// ---- attention ----------------------------------------------------------------------------------------------

template <class E>
void attentionBlock(int channels, int height, int width) {
  cases::Numbers numbers(static_cast<uint64_t>(channels));
  const Norm n(numbers, channels);
  const Weights<E> q(numbers, channels, channels, 1), k(numbers, channels, channels, 1),
      v(numbers, channels, channels, 1), o(numbers, channels, channels, 1);
  const size_t pixels = static_cast<size_t>(height * width), c = static_cast<size_t>(channels),
               all = pixels * static_cast<size_t>(pictureStride(channels));
  const std::vector<float> x32 = rounded<E>(normals(numbers, pixels * c));
  parvis::cpu::Threads threads(1);
  PictureRunner run(threads, cpuElement<E>, groups, eps, never);
  parvis::AttentionLayer<parvis::cpu::GroupNorm, parvis::cpu::ConvolutionWeights> block;
  block.norm = n.cpu, block.q = q.cpu, block.k = k.cpu, block.v = v.cpu, block.out = o.cpu;
  const auto expected = run.layer(picture(run, x32.data(), height, width, channels), block, false);

  const Array<E> x = strided<E>(x32, channels);
  Array<float> sums(static_cast<size_t>(sumSlots(height, width) * pictureStride(channels) * 2)), scale(c), shift(c);
  Array<E> parts[5];
  for (auto& p : parts) p.resize(all);
  cudaError_t e = statistics({x.data(), 1, height, width, channels, element<E>, sums.data(), 64}, nullptr);
  if (e == cudaSuccess)
    e = groupNormFactors({sums.data(), 1, height, width, channels, groups, eps, n.weight.data(), n.bias.data(),
                          scale.data(), shift.data(), 64},
                         nullptr);
  Convolution w{};
  w.x = x.data(), w.images = 1, w.height = height, w.width = width, w.scale = scale.data(), w.shift = shift.data();
  const Weights<E>* each[3] = {&q, &k, &v};
  for (int i = 0; i < 3 && e == cudaSuccess; i++) {
    w.filter = each[i]->filter;
    w.y = parts[i].data();
    e = convolve(w, nullptr);
  }
  if (e == cudaSuccess)
    e = attend(
        {parts[0].data(), parts[1].data(), parts[2].data(), parts[3].data(), 1, height * width, channels, element<E>},
        nullptr);
  w.x = parts[3].data(), w.filter = o.filter, w.scale = w.shift = nullptr, w.residual = x.data(), w.y = parts[4].data();
  if (e == cudaSuccess) e = cases::finish(convolve(w, nullptr));
  const double off = reference::relative(dense(parts[4].data(), pixels, channels),
                                         std::vector<float>(expected.data(), expected.data() + expected.size()));
  cases::check(e == cudaSuccess && off < (sizeof(E) == 4 ? 1e-5 : 1.5e-2),
               "%s, attention block of %d channels, %d x %d: %.2g off", nameOf(E()), channels, height, width, off);
}

template <class E>
void attention(int channels, int positions, int images) {
  cases::Numbers numbers(static_cast<uint64_t>(channels + positions));
  const size_t pixels = static_cast<size_t>(images * positions), c = static_cast<size_t>(channels);
  const std::vector<float> q32 = rounded<E>(normals(numbers, pixels * c, 2)),
                           k32 = rounded<E>(normals(numbers, pixels * c)),
                           v32 = rounded<E>(normals(numbers, pixels * c));
  std::vector<float> expected(pixels * c);
  for (size_t image = 0; image < pixels; image += static_cast<size_t>(positions))
    for (size_t i = image; i < image + static_cast<size_t>(positions); i++) {
      std::vector<double> p(static_cast<size_t>(positions)), sum(c);
      double most = -1e300, total = 0;
      for (size_t j = 0; j < p.size(); j++) {
        for (size_t d = 0; d < c; d++)
          p[j] += static_cast<double>(q32[i * c + d]) * static_cast<double>(k32[(image + j) * c + d]);
        p[j] /= std::sqrt(static_cast<double>(channels));
        most = std::fmax(most, p[j]);
      }
      for (size_t j = 0; j < p.size(); j++) {
        p[j] = std::exp(p[j] - most);
        total += p[j];
        for (size_t d = 0; d < c; d++) sum[d] += p[j] * static_cast<double>(v32[(image + j) * c + d]);
      }
      for (size_t d = 0; d < c; d++) expected[i * c + d] = static_cast<float>(sum[d] / total);
    }
  const Array<E> q = strided<E>(q32, channels), k = strided<E>(k32, channels), v = strided<E>(v32, channels);
  E nothing;
  reference::convert(NAN, nothing);
  Array<E> out(q.size(), nothing), alone(q.size() / static_cast<size_t>(images), nothing);
  cudaError_t e = attend({q.data(), k.data(), v.data(), out.data(), images, positions, channels, element<E>}, nullptr);
  const size_t last = q.size() - alone.size();
  if (e == cudaSuccess)
    e = cases::finish(
        attend({q.data() + last, k.data() + last, v.data() + last, alone.data(), 1, positions, channels, element<E>},
               nullptr));
  bool padded = true;
  const double off = reference::relative(dense(out.data(), pixels, channels, &padded), expected);
  cases::check(e == cudaSuccess && padded && off < (sizeof(E) == 4 ? 5e-6 : 1e-2) &&
                   std::equal(alone.begin(), alone.end(), out.begin() + static_cast<ptrdiff_t>(last)),
               "%s, attention of %d positions, %d channels, %d images: %.2g off", nameOf(E()), positions, channels,
               images, off);
}

// A score that is NaN or infinite is not taken for one of a key that is not there: no output is finite.
template <class E>
void damagedAttention(int channels, int positions) {
  const auto finiteOutputs = [&](float damage) {
    cases::Numbers numbers(7);
    const size_t c = static_cast<size_t>(channels), all = static_cast<size_t>(positions) * c;
    std::vector<float> queries = rounded<E>(normals(numbers, all)), keys = rounded<E>(normals(numbers, all));
    for (size_t i = 0; i < all; i += c) queries[i] = 1, keys[i] = damage;
    const Array<E> q = strided<E>(queries, channels), k = strided<E>(keys, channels), v = k;
    Array<E> out(q.size());
    const cudaError_t e =
        cases::finish(attend({q.data(), k.data(), v.data(), out.data(), 1, positions, channels, element<E>}, nullptr));
    const std::vector<float> found = dense(out.data(), static_cast<size_t>(positions), channels);
    return e == cudaSuccess ? std::count_if(found.begin(), found.end(), [](float f) { return std::isfinite(f); }) : -1;
  };
  for (const float damage : {NAN, INFINITY, -INFINITY})
    cases::check(finiteOutputs(damage) == 0, "%s, attention of %d positions, every score %f", nameOf(E()), positions,
                 static_cast<double>(damage));
}

// ---- codebook -----------------------------------------------------------------------------------------------

void codebook(int rows, int size, int cells) {
  cases::Numbers numbers(static_cast<uint64_t>(rows));
  const std::vector<float> stored = normals(numbers, static_cast<size_t>(rows * size), 3);
  Array<float> book(stored.begin(), stored.end());
  for (int c = 0; c < size; c++) {
    book[static_cast<size_t>(size + c)] = 0;  // a row without direction
    book[static_cast<size_t>((rows - 1) * size + c)] =
        book[static_cast<size_t>(2 * size + c)];  // equals: the first is found
  }
  std::vector<float> unit(book.begin(), book.end());
  for (int i = 0; i < rows; i++) {
    double squares = 0;
    for (int c = 0; c < size; c++)
      squares += static_cast<double>(unit[static_cast<size_t>(i * size + c)]) *
                 static_cast<double>(unit[static_cast<size_t>(i * size + c)]);
    const double inverse = 1.0 / std::fmax(std::sqrt(squares), 1e-12);
    for (int c = 0; c < size; c++)
      unit[static_cast<size_t>(i * size + c)] =
          static_cast<float>(static_cast<double>(unit[static_cast<size_t>(i * size + c)]) * inverse);
  }
  cudaError_t e = cases::finish(normaliseRows(book.data(), rows, size, 32, nullptr));
  cases::check(e == cudaSuccess && std::equal(book.begin(), book.end(), unit.begin()), "%d rows of %d to length 1",
               rows, size);

  const std::vector<float> z32 = normals(numbers, static_cast<size_t>(cells * size));
  Array<float> z(z32.begin(), z32.end());
  for (int c = 0; c < size; c++) z[static_cast<size_t>(c)] = book[static_cast<size_t>(2 * size + c)];
  std::vector<int32_t> expected;
  for (int i = 0; i < cells; i++) {
    double most = -INFINITY;
    expected.push_back(0);
    for (int r = 0; r < rows; r++) {
      double dot = 0;
      for (int c = 0; c < size; c++)
        dot += static_cast<double>(z[static_cast<size_t>(i * size + c)]) *
               static_cast<double>(unit[static_cast<size_t>(r * size + c)]);
      if (dot > most) most = dot, expected.back() = r;
    }
  }
  Array<int32_t> tokens(static_cast<size_t>(cells), -1);
  e = cases::finish(nearest({book.data(), rows, size, z.data(), cells, tokens.data(), 64}, nullptr));
  cases::check(e == cudaSuccess && std::equal(tokens.begin(), tokens.end(), expected.begin()) && tokens[0] == 2,
               "nearest of %d rows of %d, %d cells", rows, size, cells);

  // A number that is not finite is near nothing, in z as in the codebook.
  Array<float> strange(z.begin(), z.end()), lost(book.begin(), book.end());
  for (int i = 0; i < 3; i++)
    strange[static_cast<size_t>((i + 1) * size)] = i == 0 ? NAN : i == 1 ? INFINITY : -INFINITY;
  std::fill(lost.begin(), lost.end(), NAN);
  Array<int32_t> near(static_cast<size_t>(cells), -2), nowhere(static_cast<size_t>(cells), -2);
  e = cases::finish(nearest({book.data(), rows, size, strange.data(), cells, near.data(), 64}, nullptr));
  if (e == cudaSuccess)
    e = cases::finish(nearest({lost.data(), rows, size, z.data(), cells, nowhere.data(), 64}, nullptr));
  bool right = e == cudaSuccess;
  for (int i = 0; i < cells; i++)
    right = right && near[static_cast<size_t>(i)] == (i >= 1 && i <= 3 ? -1 : tokens[static_cast<size_t>(i)]) &&
            nowhere[static_cast<size_t>(i)] == -1;
  cases::check(right, "what is not finite is near no row of %d", rows);

  const auto rowsOf = [&](auto element_) {
    using E = decltype(element_);
    Array<E> out(static_cast<size_t>(cells * pictureStride(size)));
    const cudaError_t e =
        cases::finish(lookup({book.data(), size, tokens.data(), cells, element<E>, out.data(), 32}, nullptr));
    std::vector<float> wanted;
    for (int i = 0; i < cells; i++)
      wanted.insert(wanted.end(), unit.begin() + tokens[static_cast<size_t>(i)] * size,
                    unit.begin() + (tokens[static_cast<size_t>(i)] + 1) * size);
    bool padded = true;
    cases::check(e == cudaSuccess &&
                     dense(out.data(), static_cast<size_t>(cells), size, &padded) == rounded<E>(wanted) && padded,
                 "%s, rows of %d tokens", nameOf(E()), cells);
  };
  rowsOf(float());
  rowsOf(uint16_t());
}

// ---- pictures -----------------------------------------------------------------------------------------------

void resize(int height, int width, int outHeight, int outWidth, int images) {
  cases::Numbers numbers(static_cast<uint64_t>(height * 100 + outWidth));
  const size_t size = static_cast<size_t>(height * width * 3), outSize = static_cast<size_t>(outHeight * outWidth * 3),
               n = static_cast<size_t>(images);
  const std::vector<float> from32 = normals(numbers, size * n, 0.7f);
  std::vector<float> expected(outSize * n);
  std::vector<uint8_t> expectedBytes(outSize * n);
  parvis::cpu::Threads threads(1);
  for (size_t i = 0; i < n; i++) {
    if (size == outSize) std::copy_n(from32.begin(), size * n, expected.begin());
    else
      parvis::cpu::resizeBicubic(from32.data() + i * size, height, width, expected.data() + i * outSize, outHeight,
                                 outWidth, threads);
  }
  parvis::cpu::toBytes(expected.data(), expectedBytes.data(), expected.size());
  const Array<float> from(from32.begin(), from32.end());
  Array<float> floats(outSize * n);
  Array<uint8_t> bytes(outSize * n);
  cudaError_t e =
      output({from.data(), images, height, width, outHeight, outWidth, floats.data(), nullptr, 64}, nullptr);
  if (e == cudaSuccess)
    e = cases::finish(
        output({from.data(), images, height, width, outHeight, outWidth, nullptr, bytes.data(), 96}, nullptr));
  cases::check(e == cudaSuccess && std::equal(floats.begin(), floats.end(), expected.begin()) &&
                   std::equal(bytes.begin(), bytes.end(), expectedBytes.begin()),
               "%d x %d to %d x %d, floats and bytes: the CPU's bits", height, width, outHeight, outWidth);

  // The flag of a picture with a number that is not finite, and of one without.
  bool flagged = true;
  for (const float value : {0.5f, NAN, INFINITY, -INFINITY}) {
    Array<float> strange(from.begin(), from.end());
    strange.back() = value;
    Array<int> flag(1, 0);
    e = cases::finish(output(
        {strange.data(), images, height, width, outHeight, outWidth, nullptr, bytes.data(), 64, flag.data()}, nullptr));
    flagged = flagged && e == cudaSuccess && flag[0] == (std::isfinite(value) ? 0 : 1);
  }
  cases::check(flagged, "%d x %d to %d x %d: what is not finite is told", height, width, outHeight, outWidth);
}

template <class E>
void pixels() {
  cases::Numbers numbers(9);
  const std::vector<float> from32 = normals(numbers, 35 * 3);
  const Array<float> from(from32.begin(), from32.end());
  Array<E> to(35 * 8);
  reference::convert(NAN, to[3]);
  const cudaError_t e = cases::finish(input({from.data(), 35, 3, element<E>, to.data(), 64}, nullptr));
  bool padded = true;
  cases::check(e == cudaSuccess && dense(to.data(), 35, 3, &padded) == rounded<E>(from32) && padded,
               "%s, pixels to elements", nameOf(E()));
}

template <class E>
void family() {
  attentionBlock<E>(64, 5, 7);
  attentionBlock<E>(32, 3, 3);
  attentionBlock<E>(20, 3, 13);
  attention<E>(32, 1, 1);
  attention<E>(160, 70, 1);
  attention<E>(8, 64, 2);
  attention<E>(320, 33, 1);
  attention<E>(512, 40, 2);
  pixels<E>();
}

}  // namespace

int main(int, char** argv) {
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  family<uint16_t>();
  family<float>();
  damagedAttention<uint16_t>(64, 16);
  damagedAttention<float>(64, 16);
  codebook(500, 8, 7);
  codebook(70, 5, 4);
  resize(12, 9, 8, 6, 2);
  resize(7, 8, 16, 5, 1);
  resize(6, 5, 6, 5, 2);
  resize(1, 1, 3, 2, 1);
  SelfAttention wide{nullptr, nullptr, nullptr, nullptr, 1, 4, 520, parvis::cuda::Element::bfloat16};
  cases::check(attend(wide, nullptr) == cudaErrorInvalidValue, "attention of 520 channels is refused");
  cases::check(nearest({nullptr, 4, maxCodeSize + 1, nullptr, 1, nullptr, 64}, nullptr) == cudaErrorInvalidValue,
               "longer codebook rows are refused");
  return cases::failures > 0;
}
