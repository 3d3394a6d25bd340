// Convolutions as implicit matrix products on NHWC pictures, and the staging that feeds them: group norm, swish,
// nearest upsampling and the zero border happen while the input is copied into the multiplied type, so the
// product itself has no conditions. A tile is a few neighbouring pixels of one row against 32 output channels.
#pragma once

#include "../kernels.h"
#include "tile.h"

namespace {

using namespace parvis::cpu;

template <class E>
void convolve(const Convolution& c, int panelBegin, int panelEnd, int rowBegin, int rowEnd) {
  const ptrdiff_t tapBytes = packedBytes<E>(c.channels);
  const ptrdiff_t frameBytes = tapBytes * c.kernel * c.kernel, panelBytes = frameBytes * c.frames;
  const int part = c.outputs / (c.time * c.space * c.space);
  const ptrdiff_t yPixel = static_cast<ptrdiff_t>(c.space) * part, yRow = yPixel * c.width * c.space;
  const ptrdiff_t pixel = static_cast<ptrdiff_t>(c.stride) * c.channels;
  alignas(64) float sums[chunkRows * panelOutputs];
  for (int panel = panelBegin; panel < panelEnd; panel++) {
    const uint8_t* w = c.w + panel * panelBytes;
    const int first = panel * 32, valid = c.outputs - first < 32 ? c.outputs - first : 32;
    const int block = first / part, column = block % c.space, row = block / c.space % c.space;
    float* y = c.y[block / (c.space * c.space)];
    if (!y) continue;
    y += row * (yPixel * c.width) + column * part + first % part;
    for (int oy = rowBegin; oy < rowEnd; oy++)
      forChunks(c.width, [&](int ox, int count) {
        const ptrdiff_t corner = static_cast<ptrdiff_t>(oy) * c.stride * c.xRow + ox * pixel;
        for (int frame = 0; frame < c.frames; frame++)
          // The taps of one kernel row are neighbours in memory: one run over kernel * channels inputs.
          for (int ky = 0; ky < c.kernel; ky++)
            multiplyPanel<E>(static_cast<const E*>(c.x[frame]) + corner + ky * c.xRow, pixel, count,
                             w + frame * frameBytes + ky * c.kernel * tapBytes, c.channels * c.kernel, sums,
                             frame + ky > 0);
        for (int r = 0; r < count; r++) {
          const ptrdiff_t at = (static_cast<ptrdiff_t>(oy) * c.width + ox + r) * c.outputs + first;
          const float* sum = sums + r * panelOutputs;
          float* to = y + oy * yRow + (ox + r) * yPixel;
          if (valid == 32) {
            for (int i = 0; i < 32; i += lanes) {
              vf v = load(sum + i) + load(c.bias + first + i);
              if (c.residual) v += load(c.residual + at + i);
              store(to + i, v);
            }
          } else {
            for (int i = 0; i < valid; i++)
              to[i] = sum[i] + c.bias[first + i] + (c.residual ? c.residual[at + i] : 0.0f);
          }
        }
      });
  }
}

template <class E>
void stage(const Stage& s) {
  E* out = static_cast<E*>(s.out);
  for (int x = 0; x < s.width; x++) {
    const float* from = s.x + static_cast<ptrdiff_t>(x) * s.channels;
    E* to = out + static_cast<ptrdiff_t>(x) * s.repeat * s.outChannels;
    int c = 0;
    for (; c + lanes <= s.channels; c += lanes) {
      vf v = load(from + c);
      if (s.scale) v = v * load(s.scale + c) + load(s.shift + c);
      if (s.swish) v = s.slope ? silu(v, load(s.slope + c)) : silu(v);
      for (int i = 0; i < s.repeat; i++) storeElements(to + i * s.outChannels + c, v);
    }
    for (; c < s.outChannels; c++) {
      float v = 0;
      if (c < s.channels) {
        v = from[c];
        if (s.scale) v = v * s.scale[c] + s.shift[c];
        if (s.swish) v = s.slope ? silu(fill(v), fill(s.slope[c]))[0] : silu(fill(v))[0];
      }
      for (int i = 0; i < s.repeat; i++) storeElement(to + i * s.outChannels + c, v);
    }
  }
}

void sums(const float* x, int pixels, int channels, double* sum, double* squares) {
  for (int p = 0; p < pixels; p++, x += channels)
    for (int c = 0; c < channels; c++) {
      const double v = x[c];
      sum[c] += v;
      squares[c] += v * v;
    }
}

template <class E>
void toElements(const float* from, void* to, size_t count) {
  E* out = static_cast<E*>(to);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) storeElements(out + i, load(from + i));
  for (; i < count; i++) storeElement(out + i, from[i]);
}

}  // namespace
