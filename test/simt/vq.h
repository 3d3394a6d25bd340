// What the tests of the VQ tokenizer's kernels share: pictures and weights for the kernels and, from the same numbers,
// for the CPU backend's operations. `E` is float or uint16_t (bfloat16).
#pragma once

#include "../../cpu/picture.h"
#include "../../cpu/tokenizer.h"
#include "../../cuda/vq.cuh"
#include "reference.h"

namespace pictures {

using cases::Array;
using parvis::cuda::vq::pictureStride;
using reference::kind;
using reference::up;

template <class E>
constexpr parvis::cuda::Element element = sizeof(E) == 4 ? parvis::cuda::Element::float32
                                                         : parvis::cuda::Element::bfloat16;
template <class E>
constexpr parvis::WeightFormat cpuFormat = sizeof(E) == 4 ? parvis::WeightFormat::float32
                                                          : parvis::WeightFormat::bfloat16;
template <class E>
constexpr parvis::cpu::Element cpuElement = sizeof(E) == 4 ? parvis::cpu::Element::float32
                                                           : parvis::cpu::Element::bfloat16;
inline const char* nameOf(float) { return "float32"; }
inline const char* nameOf(uint16_t) { return "bfloat16"; }

inline std::vector<float> normals(cases::Numbers& numbers, size_t count, float scale = 1) {
  std::vector<float> v(count);
  for (float& f : v) f = numbers.normal() * scale;
  return v;
}

// Rounded to what E holds.
template <class E>
std::vector<float> rounded(std::vector<float> v) {
  for (float& f : v) {
    E e;
    reference::convert(f, e);
    f = reference::value(e);
  }
  return v;
}

// [pixels, channels] <-> elements [pixels, stride]
template <class E>
Array<E> strided(const std::vector<float>& v, int channels) {
  const size_t stride = static_cast<size_t>(pictureStride(channels)), pixels = v.size() / static_cast<size_t>(channels);
  Array<E> out(pixels * stride);
  for (size_t i = 0; i < v.size(); i++)
    reference::convert(v[i], out[i / static_cast<size_t>(channels) * stride + i % static_cast<size_t>(channels)]);
  return out;
}
template <class E>
std::vector<float> dense(const E* v, size_t pixels, int channels, bool* padded = nullptr) {
  const size_t stride = static_cast<size_t>(pictureStride(channels));
  std::vector<float> out;
  for (size_t i = 0; i < pixels * stride; i++)
    if (i % stride < static_cast<size_t>(channels)) out.push_back(reference::value(v[i]));
    else if (padded && reference::value(v[i]) != 0.0f) *padded = false;
  return out;
}

template <class E>
struct Weights {
  Array<E> data;
  Array<float> bias;
  std::vector<float> bias32, w;
  std::vector<uint8_t> panels;
  parvis::cuda::vq::Filter filter;
  parvis::cpu::ConvolutionWeights cpu;

  Weights(cases::Numbers& numbers, int channels, int outputs, int kernel) {
    w = rounded<E>(normals(numbers, static_cast<size_t>(outputs * channels * kernel * kernel),
                           1.0f / std::sqrt(static_cast<float>(channels * kernel * kernel))));
    bias32 = normals(numbers, static_cast<size_t>(up(outputs, 32)), 0.3f);
    for (int i = outputs; i < up(outputs, 32); i++) bias32[static_cast<size_t>(i)] = 0;
    bias.assign(bias32.begin(), bias32.end());
    filter = {nullptr, bias.data(), channels, outputs, kernel, element<E>};
    data.resize(filter.elements());
    reference::convert(NAN, data[0]);
    std::fill(data.begin(), data.end(), data[0]);
    filter.data = data.data();
    // In two calls where there is more than one super tile, as a loader does.
    Array<float> rows(w.begin(), w.end());
    const int first = outputs > filter.superTile() ? filter.superTile() : outputs;
    cudaError_t e = parvis::cuda::vq::packFilter(rows.data(), 0, first, filter, 64, nullptr);
    if (e == cudaSuccess && first < outputs)
      e = parvis::cuda::vq::packFilter(rows.data() + static_cast<ptrdiff_t>(first) * channels * kernel * kernel, first,
                                       outputs - first, filter, 64, nullptr);
    if (cases::finish(e) != cudaSuccess) cases::check(false, "packing");

    const int step = parvis::cpu::inputStep(cpuElement<E>), padded = up(channels, step), taps = kernel * kernel,
              inputs = taps * padded;
    cpu.w = parvis::cpu::matrixShape(outputs, inputs, cpuFormat<E>);
    cpu.bias = bias32.data();
    cpu.channels = channels, cpu.padded = padded, cpu.outputs = outputs, cpu.kernel = kernel;
    panels.resize(cpu.w.bytes() + 64);
    cpu.w.data = panels.data();
    while (reinterpret_cast<uintptr_t>(cpu.w.data) % 64 != 0) cpu.w.data++;
    std::vector<float> ordered(static_cast<size_t>(outputs * inputs));
    for (int o = 0; o < outputs; o++)
      for (int tap = 0; tap < taps; tap++)
        for (int c = 0; c < channels; c++)
          ordered[static_cast<size_t>(o * inputs + tap * padded + c)] =
              w[static_cast<size_t>((o * channels + c) * taps + tap)];
    for (int p = 0; p < cpu.w.panels; p++)
      parvis::cpu::packPanel(ordered.data() + static_cast<ptrdiff_t>(p) * 32 * inputs, inputs,
                             outputs - p * 32 < 32 ? outputs - p * 32 : 32, inputs, cpuFormat<E>,
                             cpu.w.data + static_cast<size_t>(p) * cpu.w.panelBytes());
  }
  Weights(const Weights&) = delete;
};

struct Norm {
  Array<float> weight, bias;
  std::vector<float> weight32, bias32;
  parvis::cpu::GroupNorm cpu;
  Norm(cases::Numbers& numbers, int channels)
      : weight32(normals(numbers, static_cast<size_t>(channels), 0.5f)),
        bias32(normals(numbers, static_cast<size_t>(channels), 0.5f)) {
    for (float& f : weight32) f += 1;
    weight.assign(weight32.begin(), weight32.end());
    bias.assign(bias32.begin(), bias32.end());
    cpu = {weight32.data(), bias32.data(), channels};
  }
  Norm(const Norm&) = delete;
};

inline parvis::cpu::Picture picture(parvis::cpu::PictureRunner& run, const float* v, int height, int width,
                                    int channels) {
  parvis::cpu::Picture p = run.make(height, width, channels);
  std::memcpy(p.data(), v, p.size() * sizeof(float));
  return p;
}

}  // namespace pictures
