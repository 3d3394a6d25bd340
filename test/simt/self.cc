// Kernels that are right, and kernels with one mistake each: the SIMT layer must tell them apart. One case a process
// (`self CASE SEED`), since an access outside memory ends it. Prints `right` or `wrong` after a launch that ended. nvcc
// reads it too: test/ptx.test.ts runs the same kernels out of its PTX.
#include "../../cuda/ptx.cuh"
#include "cases.h"

using namespace parvis::cuda;

namespace {

// ---- a block's sum ------------------------------------------------------------------------------------------

template <bool barrier>
__global__ void sumBlock(const int* in, int* out) {
  PARVIS_SHARED(int, partial, 8);
  int v = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int bits = 16; bits > 0; bits /= 2) v += __shfl_xor_sync(0xffffffffu, v, bits);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  if (barrier) __syncthreads();
  if (threadIdx.x == 0) {
    int sum = 0;
    for (unsigned i = 0; i < blockDim.x / 32; i++) sum += partial[i];
    out[blockIdx.x] = sum;
  }
}

template <bool barrier>
bool sum() {
  std::vector<int> in(5 * 256), out(5);
  for (size_t i = 0; i < in.size(); i++) in[i] = static_cast<int>(i * 7 % 101);
  if (launch(sumBlock<barrier>, 5, 256, 0, nullptr, in.data(), out.data()) != cudaSuccess) return false;
  for (size_t b = 0; b < 5; b++) {
    int expected = 0;
    for (size_t i = 0; i < 256; i++) expected += in[b * 256 + i];
    if (out[b] != expected) return false;
  }
  return true;
}

// A value passed along a warp through shared memory, round after round: needs both barriers.
template <bool before, bool after>
__global__ void rotateWarp(int* out) {
  PARVIS_SHARED(int, slot, 32);
  const unsigned lane = threadIdx.x;
  int v = static_cast<int>(lane);
  for (int round = 0; round < 4; round++) {
    slot[lane] = v;
    if (before) __syncwarp();
    v = slot[(lane + 1) % 32];
    if (after) __syncwarp();
  }
  out[lane] = v;
}
template <bool before, bool after>
bool rotation() {
  int out[32];
  if (launch(rotateWarp<before, after>, 1, 32, 0, nullptr, out) != cudaSuccess) return false;
  for (int i = 0; i < 32; i++)
    if (out[i] != (i + 4) % 32) return false;
  return true;
}

// ---- memory -------------------------------------------------------------------------------------------------

__global__ void overrunStatic(int* out) {
  PARVIS_SHARED(int, table, 64);
  table[threadIdx.x] = 1;  // 65 threads
  __syncthreads();
  out[threadIdx.x] = table[threadIdx.x];
}
__global__ void overrunDynamic(int* out) {
  int* table = reinterpret_cast<int*>(dynamicShared());
  table[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = table[threadIdx.x];
}
__global__ void prefetchBeyond(int* out) { ptx::prefetch(out, 272); }  // 256 are there
__global__ void overrunGlobal(int* out) { out[threadIdx.x] = 1; }

// ---- waits that never end -----------------------------------------------------------------------------------

__global__ void halfShuffles(int* out) {
  int v = static_cast<int>(threadIdx.x);
  if (threadIdx.x != 5) v = __shfl_xor_sync(0xffffffffu, v, 1);
  __syncthreads();
  out[threadIdx.x] = v;
}
__global__ void noArrival() {
  PARVIS_SHARED(uint64_t, barrier, 1);
  if (threadIdx.x == 0) ptx::mbarrierInit(barrier, 33);
  __syncthreads();
  ptx::mbarrierArrive(barrier);
  ptx::mbarrierWait(barrier, 0);
}
__global__ void spin(int* flag) {
  while (atomicAdd(flag, 0) == 0) {}
}
__global__ void divergedShuffle(int* out) {
  int v = static_cast<int>(threadIdx.x);
  if (threadIdx.x < 16) v = __shfl_xor_sync(0xffffffffu, v, 1);
  else v = __shfl_xor_sync(0xffffffffu, v, 2);
  out[threadIdx.x] = v;
}
__global__ void divergedBlock(int* out) {
  if (threadIdx.x < 32) __syncthreads();
  else __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void foreignLane(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, static_cast<int>(threadIdx.x), 20);
}
__global__ void halfMask(int* out) {  // right: two halves with masks of their own, then all; some lanes end early
  int v = static_cast<int>(threadIdx.x);
  const uint32_t mask = threadIdx.x < 16 ? 0xffffu : 0xffff0000u;
  for (int bits = 8; bits > 0; bits /= 2) v += __shfl_xor_sync(mask, v, bits);
  v += __shfl_xor_sync(0xffffffffu, v, 16);
  if (threadIdx.x % 3 == 0) {
    out[threadIdx.x] = v;
    return;
  }
  __syncwarp();
  out[threadIdx.x] = v;
}

// ---- copies -------------------------------------------------------------------------------------------------

template <bool wait>
__global__ void copyAsync(const uint4* in, uint4* out) {  // a ring of two stages
  PARVIS_SHARED(uint4, stage, 2 * 32);
  const unsigned i = threadIdx.x;
  ptx::cpAsync16(stage + i, in + i);
  ptx::cpAsyncCommit();
  for (unsigned round = 0; round < 6; round++) {
    if (round < 5) ptx::cpAsync16(stage + (round + 1) % 2 * 32 + i, in + (round + 1) * 32 + i, round == 4 ? 4 : 16);
    ptx::cpAsyncCommit();
    if (wait) ptx::cpAsyncWait<1>();
    __syncthreads();
    out[round * 32 + i] = stage[round % 2 * 32 + (i + 1) % 32];
    __syncthreads();
  }
}
template <bool wait>
__global__ void copyBulk(const uint4* in, uint4* out) {
  PARVIS_SHARED(uint4, stage, 32);
  PARVIS_SHARED(uint64_t, full, 1);
  const unsigned i = threadIdx.x;
  if (i == 0) ptx::mbarrierInit(full, 1);
  __syncthreads();
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  for (unsigned round = 0; round < 6; round++) {
    if (i == 0) {
      ptx::mbarrierArriveExpect(full, 512);
      ptx::bulkCopy(stage, in + round * 32, 512, full);
    }
    if (wait) ptx::mbarrierWait(full, static_cast<int>(round & 1));
    out[round * 32 + i] = stage[(i + 1) % 32];
    if (round == 5) out[round * 32 + i] = {stage[(i + 1) % 32].x, 0, 0, 0};
    if (!wait) ptx::mbarrierWait(full, static_cast<int>(round & 1));  // too late
    __syncthreads();
  }
#endif
}
bool copies(void (*kernel)(const uint4*, uint4*)) {
  std::vector<uint4> in(192), out(192);
  for (unsigned i = 0; i < 192; i++) in[i] = {i, i + 1000, i + 2000, i + 3000};
  if (launch(kernel, 1, 32, 0, nullptr, in.data(), out.data()) != cudaSuccess) return false;
  for (unsigned i = 0; i < 192; i++) {
    const uint4 a = in[i / 32 * 32 + (i + 1) % 32], b = out[i];
    if (a.x != b.x || (i < 160 ? a.y != b.y || a.z != b.z || a.w != b.w : b.y || b.z || b.w)) return false;
  }
  return true;
}

// ---- clusters ---------------------------------------------------------------------------------------------------

// Each block gets the sum of what the first threads of the cluster's blocks have, out of their shared memory.
template <bool before, bool after>
__global__ void sumCluster(int blocks, const int* in, int* out) {
  int* const own = reinterpret_cast<int*>(dynamicShared());
  const int block = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x);
  if (in[block] < 0) return;  // a block that takes no part: nobody waits for it
  own[thread] = in[block] + thread;
  if (before) ptx::clusterBarrier();
  int sum = 0;
  for (int rank = 0; rank < blocks; rank++)
    if (in[block / blocks * blocks + rank] >= 0) sum += ptx::loadCluster(own + thread, rank);
  if (after) ptx::clusterBarrier();
  out[block * 64 + thread] = sum;
}
template <bool before, bool after>
bool clusters() {
  const std::vector<int> in = {3, 5, -1, 7, 11, 13};
  std::vector<int> out(6 * 64);
  if (launchAs({false, 3}, sumCluster<before, after>, 6, 64, 256, nullptr, 3, in.data(), out.data()) != cudaSuccess)
    return false;
  for (int i = 0; i < 64; i++) {
    const int sums[] = {8 + 2 * i, 8 + 2 * i, 0, 31 + 3 * i, 31 + 3 * i, 31 + 3 * i};
    for (int b = 0; b < 6; b++)
      if (out[static_cast<size_t>(b * 64 + i)] != sums[b]) return false;
  }
  return true;
}
bool oddClusters() {
  int in[4] = {}, out[256];
  return launchAs({false, 3}, sumCluster<true, true>, 4, 64, 256, nullptr, 3, in, out) == cudaSuccess;
}

// ---- matrix products ----------------------------------------------------------------------------------------

// d [16, 8] = a [16, 16] b, with b given as [8, 16] or (transposed) as [16, 8]; operands by ldmatrix.
template <bool transposed>
__global__ void product(const uint16_t* a, const uint16_t* b, float* d) {
  PARVIS_SHARED(uint16_t, A, 16 * 16);
  PARVIS_SHARED(uint16_t, B, 16 * 16);
  const unsigned lane = threadIdx.x;
  for (unsigned i = lane; i < 256; i += 32) A[i] = a[i];
  for (unsigned i = lane; i < 256; i += 32) B[i] = 0;
  __syncwarp();
  for (unsigned i = lane; i < 128; i += 32)
    if (transposed) B[i / 8 * 16 + i % 8] = b[i];
    else B[i] = b[i];
  __syncwarp();
  uint32_t fa[4], fb[4];
  ptx::ldmatrix_x4(fa, A + (lane % 16) * 16 + lane / 16 * 8);
  if (transposed) ptx::ldmatrix_x4_trans(fb, B + (lane % 16) * 16 + lane / 16 * 8);
  else ptx::ldmatrix_x4(fb, B + lane % 8 * 16 + lane / 8 % 2 * 8);
  float sum[4] = {1, 1, 1, 1};
  const uint32_t two[2] = {fb[0], fb[1]};
  ptx::mma_m16n8k16_bf16(sum, fa, two);
  for (unsigned i = 0; i < 4; i++) d[(lane / 4 + i / 2 * 8) * 8 + 2 * (lane % 4) + i % 2] = sum[i];
}
template <bool transposed>
bool products() {
  std::vector<uint16_t> a(256), b(128);
  for (auto* v : {&a, &b})
    for (size_t i = 0; i < v->size(); i++) (*v)[i] = cases::bf16(std::sin(static_cast<float>(i * i + v->size())));
  std::vector<float> d(128);
  if (launch(product<transposed>, 1, 32, 0, nullptr, a.data(), b.data(), d.data()) != cudaSuccess) return false;
  for (size_t row = 0; row < 16; row++)
    for (size_t column = 0; column < 8; column++) {
      float sum = 1;
      for (size_t k = 0; k < 16; k++)
        sum += cases::widen(a[row * 16 + k]) * cases::widen(b[transposed ? k * 8 + column : column * 16 + k]);
      if (!(std::fabs(sum - d[row * 8 + column]) < 1e-5f)) return false;
    }
  return true;
}

}  // namespace

int main(int, char** argv) {
  cases::setSeed(std::strtoull(argv[2], nullptr, 10));
#if !defined(__CUDACC__)
  simt::setStepLimit(200000);
#endif
  const std::string name = argv[1];
  std::vector<int> out(64);
  const auto plain = [&](void (*kernel)(int*), unsigned threads, size_t shared = 0) {
    return launch(kernel, 1, threads, shared, nullptr, out.data()) == cudaSuccess;
  };
  bool right = false;
  if (name == "sum") right = sum<true>();
  else if (name == "sum-no-barrier") right = sum<false>();
  else if (name == "warp") right = rotation<true, true>();
  else if (name == "warp-no-first") right = rotation<false, true>();
  else if (name == "warp-no-second") right = rotation<true, false>();
  else if (name == "overrun-static") right = plain(overrunStatic, 65);
  else if (name == "overrun-dynamic") right = plain(overrunDynamic, 64, 252);
  else if (name == "overrun-global") right = plain(overrunGlobal, 65);
  else if (name == "overrun-prefetch") right = plain(prefetchBeyond, 1);
  else if (name == "deadlock") right = plain(halfShuffles, 64);
  else if (name == "deadlock-mbarrier") right = launch(noArrival, 1, 32, 0, nullptr) == cudaSuccess;
  else if (name == "spin") right = plain(spin, 32);
  else if (name == "diverged-shuffle") right = plain(divergedShuffle, 32);
  else if (name == "diverged-block") right = plain(divergedBlock, 64);
  else if (name == "foreign-lane") right = plain(foreignLane, 32);
  else if (name == "half-mask") right = plain(halfMask, 32) && out[7] == 496 && out[9] == 496;
  else if (name == "async") right = copies(copyAsync<true>);
  else if (name == "async-no-wait") right = copies(copyAsync<false>);
  else if (name == "bulk") right = copies(copyBulk<true>);
  else if (name == "bulk-no-wait") right = copies(copyBulk<false>);
  else if (name == "cluster") right = clusters<true, true>();
  else if (name == "cluster-no-first") right = clusters<false, true>();
  else if (name == "cluster-no-second") right = clusters<true, false>();
  else if (name == "cluster-odd") right = oddClusters();
  else if (name == "mma") right = products<false>();
  else if (name == "mma-trans") right = products<true>();
  else if (name == "too-many-threads") right = plain(overrunGlobal, 1025);
  else return 2;
  std::printf("%s\n", right ? "right" : "wrong");
  return 0;
}
