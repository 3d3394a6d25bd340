// The kernels of the tokenizer of videos: as in vq.cuh, raw pointers to device memory and a stream in, a status out.
// Frames are pictures as vq.cuh has them, one at a time: [height, width, stride] elements. Before a filter reads a
// frame it is staged: normed, with its edges repeated around it, so that the filter itself looks at no border. The
// filter then reads three staged frames, the last one and the two before it.
#pragma once

#include "vq.cuh"

namespace parvis::cuda::video {

constexpr int windowChannels = 32;  // that a filter takes in at a time: staged pixels have a multiple of them
__host__ __device__ constexpr int stagedStride(int channels) {
  return (channels + windowChannels - 1) / windowChannels * windowChannels;
}

// The weights of a filter in the order in which they are multiplied, zero beyond the matrix. Taps are those of the
// earliest frame first, then by rows and columns.
//   bfloat16: A fragments, [outputs / 64][taps][stagedStride / 32][2][4][32 lanes][8]. Row r of a tile of 16 is output
//   2 (r mod 8) + r / 8: a lane then has two neighbours. float32: [taps][stagedStride][outputs rounded up to 64]
struct Filter {
  void* data = nullptr;
  const float* bias = nullptr;                // [outputs], zero up to a multiple of 16
  int channels = 0, outputs = 0, kernel = 0;  // kernel 1 or 3, in time and space; outputs 0: there is none
  Element element = Element::float32;
  __host__ __device__ int taps() const { return kernel * kernel * kernel; }
  __host__ __device__ int paddedOutputs() const { return (outputs + 63) / 64 * 64; }
  __host__ __device__ size_t elements() const {
    return static_cast<size_t>(taps()) * static_cast<size_t>(stagedStride(channels)) *
           static_cast<size_t>(paddedOutputs());
  }
  size_t bytes() const { return elements() * sizeOf(element); }
};
// rows: float32 [count, channels, taps], as they are in the checkpoint; they are outputs first .. first + count.
// `first` is a multiple of 64, and so is `count` but for the last call.
cudaError_t packFilter(const float* rows, int first, int count, const Filter& to, int threads, cudaStream_t stream);

struct Stage {
  const void* x;  // elements [height, width, pictureStride(channels)]
  int height, width, channels;
  Element element;
  const float* scale;  // [channels]: x scale + shift, then swish(v) = v sigmoid(slope v); or null: x
  const float* shift;
  const float* slope;
  int before, border;  // pixels that are repeated above and to the left, and in all
  void* to;            // elements [height + border, width + border, stagedStride(channels)]
  int threads;
};
cudaError_t stage(const Stage& s, cudaStream_t stream);

struct Convolution {
  const void* frames[3];  // staged, the earliest first; of a kernel of 1 the first alone
  int rowPixels;          // of a staged frame
  int stride;             // 1, or 2: at every other pixel
  int height, width;      // places that the filter is put at
  Filter filter;
  const void* residual;  // elements [height, width, pictureStride(outputs)], added; or null
  // The outputs of a place become expandTime frames of expandSpace x expandSpace pixels; the block is the outer part of
  // an output's number. y: frames [height expandSpace, width expandSpace, pictureStride(outputs / blocks)]; where
  // `floats` one frame, float32 [height, width, outputs]. The first of two may be null: it is not computed.
  int expandTime, expandSpace;
  bool floats;
  void* y[2];
  __host__ __device__ int part() const { return filter.outputs / (expandTime * expandSpace * expandSpace); }
};
cudaError_t convolve(const Convolution& c, cudaStream_t stream);

}  // namespace parvis::cuda::video
