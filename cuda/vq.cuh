// The kernels of the VQ tokenizer: as in kernels.cuh, raw pointers to device memory and a stream in, a status out.
// Pictures are [images, height, width, stride] elements, bfloat16 or float32; the stride is the channels rounded up to
// 8 and what pads them is zero. Every image is computed as if it were alone: a picture's bits do not depend on its
// batch.
#pragma once

#include "kernels.cuh"
#include "parvis/model.h"

namespace parvis::cuda::vq {

__host__ __device__ constexpr int pictureStride(int channels) { return (channels + 7) / 8 * 8; }

// ---- convolve.cu, convolve-plain.cu ---------------------------------------------------------------------------

// The weights of a convolution in the order in which they are multiplied, zero beyond the matrix.
//   bfloat16: A fragments; [outputs / superTile][chunks][taps][2][superTile / 16][32 lanes][8]. Row r of tile T of a
//   super tile of `tiles` tiles is output 2 tiles (r mod 8) + 2 T + r / 8: a lane then has 2 `tiles` neighbours in its
//   sums. float32: [channels][taps][outputs rounded up to 64]
struct Filter {
  void* data;
  const float* bias;              // [outputs], zero up to a multiple of 16
  int channels, outputs, kernel;  // kernel 1 or 3
  Element element;
  __host__ __device__ int taps() const { return kernel * kernel; }
  __host__ __device__ int chunks() const { return (channels + 31) / 32; }
  __host__ __device__ int superTile() const { return element == Element::float32 || outputs > 16 ? 64 : 16; }
  __host__ __device__ int paddedOutputs() const { return (outputs + superTile() - 1) / superTile() * superTile(); }
  __host__ __device__ size_t elements() const {
    const size_t inputs =
        static_cast<size_t>(element == Element::float32 ? channels : chunks() * 32) * static_cast<size_t>(taps());
    return inputs * static_cast<size_t>(paddedOutputs());
  }
  size_t bytes() const { return elements() * (element == Element::float32 ? 4 : 2); }
};
// rows: float32 [count, channels, kernel, kernel], as they are in the checkpoint; they are outputs first .. first +
// count. `first` is a multiple of the super tile, and so is `count` but for the last call.
cudaError_t packFilter(const float* rows, int first, int count, const Filter& to, int threads, cudaStream_t stream);

// down: stride 2, padded right and bottom by one; up: each stored pixel four times
using parvis::Resample;

// Sums for the next group norm: a slot is 4 rows and 8 columns of a picture, the work of one warp.
__host__ __device__ constexpr int sumSlots(int height, int width) { return (height + 3) / 4 * ((width + 7) / 8); }

struct Convolution {
  const void* x;  // elements [images, height, width, pictureStride(channels)]
  int images, height, width;
  Filter filter;
  Resample resample;   // not none: kernel 3, and no norm before it
  const float* scale;  // [images, channels]: x scale + shift is what is convolved; or null: x
  const float* shift;
  bool swish;            // after that
  const void* residual;  // elements [images, outHeight, outWidth, pictureStride(outputs)], added; or null
  void* y;               // the same shape; where `floats`, float32 [images, outHeight, outWidth, outputs]
  bool floats;
  float* sums;      // [images, sumSlots(outHeight, outWidth), pictureStride(outputs), 2]: of y and y^2; or null
  int blockPixels;  // 64 or 128 (down: 64, of fewer or more outputs); 0: by the size of the work. Changes no bit.
  __host__ __device__ int outHeight() const {
    return resample == Resample::up ? 2 * height : resample == Resample::down ? height / 2 : height;
  }
  __host__ __device__ int outWidth() const {
    return resample == Resample::up ? 2 * width : resample == Resample::down ? width / 2 : width;
  }
};
cudaError_t convolve(const Convolution& c, cudaStream_t stream);
// Channels that a device can take in, given its shared memory a block: scales and shifts of all of them lie beside what
// else a block has. 99 KB: 640.
constexpr size_t convolutionBytes = 94 << 10;
constexpr int channelLimit(size_t sharedBytes) {
  return sharedBytes < convolutionBytes ? 0 : static_cast<int>((sharedBytes - convolutionBytes) / 256) * 32;
}
cudaError_t convolvePlain(const Convolution& c,
                          cudaStream_t stream);  // float32; what convolve calls where the filter is

// ---- group-norm.cu --------------------------------------------------------------------------------------------

// Sums of a picture whose producer wrote none.
struct Statistics {
  const void* x;  // elements [images, height, width, pictureStride(channels)]
  int images, height, width, channels;
  Element element;
  float* sums;  // [images, sumSlots(height, width), pictureStride(channels), 2]
  int threads;
};
cudaError_t statistics(const Statistics& s, cudaStream_t stream);

// norm(x) = x scale + shift
struct GroupNorm {
  const float* sums;  // [images, sumSlots(height, width), pictureStride(channels), 2]
  int images, height, width, channels, groups;
  float eps;
  const float* weight;  // [channels]
  const float* bias;
  float* scale;  // [images, channels]
  float* shift;
  int threads;  // a power of two, at least channels / groups; sums are put together in an order that depends on it
};
cudaError_t groupNormFactors(const GroupNorm& n, cudaStream_t stream);

// ---- vq-attend.cu ---------------------------------------------------------------------------------------------

// Every position sees every other, one head. No scores are kept: softmax is put together as keys go by.
constexpr int maxAttentionChannels = 512;
struct SelfAttention {
  const void* queries;  // elements [images, positions, pictureStride(channels)]
  const void* keys;
  const void* values;
  void* out;
  int images, positions, channels;  // channels up to maxAttentionChannels
  Element element;
};
cudaError_t attend(const SelfAttention& a, cudaStream_t stream);

// ---- codebook.cu ----------------------------------------------------------------------------------------------

// Rows [count, size] to length 1, in place.
cudaError_t normaliseRows(float* rows, int count, int size, int threads, cudaStream_t stream);

struct Lookup {
  const float* codebook;  // [any, size], rows of length 1
  int size;
  const int32_t* tokens;  // [cells]
  int cells;
  Element element;
  void* out;  // elements [cells, pictureStride(size)]
  int threads;
};
cudaError_t lookup(const Lookup& l, cudaStream_t stream);

constexpr int maxCodeSize = 256;
struct Nearest {
  const float* codebook;  // [rows, size], rows of length 1
  int rows, size;         // size up to maxCodeSize
  const float* z;         // [cells, size]
  int cells;
  int32_t* tokens;  // [cells]: the row with the largest product, the first of equals; -1 where that is no number
  int threads;      // a power of two
};
cudaError_t nearest(const Nearest& n, cudaStream_t stream);

// ---- picture.cu -----------------------------------------------------------------------------------------------

// float32 [pixels, channels] -> elements [pixels, pictureStride(channels)]
struct Input {
  const float* from;
  size_t pixels;
  int channels;
  Element element;
  void* to;
  int threads;
};
cudaError_t input(const Input& i, cudaStream_t stream);

// float32 [images, height, width, 3] -> float32 or bytes [images, outHeight, outWidth, 3], bicubic where sizes differ.
struct Output {
  const float* from;
  int images, height, width, outHeight, outWidth;
  float* floats;   // one of the two is null
  uint8_t* bytes;  // clamp(127.5 x + 128, 0, 255), truncated
  int threads;
  int* nonFinite = nullptr;  // becomes 1 where a number is NaN or infinite
};
cudaError_t output(const Output& o, cudaStream_t stream);

}  // namespace parvis::cuda::vq
