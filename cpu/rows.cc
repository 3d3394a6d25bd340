#include "rows.h"

#include <algorithm>

#include "../common/launches.h"
#include "../common/steps.h"
#include "launch-timer.h"

namespace parvis::cpu {

// ---- cache and angles ---------------------------------------------------------------------------------------

CacheLayout::CacheLayout(int wanted, int headSize, Element element) : slots(roundUp(wanted, 32)) {
  const int step = inputStep(element);
  keyBytes = static_cast<size_t>(slots / 32) * ((headSize + step - 1) / step) * groupBytes;
  valueBytes = static_cast<size_t>(roundUp(headSize, 32) / 32) * (slots / step) * groupBytes;
}

CacheHead CacheLayout::head(uint8_t* heads, size_t index) const {
  uint8_t* p = heads + index * bytes();
  return {p, p + keyBytes, slots};
}

void Angles::grow(const TransformerModel& m, int last) {
  const int pairs = rotatedPairs(m);
  for (; positions_ <= last; positions_++)
    for (int k = 0; k < pairs; k++) {
      const Angle a = rotationAngle(m, positions_, k);
      cosine_.insert(cosine_.end(), {a.cosine, a.cosine});
      sine_.insert(sine_.end(), {-a.sine, a.sine});
    }
}

Rotation Angles::of(const TransformerModel& m) const {
  return {{m.rotationPairs[0], m.rotationPairs[1], m.rotationPairs[2]}, cosine_.data(), sine_.data()};
}

int inTiles(int64_t work, int rows) {
  constexpr int64_t most = int64_t{1} << 28;  // products, of some tens of milliseconds
  constexpr int tile = 8;                     // rows of the widest instruction set's
  return static_cast<int>(
      std::clamp<int64_t>(most / std::max<int64_t>(work, 1) / tile * tile, tile, std::max(rows, tile)));
}

// ---- a layer ------------------------------------------------------------------------------------------------

void Rows::matmul(const Matrix& w, const void* x, ptrdiff_t xStride, int rows, Epilogue epilogue, float* y, void* out,
                  ptrdiff_t yStride) const {
  timed(
      profile_,
      [&] {
        const size_t item = elementSize(numbers_.activations);
        const bool add = epilogue == Epilogue::add, swiglu = epilogue == Epilogue::swiglu;
        const char* then = add ? "added" : swiglu ? "swiglu" : epilogue == Epilogue::gelu ? "gelu" : "";
        const size_t outputItem = add ? 8 : swiglu ? item / 2 : epilogue == Epilogue::gelu ? item : 4;
        return projectionLaunch(rows, w.inputs, w.outputs, then, w.numberBytes(), item, outputItem);
      },
      [&] { multiply(w, x, xStride, rows, epilogue, y, out, yStride); });
}

void Rows::multiply(const Matrix& w, const void* x, ptrdiff_t xStride, int rows, Epilogue epilogue, float* y, void* out,
                    ptrdiff_t yStride) const {
  const auto kernel = kernels().matmul[static_cast<int>(w.format)];
  const size_t item = elementSize(numbers_.activations);
  // Enough tasks to balance the threads, none so small that handing it out costs more than it takes.
  const size_t work = w.bytes() * static_cast<size_t>((rows + 3) / 4);
  const int tasks = static_cast<int>(
      std::clamp<size_t>(work / (96 << 10), 1, std::min<size_t>(w.panels, static_cast<size_t>(threads_.count()) * 8)));
  threads_.run(tasks, [&](int task, int) {
    const int begin = static_cast<int>(static_cast<int64_t>(w.panels) * task / tasks),
              end = static_cast<int>(static_cast<int64_t>(w.panels) * (task + 1) / tasks);
    // Many rows go panel by panel and some thousands at a time, so that a cancellation is seen.
    const int panelsEach = rows <= 256 ? end - begin : 1, rowsEach = 4096;
    for (int panel = begin; panel < end; panel += panelsEach)
      for (int row = 0; row < rows; row += rowsEach) {
        if (cancel_.load(std::memory_order_relaxed)) return;
        const Matmul m{static_cast<const uint8_t*>(x) + row * xStride * static_cast<ptrdiff_t>(item),
                       xStride,
                       std::min(rowsEach, rows - row),
                       w.data,
                       w.inputs,
                       epilogue,
                       w.bias,
                       y ? y + row * yStride : nullptr,
                       out ? static_cast<uint8_t*>(out) + row * yStride * static_cast<ptrdiff_t>(item) : nullptr,
                       yStride};
        kernel(m, panel, std::min(end, panel + panelsEach));
      }
  });
}

void Rows::norm(const float* x, ptrdiff_t stride, int rows, const RowNorm& norm, void* out) const {
  const auto kernel = kernels().norm[static_cast<int>(numbers_.activations)];
  const size_t item = elementSize(numbers_.activations);
  const int tasks = rows <= 8 ? 1 : (rows + 7) / 8;
  timed(
      profile_, [&] { return rowNormLaunch(rows, norm.dim, item); },
      [&] {
        threads_.run(tasks, [&](int task, int) {
          if (cancel_.load(std::memory_order_relaxed)) return;
          for (int r = task * 8; r < std::min(rows, task * 8 + 8); r++)
            kernel(norm.of(x + r * stride, static_cast<uint8_t*>(out) + static_cast<size_t>(r * stride) * item));
        });
      });
}

void Rows::attention(const LayerAttention& a) const {
  const auto kernel = kernels().attend[static_cast<int>(numbers_.kept)];
  const size_t item = elementSize(numbers_.activations);
  const int shared = a.heads / a.kvHeads, heads = a.groupCount * a.kvHeads;
  int64_t work = 0, rowWork = 1;  // of one key/value head: of all rows, of the dearest row
  int longest = 1;                // rows of the longest group
  for (int g = 0; g < a.groupCount; g++) {
    int sees = 0;
    for (int i = 0; i < a.groups[g].count; i++) sees = std::max(sees, a.rows[a.groups[g].first + i].sees);
    const int64_t row = static_cast<int64_t>(sees) * a.headSize * shared;
    work += row * a.groups[g].count;
    rowWork = std::max(rowWork, row);
    longest = std::max(longest, a.groups[g].count);
  }
  const int64_t each = std::max<int64_t>(work / a.groupCount, 1);
  // Little work together, but so that every thread gets as many heads as the others.
  const int most = std::max(heads / (threads_.count() * 4), 1);
  const int together = static_cast<int>(std::clamp<int64_t>(100000 / each, 1, most));
  // Much work goes in blocks of queries, so that a cancellation is seen: all keys and values are appended first, then
  // each block has its queries answered.
  const int block = inTiles(rowWork, longest);
  std::vector<AttentionRow> appended;
  if (block < longest) {
    const Group& last = a.groups[a.groupCount - 1];
    appended.assign(a.rows, a.rows + last.first + last.count);
    for (AttentionRow& row : appended) row.slot = -1;
  }
  threads_.run((heads + together - 1) / together, [&](int task, int thread) {
    for (int i = task * together; i < std::min(heads, (task + 1) * together); i++) {
      const Group& group = a.groups[i / a.kvHeads];
      const int head = i % a.kvHeads;
      const auto answer = [&](const AttentionRow* rows, int begin, int count, int queryHeads) {
        const ptrdiff_t row = group.first + begin, query = static_cast<ptrdiff_t>(head) * shared * a.headSize;
        kernel({a.qkv + row * a.qkvStride, a.qkvStride, rows + row, count, a.headSize, queryHeads, query,
                static_cast<ptrdiff_t>(a.heads + head) * a.headSize,
                static_cast<ptrdiff_t>(a.heads + a.kvHeads + head) * a.headSize,
                a.layout.head(a.cache, static_cast<size_t>(group.stream) * a.kvHeads + head), a.rotation,
                static_cast<uint8_t*>(a.out) + (row * a.outStride + query) * item, a.outStride,
                a.scratch + a.scratchBytes * thread});
      };
      if (cancel_.load(std::memory_order_relaxed)) return;
      if (appended.empty()) {
        answer(a.rows, 0, group.count, shared);
        continue;
      }
      answer(a.rows, 0, group.count, 0);
      for (int begin = 0; begin < group.count && !cancel_.load(std::memory_order_relaxed); begin += block)
        answer(appended.data(), begin, std::min(block, group.count - begin), shared);
    }
  });
}

// ---- draws --------------------------------------------------------------------------------------------------

size_t drawScratch(int vocabulary) { return static_cast<size_t>(roundUp(vocabulary, 32)) * 12; }

Draw drawOf(const SamplingRule& rule, float guidance, int vocabulary, const float* conditional,
            const float* unconditional, uint64_t seed, int index, uint8_t* scratch) {
  Draw d{};
  d.conditional = conditional;
  d.unconditional = unconditional;
  d.vocabulary = vocabulary;
  d.rule = rule;
  d.guidance = guidance;
  d.seed = seed;
  d.index = static_cast<uint32_t>(index);
  d.weights = reinterpret_cast<uint64_t*>(scratch);
  d.logits = reinterpret_cast<float*>(scratch + static_cast<size_t>(roundUp(vocabulary, 32)) * 8);
  return d;
}

}  // namespace parvis::cpu
