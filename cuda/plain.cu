// Projections and attention in float32: for comparing with the golden fixtures, where bfloat16 would hide a mistake
// behind its rounding. Simple rather than fast: a warp a pair of outputs, a warp a query. Sums use fused multiply-adds,
// in an order that does not depend on how many rows there are.
#include "epilogue.cuh"

namespace parvis::cuda {

namespace {

constexpr int warps = 4, maxHead = 128, rowsTogether = 8, sumStride = 2 * rowsTogether + 1;

__device__ inline float sumLanes(float v) {
  for (int bits = 16; bits > 0; bits /= 2) v += __shfl_xor_sync(fullWarp, v, bits);
  return v;
}
__device__ inline float maxOfLanes(float v) {
  for (int bits = 16; bits > 0; bits /= 2) v = fmaxf(v, __shfl_xor_sync(fullWarp, v, bits));
  return v;
}

__device__ inline void finishPlain(const Projection& p, int row, int pair, float low, float high) {
  const ptrdiff_t at = row * p.yStride;
  addBias(p, pair, true, low, high);
  if (p.epilogue == Epilogue::store) {
    storePair(p.y + at + 2 * pair, low, high);
  } else if (p.epilogue == Epilogue::add) {
    const float2 old = freshPair(p.y + at + 2 * pair);
    storePair(p.y + at + 2 * pair, old.x + low, old.y + high);
  } else if (activates(p.epilogue)) {
    storeActivated<float>(p, p.epilogue, row, pair, low, high);
  } else {
    placePair<float>(p.rotation, row, 2 * pair, low, high);
  }
}

// A warp has a pair of outputs of eight rows at a time: each lane its share of the inputs, then each of sixteen lanes
// the sum of one number over all lanes, in order.
__global__ void __launch_bounds__(warps * 32)
    projectPlainKernel(const __grid_constant__ Projection p, const __grid_constant__ Packing w, int inputs) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  PARVIS_SHARED(float, partial, warps * 32 * sumStride);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32),
            pair = static_cast<int>(blockIdx.x) * warps + warp;
  if (pair >= w.lowRows) return;
  const float* low = static_cast<const float*>(w.low) + pair * w.stride;
  const float* high = pair < w.highRows ? static_cast<const float*>(w.high) + pair * w.stride : nullptr;
  float* sums = partial + warp * 32 * sumStride;
  for (int first = 0; first < p.rows; first += rowsTogether) {
    const int rows = p.rows - first < rowsTogether ? p.rows - first : rowsTogether;
    float a[rowsTogether] = {}, b[rowsTogether] = {};
    for (int k = lane; k < inputs; k += 32) {
      const float l = low[k], h = high ? high[k] : 0.0f;
#pragma unroll
      for (int r = 0; r < rowsTogether; r++) {
        if (r >= rows) break;
        const float x = ptx::loadFresh(static_cast<const float*>(p.elements) + (first + r) * p.xStride + k);
        a[r] = fmaf(x, l, a[r]);
        b[r] = fmaf(x, h, b[r]);
      }
    }
    __syncwarp();
#pragma unroll
    for (int r = 0; r < rowsTogether; r++) {
      sums[lane * sumStride + r] = a[r];
      sums[lane * sumStride + rowsTogether + r] = b[r];
    }
    __syncwarp();
    if (lane < rows) {
      float x = 0, y = 0;
      for (int i = 0; i < 32; i++) {
        x += sums[i * sumStride + lane];
        y += sums[i * sumStride + rowsTogether + lane];
      }
      finishPlain(p, first + lane, pair, x, y);
    }
  }
}

// Keys 32 at a time, one a lane; then each lane has its share of the outputs. A block a head of a row, whichever group
// it is in.
__global__ void attendPlainKernel(const __grid_constant__ Attention a) {
  ptx::releaseDependents();
  ptx::dependencyWait();
  const int lane = static_cast<int>(threadIdx.x), r = static_cast<int>(blockIdx.x), h = static_cast<int>(blockIdx.y),
            width = paddedHead(a.headSize);
  const Row row = a.rows.at(r);
  const int stream = row.stream, kvHead = h / (a.heads / a.kvHeads), sees = row.sees;
  const float* query = static_cast<const float*>(a.queries) + (static_cast<ptrdiff_t>(r) * a.heads + h) * width;
  const ptrdiff_t head = (static_cast<ptrdiff_t>(stream) * a.kvHeads + kvHead) * a.cache.slots * width;
  const float* keys = static_cast<const float*>(a.cache.keys) + head;
  const float* values = static_cast<const float*>(a.cache.values) + head;
  const float scale = 1.44269504f / sqrtf(static_cast<float>(a.headSize));
  float most = -1e30f, sum = 0, output[maxHead / 32] = {};
  for (int first = 0; first < sees; first += 32) {
    const bool there = first + lane < sees;
    float score = 0;
    if (there)
      for (int d = 0; d < a.headSize; d++)
        score = fmaf(ptx::loadFresh(query + d), ptx::loadFresh(keys + static_cast<ptrdiff_t>(first + lane) * width + d),
                     score);
    score = there ? score * scale : -1e30f;
    const float before = most;
    most = fmaxf(most, maxOfLanes(score));
    const float p = there ? exp2f(score - most) : 0.0f, factor = exp2f(before - most);
    sum = sum * factor + sumLanes(p);
    for (float& o : output) o *= factor;
    for (int i = 0; i < 32 && first + i < sees; i++) {
      const float weight = __shfl_sync(fullWarp, p, i);
#pragma unroll
      for (int j = 0; j < maxHead / 32; j++)
        if (lane + 32 * j < a.headSize)
          output[j] = fmaf(weight, ptx::loadFresh(values + static_cast<ptrdiff_t>(first + i) * width + lane + 32 * j),
                           output[j]);
    }
  }
#pragma unroll
  for (int j = 0; j < maxHead / 32; j++)
    if (lane + 32 * j < a.headSize)
      static_cast<float*>(a.out)[r * a.outStride + h * a.headSize + lane + 32 * j] = output[j] / sum;
}

}  // namespace

cudaError_t projectPlain(const Projection& p, const Packing& w, int inputs, StepStream stream) {
  if (p.squares || p.next.weight || w.element != Element::float32 || w.highRows > w.lowRows ||
      !valid(p, w.lowRows, inputs))
    return cudaErrorInvalidValue;
  return launchInStep(projectPlainKernel, static_cast<unsigned>((w.lowRows + warps - 1) / warps), warps * 32, 0, stream,
                      p, w, inputs);
}

cudaError_t attendPlain(const Attention& a, StepStream stream) {
  if (a.rows.count < 1 || a.kvHeads < 1 || a.heads < 1 || a.heads > 65535 || a.heads % a.kvHeads != 0 ||
      a.headSize > maxHead || a.cache.slots < 1)
    return cudaErrorInvalidValue;
  return launchInStep(attendPlainKernel, dim3(static_cast<unsigned>(a.rows.count), static_cast<unsigned>(a.heads)), 32,
                      0, stream, a);
}

}  // namespace parvis::cuda
