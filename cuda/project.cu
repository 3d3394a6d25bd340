// Projections of 1 to 64 rows: the speed of reading the weights is the floor, so everything else hides behind that stream.
// A block has 16 outputs (8 pairs); its eight warps split the inputs in eight contiguous runs, and each keeps `depth`
// fragments of weights on their way, asked for before anything else is done. The norm before the product is computed
// anew by every block, which costs less than a launch; each warp stages its own inputs, so the loop has no barrier of the
// block. Sums: over a run in order, then over the runs in order, whatever the number of rows: a picture's bits do not
// depend on its batch.
#include "epilogue.cuh"
#include "norm.cuh"

namespace parvis::cuda {

namespace {

constexpr int warps = 8, depth = 8;                 // depth: also the fragments that one staging serves
constexpr int stagedInputs = depth * 16;
constexpr int stagedStride = stagedInputs + 8;      // elements: rows start four banks apart
template <int rowTiles>
constexpr size_t stagingBytes = static_cast<size_t>(warps) * rowTiles * 8 * stagedStride * 2;
template <int rowTiles>
constexpr size_t sumBytes = static_cast<size_t>(warps) * rowTiles * 4 * 32 * 4;

// Inputs begin .. end of every row into the warp's staging area, normed where asked; rows that are not there become zero.
template <int rowTiles, bool normed>
__device__ void stage(const Projection& p, const float* scales, uint16_t* to, int begin, int end) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int i = lane; i < rowTiles * 8 * (stagedInputs / 4); i += 32) {  // a warp reads one row at a time
    const int row = i / (stagedInputs / 4), k = begin + i % (stagedInputs / 4) * 4;
    uint2 v = make_uint2(0, 0);
    if (row < p.rows && k < end) {
      if (normed) {
        const float4 x = *reinterpret_cast<const float4*>(p.x + row * p.xStride + k), w = *reinterpret_cast<const float4*>(p.normWeight + k);
        const float2 a = normedPair(to, make_float2(x.x, x.y), make_float2(w.x, w.y), scales[row]);
        const float2 b = normedPair(to, make_float2(x.z, x.w), make_float2(w.z, w.w), scales[row]);
        v = make_uint2(ptx::packBf16(a.x, a.y), ptx::packBf16(b.x, b.y));
      } else {
        v = *reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(p.elements) + row * p.xStride + k);
      }
    }
    *reinterpret_cast<uint2*>(to + row * stagedStride + k - begin) = v;
  }
}

template <int rowTiles, bool normed, Epilogue epilogue>
__global__ void __launch_bounds__(warps * 32) projectKernel(const __grid_constant__ Projection p) {
  PARVIS_SHARED(float, scales, rowTiles * 8);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), g = lane / 4, t = lane % 4;
  const int inputTiles = p.weights.inputTiles(), run = (inputTiles + warps - 1) / warps;
  const int begin = warp * run, end = begin + run < inputTiles ? begin + run : inputTiles;
  const uint4* w = reinterpret_cast<const uint4*>(p.weights.data) + static_cast<ptrdiff_t>(blockIdx.x) * inputTiles * 32 + lane;

  uint4 ring[depth];
#pragma unroll
  for (int i = 0; i < depth; i++) ring[i] = begin + i < end ? ptx::loadStreaming(w + (begin + i) * 32) : make_uint4(0, 0, 0, 0);

  if (normed) {
    for (int row = warp; row < p.rows; row += warps) {
      const float scale = rowScale(p.x + row * p.xStride, p.weights.inputs, p.eps);
      if (lane == 0) scales[row] = scale;
    }
    __syncthreads();
  }
  uint16_t* staged = reinterpret_cast<uint16_t*>(dynamicShared()) + warp * rowTiles * 8 * stagedStride;
  float sum[rowTiles][4] = {};
  for (int first = begin; first < end; first += depth) {
    __syncwarp();
    stage<rowTiles, normed>(p, scales, staged, first * 16, end * 16);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < depth; i++) {
      if (first + i >= end) break;
      const uint32_t a[4] = {ring[i].x, ring[i].y, ring[i].z, ring[i].w};
      if (first + i + depth < end) ring[i] = ptx::loadStreaming(w + (first + i + depth) * 32);
#pragma unroll
      for (int n = 0; n < rowTiles; n++) {
        const uint16_t* x = staged + (8 * n + g) * stagedStride + 16 * i + 2 * t;
        const uint32_t b[2] = {*reinterpret_cast<const uint32_t*>(x), *reinterpret_cast<const uint32_t*>(x + 8)};
        ptx::mma_m16n8k16_bf16(sum[n], a, b);
      }
    }
  }

  // Sums of the runs [warps][rowTiles][4][32] over the staged inputs.
  float* sums = reinterpret_cast<float*>(dynamicShared());
  __syncthreads();
#pragma unroll
  for (int n = 0; n < rowTiles; n++)
    for (int r = 0; r < 4; r++) sums[((warp * rowTiles + n) * 4 + r) * 32 + lane] = sum[n][r];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < rowTiles * 64; i += warps * 32) {
    const int n = i / 64, column = i / 32 % 2, from = i % 32;
    const int row = 8 * n + 2 * (from % 4) + column, pair = 8 * static_cast<int>(blockIdx.x) + from / 4;
    if (row >= p.rows || pair >= p.weights.pairs) continue;
    float low = 0, high = 0;
    for (int v = 0; v < warps; v++) {
      const float* s = sums + (v * rowTiles + n) * 4 * 32 + from;
      low += s[column * 32];
      high += s[(column + 2) * 32];
    }
    finish<uint16_t>(p, epilogue, row, pair, low, high);
  }
}

template <int rowTiles, bool normed, Epilogue epilogue>
cudaError_t run(const Projection& p, cudaStream_t stream) {
  constexpr size_t bytes = stagingBytes<rowTiles> > sumBytes<rowTiles> ? stagingBytes<rowTiles> : sumBytes<rowTiles>;
  return launch(projectKernel<rowTiles, normed, epilogue>, static_cast<unsigned>(p.weights.tiles()), warps * 32, bytes, stream, p);
}

template <bool normed, Epilogue epilogue>
cudaError_t runRows(const Projection& p, cudaStream_t stream) {
  if (p.rows <= 8) return run<1, normed, epilogue>(p, stream);
  if (p.rows <= 16) return run<2, normed, epilogue>(p, stream);
  if (p.rows <= 32) return run<4, normed, epilogue>(p, stream);
  return run<8, normed, epilogue>(p, stream);
}

}  // namespace

// The six that a transformer has: norm before QKV, gate and up, and the head; none before the output and down projections.
cudaError_t project(const Projection& p, cudaStream_t stream) {
  if (!possible(p, p.weights.pairs, p.weights.inputs) || p.rows > 64 || p.xStride < p.weights.inputTiles() * 16) return cudaErrorInvalidValue;
  const bool normed = p.x != nullptr;
  if (p.epilogue == Epilogue::store) return normed ? runRows<true, Epilogue::store>(p, stream) : runRows<false, Epilogue::store>(p, stream);
  if (p.epilogue == Epilogue::add && !normed) return runRows<false, Epilogue::add>(p, stream);
  if (p.epilogue == Epilogue::swiglu && normed) return runRows<true, Epilogue::swiglu>(p, stream);
  if (p.epilogue == Epilogue::append && normed) return runRows<true, Epilogue::append>(p, stream);
  return cudaErrorInvalidValue;
}

}  // namespace parvis::cuda
