// The operations of VQ-16's decoder at 384 px, one by one: milliseconds, TFLOP/s, and what they come to for a picture.
// Numbers mean nothing and results are not looked at: test/simt/vq-convolve.cc does that.
//   nvcc -std=c++17 -O3 --fmad=false -arch=native -Iinclude bench/cuda/vq.cu cuda/convolve.cu cuda/convolve-plain.cu
//   cuda/group-norm.cu cuda/vq-attend.cu cuda/picture.cu -o /tmp/vq && /tmp/vq [images]
#include <cstdio>
#include <cstdlib>

#include "../../cuda/vq.cuh"
#include "measuring.h"

using namespace parvis::cuda;
using namespace parvis::cuda::vq;

namespace {

constexpr size_t most = size_t{384} * 384 * 256;  // elements of a picture

void stop(cudaError_t e) {
  if (e == cudaSuccess) return;
  std::printf("CUDA: %s\n", cudaGetErrorString(e));
  std::exit(1);
}
void* memory(size_t bytes) {
  void* p = nullptr;
  stop(cudaMalloc(&p, bytes));
  stop(measuring::fillWithNumbers(p, bytes, nullptr));
  return p;
}

template <class Body>
double milliseconds(Body&& body) {
  cudaEvent_t begin, end;
  stop(cudaEventCreate(&begin));
  stop(cudaEventCreate(&end));
  for (int i = 0; i < 3; i++) stop(body());
  constexpr int times = 20;
  stop(cudaEventRecord(begin));
  for (int i = 0; i < times; i++) stop(body());
  stop(cudaEventRecord(end));
  stop(cudaEventSynchronize(end));
  float ms = 0;
  stop(cudaEventElapsedTime(&ms, begin, end));
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return static_cast<double>(ms) / times;
}

struct Shape {
  int size, channels, outputs, kernel, count;  // size: of the stored input; count: how often a decoder has it
  Resample resample;
  bool normed;
};
constexpr Shape shapes[] = {
    {24, 8, 256, 1, 1, Resample::none, false},    {24, 256, 512, 3, 1, Resample::none, false},
    {24, 512, 512, 3, 10, Resample::none, true},  {24, 512, 512, 1, 16, Resample::none, true},
    {24, 512, 512, 3, 1, Resample::up, false},    {48, 512, 256, 3, 1, Resample::none, true},
    {48, 512, 256, 1, 1, Resample::none, false},  {48, 256, 256, 3, 5, Resample::none, true},
    {48, 256, 256, 3, 1, Resample::up, false},    {96, 256, 256, 3, 6, Resample::none, true},
    {96, 256, 256, 3, 1, Resample::up, false},    {192, 256, 128, 3, 1, Resample::none, true},
    {192, 256, 128, 1, 1, Resample::none, false}, {192, 128, 128, 3, 5, Resample::none, true},
    {192, 128, 128, 3, 1, Resample::up, false},   {384, 128, 128, 3, 6, Resample::none, true},
    {384, 128, 3, 3, 1, Resample::none, true},
};

}  // namespace

int main(int argc, char** argv) {
  const int images = argc > 1 ? std::atoi(argv[1]) : 1;
  if (images < 1) return 1;
  const size_t n = static_cast<size_t>(images);
  void *x = memory(n * most * 2), *y = memory(n * most * 2), *residual = memory(n * most * 2),
       *weights = memory(size_t{512} * 512 * 9 * 2);
  float *bias = static_cast<float*>(memory(4096)), *scale = static_cast<float*>(memory(n * 2048)),
        *shift = static_cast<float*>(memory(n * 2048)), *sums = static_cast<float*>(memory(n * most));
  double all = 0, flops = 0;
  const auto row = [&](const char* name, const Shape& s, double ms, double work) {
    std::printf("%-10s %4d x %-4d %4d -> %-4d %dx%d%s  %2d x %8.4f ms  %7.1f TFLOP/s\n", name, s.size, s.size,
                s.channels, s.outputs, s.kernel, s.kernel, s.resample == Resample::up ? " up" : "   ", s.count, ms,
                work / ms * 1e-9);
    all += ms * s.count;
    flops += work * s.count;
  };
  for (const Shape& s : shapes) {
    Convolution c{};
    c.x = x, c.images = images, c.height = c.width = s.size, c.resample = s.resample,
    c.filter = {weights, bias, s.channels, s.outputs, s.kernel, Element::bfloat16};
    if (s.normed) c.scale = scale, c.shift = shift, c.swish = s.kernel == 3;
    c.floats = s.outputs == 3, c.sums = c.floats ? nullptr : sums,
    c.residual = s.normed && !c.floats ? residual : nullptr, c.y = y;
    row("convolve", s, milliseconds([&] { return convolve(c, nullptr); }),
        2.0 * images * c.outHeight() * c.outWidth() * s.outputs * s.channels * s.kernel * s.kernel);
  }
  constexpr Shape norms[] = {{24, 512, 512, 1, 15, Resample::none, true},
                             {48, 512, 512, 1, 6, Resample::none, true},
                             {96, 256, 256, 1, 6, Resample::none, true},
                             {192, 256, 256, 1, 6, Resample::none, true},
                             {384, 128, 128, 1, 7, Resample::none, true}};
  for (const Shape& s : norms)
    row("norm", s, milliseconds([&] {
          return groupNormFactors({sums, images, s.size, s.size, s.channels, 32, 1e-6f, bias, bias, scale, shift, 512},
                                  nullptr);
        }),
        0);
  const Shape heads{24, 512, 512, 1, 4, Resample::none, false};
  row("attention", heads, milliseconds([&] {
        return attend({x, y, residual, y, images, 576, 512, Element::bfloat16}, nullptr);
      }),
      4.0 * images * 576 * 576 * 512);
  const Shape rgb{384, 3, 3, 1, 1, Resample::none, false};
  row("bytes", rgb, milliseconds([&] {
        return output({static_cast<float*>(x), images, 384, 384, 384, 384, nullptr, static_cast<uint8_t*>(y), 256},
                      nullptr);
      }),
      0);
  std::printf("a picture: %.3f ms, %.0f GFLOP, %.0f TFLOP/s; launches back to back, without copies\n", all / images,
              flops / images * 1e-9, flops / all * 1e-9);
  return 0;
}
