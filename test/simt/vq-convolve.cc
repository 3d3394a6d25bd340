// cuda/convolve.cu, convolve-plain.cu and group-norm.cu against the CPU backend's operations: borders, odd sizes,
// channels that fill no window, resampling, norm, swish, residuals; and that bits depend neither on the batch nor on
// the block size.
#include "vq.h"

using namespace parvis::cuda::vq;
using namespace pictures;
using parvis::cpu::PictureRunner;

namespace {

constexpr int groups = 4;
constexpr float eps = 1e-6f;
const parvis::Cancel never{false};
enum Norming { plain, normed, swished };

struct Case {
  int channels, outputs, kernel, height, width;
  Resample resample = Resample::none;
  Norming norming = plain;
  bool residual = false, floats = false;
  int images = 1;
};

template <class E>
struct Factors {  // of the norm before a convolution
  Array<float> sums, scale, shift;
  Factors() = default;
  Factors(const E* x, int images, int height, int width, int channels, const Norm& n, const float* given = nullptr) {
    const size_t all = static_cast<size_t>(images * channels);
    sums.assign(static_cast<size_t>(images * sumSlots(height, width) * pictureStride(channels) * 2), NAN);
    scale.assign(all, NAN);
    shift.assign(all, NAN);
    cudaError_t e =
        given ? cudaSuccess
              : statistics({x, images, height, width, channels, parvis::cuda::Element(element<E>), sums.data(), 64},
                           nullptr);
    if (e == cudaSuccess)
      e = groupNormFactors({given ? given : sums.data(), images, height, width, channels, groups, eps, n.weight.data(),
                            n.bias.data(), scale.data(), shift.data(), 32},
                           nullptr);
    if (cases::finish(e) != cudaSuccess) cases::check(false, "factors of a norm");
  }
};

std::string describe(const Case& c) {
  return std::to_string(c.kernel) + "x" + std::to_string(c.kernel) + " " + std::to_string(c.channels) + " -> " +
         std::to_string(c.outputs) + ", " + std::to_string(c.height) + " x " + std::to_string(c.width) +
         (c.resample == Resample::up     ? ", up"
          : c.resample == Resample::down ? ", down"
                                         : "") +
         (c.norming == swished  ? ", norm and swish"
          : c.norming == normed ? ", norm"
                                : "") +
         (c.residual ? ", residual" : "");
}

template <class E>
void convolution(const Case& k) {
  cases::Numbers numbers(static_cast<uint64_t>(k.channels * 7 + k.outputs * 3 + k.height));
  const Weights<E> w(numbers, k.channels, k.outputs, k.kernel);
  const Norm n(numbers, k.channels);
  Convolution c{};
  c.images = k.images, c.height = k.height, c.width = k.width, c.resample = k.resample, c.filter = w.filter,
  c.swish = k.norming == swished, c.floats = k.floats;
  const size_t inPixels = static_cast<size_t>(k.height * k.width),
               outPixels = static_cast<size_t>(c.outHeight() * c.outWidth()), images = static_cast<size_t>(k.images),
               outStride = static_cast<size_t>(pictureStride(k.outputs));
  const std::vector<float> x32 =
                               rounded<E>(normals(numbers, images * inPixels * static_cast<size_t>(k.channels), 1.3f)),
                           r32 = rounded<E>(normals(numbers, images * outPixels * static_cast<size_t>(k.outputs)));
  const Array<E> x = strided<E>(x32, k.channels), r = strided<E>(r32, k.outputs);
  const Factors<E> f =
      k.norming == plain ? Factors<E>() : Factors<E>(x.data(), k.images, k.height, k.width, k.channels, n);
  c.x = x.data();
  if (k.norming != plain) c.scale = f.scale.data(), c.shift = f.shift.data();
  if (k.residual) c.residual = r.data();

  std::vector<float> expected;
  parvis::cpu::Threads threads(1);
  PictureRunner run(threads, cpuElement<E>, groups, eps, never);
  for (size_t i = 0; i < images; i++) {
    const auto in = picture(run, x32.data() + i * inPixels * static_cast<size_t>(k.channels), k.height, k.width,
                            k.channels),
               add = picture(run, r32.data() + i * outPixels * static_cast<size_t>(k.outputs), c.outHeight(),
                             c.outWidth(), k.outputs);
    const auto y = run.convolve(in, w.cpu, k.norming == plain ? nullptr : &n.cpu, c.swish, k.resample,
                                k.residual ? &add : nullptr);
    expected.insert(expected.end(), y.data(), y.data() + y.size());
  }

  const std::string name = describe(k);
  const double bound = sizeof(E) == 4 ? 5e-6 : k.floats ? 4e-3 : 6e-3;
  if (k.floats) {
    Array<float> y(expected.size(), NAN);
    c.y = y.data();
    const cudaError_t e = cases::finish(convolve(c, nullptr));
    const double off = reference::relative(y, expected);
    cases::check(e == cudaSuccess && off < bound, "%s, %s, float32 out: %.2g off", nameOf(E()), name.c_str(), off);
    return;
  }
  Array<E> y[3];
  Array<float> sums[3];
  const size_t slots = static_cast<size_t>(sumSlots(c.outHeight(), c.outWidth())) * outStride * 2;
  cudaError_t e = cudaSuccess;
  for (int i = 0; i < 3 && e == cudaSuccess; i++) {  // blocks of 64 pixels, of 128, the last image alone
    const size_t some = i < 2 ? images : 1;
    if (i > 0 && sizeof(E) == 4 && k.images == 1) continue;
    E nothing;
    reference::convert(NAN, nothing);
    y[i].assign(some * outPixels * outStride, nothing);
    sums[i].assign(some * slots, NAN);
    Convolution d = c;
    d.images = static_cast<int>(some);
    d.y = y[i].data();
    d.sums = sums[i].data();
    d.blockPixels = i == 1 ? 128 : 64;
    if (i == 2) {
      d.x = x.data() + (images - 1) * inPixels * static_cast<size_t>(pictureStride(k.channels));
      if (d.scale)
        d.scale += static_cast<ptrdiff_t>((images - 1)) * k.channels,
            d.shift += static_cast<ptrdiff_t>((images - 1)) * k.channels;
      if (d.residual) d.residual = r.data() + (images - 1) * outPixels * outStride;
    }
    e = cases::finish(convolve(d, nullptr));
  }
  bool padded = true;
  const double off = e == cudaSuccess
                         ? reference::relative(dense(y[0].data(), images * outPixels, k.outputs, &padded), expected)
                         : 1e30;
  cases::check(e == cudaSuccess && padded && off < bound, "%s, %s: %.2g off", nameOf(E()), name.c_str(), off);
  if (e != cudaSuccess) return;
  if (!y[2].empty())
    cases::check(y[0] == y[1] && sums[0] == sums[1] &&
                     std::equal(y[2].begin(), y[2].end(), y[0].end() - static_cast<ptrdiff_t>(y[2].size())) &&
                     std::equal(sums[2].begin(), sums[2].end(), sums[0].end() - static_cast<ptrdiff_t>(slots)),
                 "%s, %s: the same bits in other blocks and alone", nameOf(E()), name.c_str());
  Array<float> apart(sums[0].size(), NAN);
  e = cases::finish(statistics(
      {y[0].data(), k.images, c.outHeight(), c.outWidth(), k.outputs, element<E>, apart.data(), 96}, nullptr));
  const double sumsOff = reference::relative(sums[0], apart);
  cases::check(e == cudaSuccess && sumsOff < 1e-6, "%s, %s: sums of the result, %.2g off", nameOf(E()), name.c_str(),
               sumsOff);
}

// Two convolutions with norms between them, fed by the first one's sums, and a shortcut: what a decoder is made of.
template <class E>
void residualBlock() {
  constexpr int channels = 32, outputs = 64, height = 9, width = 13;
  cases::Numbers numbers(5);
  parvis::ResidualLayer<parvis::cpu::GroupNorm, parvis::cpu::ConvolutionWeights> block;
  const Norm n1(numbers, channels), n2(numbers, outputs);
  const Weights<E> w1(numbers, channels, outputs, 3), w2(numbers, outputs, outputs, 3),
      w3(numbers, channels, outputs, 1);
  block.norm1 = n1.cpu, block.norm2 = n2.cpu, block.conv1 = w1.cpu, block.conv2 = w2.cpu, block.shortcut = w3.cpu;
  const size_t pixels = height * width;
  std::vector<float> x32 = normals(numbers, pixels * channels);
  for (size_t i = 0; i < x32.size(); i++)
    x32[i] += static_cast<float>(i % channels) * 0.25f;  // means that are not zero
  x32 = rounded<E>(x32);
  parvis::cpu::Threads threads(1);
  PictureRunner run(threads, cpuElement<E>, groups, eps, never);
  const auto expected = run.layer(picture(run, x32.data(), height, width, channels), block, false);

  const Array<E> x = strided<E>(x32, channels);
  Array<E> h(pixels * outputs), side(h.size()), y(h.size());
  Array<float> sums(static_cast<size_t>(sumSlots(height, width)) * outputs * 2);
  const Factors<E> f1(x.data(), 1, height, width, channels, n1);
  Convolution c{};
  c.x = x.data(), c.images = 1, c.height = height, c.width = width, c.filter = w1.filter, c.scale = f1.scale.data(),
  c.shift = f1.shift.data(), c.swish = true, c.y = h.data(), c.sums = sums.data();
  cudaError_t e = cases::finish(convolve(c, nullptr));
  const Factors<E> f2(h.data(), 1, height, width, outputs, n2, sums.data());
  Convolution s{};
  s.x = x.data(), s.images = 1, s.height = height, s.width = width, s.filter = w3.filter, s.y = side.data();
  if (e == cudaSuccess) e = convolve(s, nullptr);
  c.x = h.data(), c.filter = w2.filter, c.scale = f2.scale.data(), c.shift = f2.shift.data(), c.y = y.data(),
  c.sums = nullptr, c.residual = side.data();
  if (e == cudaSuccess) e = cases::finish(convolve(c, nullptr));
  const double off = reference::relative(dense(y.data(), pixels, outputs),
                                         std::vector<float>(expected.data(), expected.data() + expected.size()));
  cases::check(e == cudaSuccess && off < (sizeof(E) == 4 ? 1e-5 : 1.5e-2), "%s, residual block with shortcut: %.2g off",
               nameOf(E()), off);
}

template <class E>
void family() {
  convolution<E>({32, 32, 3, 9, 11});
  convolution<E>({64, 136, 3, 10, 9, Resample::none, swished, true, false, 2});
  convolution<E>({96, 64, 1, 7, 5, Resample::none, normed});
  convolution<E>({40, 144, 1, 18, 9, Resample::none, plain, true});
  convolution<E>({72, 24, 3, 5, 3, Resample::none, swished});
  convolution<E>({32, 64, 3, 12, 18, Resample::down});
  convolution<E>({32, 160, 3, 19, 7, Resample::down, plain, false, false, 2});
  convolution<E>({32, 48, 3, 5, 6, Resample::up});
  convolution<E>({64, 72, 3, 9, 5, Resample::up, plain, false, false, 2});
  convolution<E>({32, 8, 3, 6, 8, Resample::down});
  convolution<E>({32, 12, 3, 5, 6, Resample::up});
  convolution<E>({3, 32, 3, 6, 10});
  convolution<E>({64, 3, 3, 17, 9, Resample::none, swished, false, true, 2});
  convolution<E>({32, 8, 1, 4, 5, Resample::none, plain, false, true});
  convolution<E>({8, 32, 1, 1, 1});
  convolution<E>({32, 12, 3, 3, 4, Resample::none, swished, true});
  convolution<E>({4, 3, 3, 1, 1});  // channels that fill no group of eight
  convolution<E>({20, 6, 3, 3, 9, Resample::none, swished, true, false, 3});
  convolution<E>({33, 70, 3, 8, 34, Resample::none, plain, true});
  convolution<E>({33, 20, 3, 4, 5, Resample::up});
  convolution<E>({20, 33, 3, 6, 4, Resample::down});
  convolution<E>({20, 20, 1, 5, 7, Resample::none, normed, true});
  residualBlock<E>();
}

}  // namespace

int main(int, char** argv) {
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  family<uint16_t>();
  family<float>();
  Convolution c{};
  cases::check(convolve(c, nullptr) == cudaErrorInvalidValue, "nothing to do is refused");
  c.images = c.height = c.width = 4, c.filter = {nullptr, nullptr, 32, 32, 5, parvis::cuda::Element::bfloat16};
  cases::check(convolve(c, nullptr) == cudaErrorInvalidValue, "a 5x5 convolution is refused");
  cases::check(groupNormFactors({nullptr, 1, 4, 4, 30, 4, eps, nullptr, nullptr, nullptr, nullptr, 32}, nullptr) ==
                   cudaErrorInvalidValue,
               "groups that do not divide the channels are refused");
  return cases::failures > 0;
}
