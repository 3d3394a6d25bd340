// Kernels by themselves: reading, what kernels that follow each other cost, projections, attention, draws.
#pragma once

#include "measure-shared.h"

namespace {

// ---- reading --------------------------------------------------------------------------------------------------

void reading(Checked& check, Json& fields) {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for memory");
  const size_t bytes = std::min<size_t>(size_t{8} << 30, free / 4 / 256 * 256);
  Memory memory;
  uint8_t *from = memory.take<uint8_t>(check, bytes), *to = memory.take<uint8_t>(check, bytes);
  uint4* out = memory.take<uint4>(check, 1);
  if (!fill(check, from, bytes)) return;
  Spread best;
  for (const int blocks : {2, 4, 6, 8}) {
    Graph graph;
    if (!graph.capture(check, stream(), [&] { return readAll(from, bytes, out, blocks); })) return;
    const Spread s = graph.time(check, stream(), 10);
    if (!(s.median >= best.median)) best = s;
  }
  Graph copy;
  if (!copy.capture(check, stream(),
                    [&] { return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()); }))
    return;
  const Spread copied = copy.time(check, stream(), 10);
  if (!check.ok()) return;
  ceiling = static_cast<double>(bytes) / best.median * 1000;
  fields.number("bytes", static_cast<double>(bytes)).raw("ms", best.json()).number("gigabytesPerSecond", ceiling / 1e9);
  fields.raw("copyMs", copied.json())
      .number("copyGigabytesPerSecond", 2 * static_cast<double>(bytes) / copied.median / 1e6);
}

// ---- constants of the device ------------------------------------------------------------------------------------

__global__ void emptyKernel() {
  ptx::releaseDependents();
  ptx::dependencyWait();
}

// Two blocks pass a number back and forth. A spin ends by itself: a block that never comes must not hold the device.
__global__ void hopKernel(volatile uint32_t* flag, uint32_t hops, uint32_t* given) {
  const long long limit = clock64() + (1ll << 31);
  for (uint32_t i = blockIdx.x; i < hops; i += 2) {
    while (*flag != i)
      if (clock64() > limit) {
        *given = 1;
        return;
      }
    __threadfence();
    *flag = i + 1;
  }
}

void constants(Checked& check, Json& fields) {
  constexpr int launches = 256, hops = 2000;
  const auto chain = [&](int count, bool overlap) {
    return [=] {
      cudaError_t e = cudaSuccess;
      for (int i = 0; i < count && e == cudaSuccess; i++)
        e = launchInStep(emptyKernel, 128u, 256u, 0, StepStream(stream(), overlap));
      return e;
    };
  };
  const auto timed = [&](int count, bool overlap) {
    Graph graph;
    return graph.capture(check, stream(), chain(count, overlap)) ? graph.time(check, stream(), 15).median : NAN;
  };
  const double one = timed(1, false), plain = timed(launches, false), overlapped = timed(launches, true);
  fields.number("emptyGraphUs", one * 1000)
      .number("plainBoundaryUs", (plain - one) / (launches - 1) * 1000)
      .number("overlappedBoundaryUs", (overlapped - one) / (launches - 1) * 1000);

  Memory memory;
  uint32_t* flags = memory.take<uint32_t>(check, 2);
  Graph passed;
  if (passed.capture(check, stream(), [&] {
        cudaError_t e = cudaMemsetAsync(flags, 0, 8, stream());
        return e == cudaSuccess ? launch(hopKernel, 2u, 1u, 0, stream(), flags, uint32_t{hops}, flags + 1) : e;
      })) {
    const double ms = passed.time(check, stream(), 9).median;
    uint32_t gaveUp = 0;
    check(cudaMemcpy(&gaveUp, flags + 1, 4, cudaMemcpyDeviceToHost), "reading a flag");
    fields.number("flagHopUs", gaveUp ? NAN : ms / hops * 1000);
  }

  // Streams that no cache has: each reads where the ones before have not.
  const size_t most = size_t{1} << 30;
  uint8_t* from = memory.take<uint8_t>(check, most);
  uint4* out = memory.take<uint4>(check, 1);
  if (!fill(check, from, most)) return;
  std::vector<std::string> list;
  for (const int megabytes : {5, 15, 25}) {
    const size_t bytes = static_cast<size_t>(megabytes) * 1'000'000 / 4096 * 4096;
    const int count = static_cast<int>(most / bytes);
    Graph graph;
    if (!graph.capture(check, stream(), [&] {
          cudaError_t e = cudaSuccess;
          for (int i = 0; i < count && e == cudaSuccess; i++)
            e = readAll(from + static_cast<size_t>(i) * bytes, bytes, out);
          return e;
        }))
      return;
    const double us = graph.time(check, stream(), 9).median * 1000 / count;
    list.push_back(Json()
                       .number("megabytes", megabytes)
                       .number("us", us)
                       .number("gigabytesPerSecond", static_cast<double>(bytes) / us / 1000)
                       .done());
  }
  fields.raw("coldStreams", Json::list(list));
}

// ---- projections ----------------------------------------------------------------------------------------------

// Whatever a projection may read or write, at the sizes of a model and of so many rows.
struct Bench {
  const CudaTransformer* t = nullptr;
  int rows = 0, streams = 2;
  Memory memory;
  float *y = nullptr, *squares = nullptr, *partial = nullptr;
  uint16_t *elements = nullptr, *out = nullptr, *queries = nullptr;
  uint32_t* counters = nullptr;
  uint8_t* cache = nullptr;  // [layers][keys, values]
  size_t cacheBytes = 0;
  Row* table = nullptr;
  Attention attention{};

  // Rows that all see `sees` slots and write the last of them.
  Bench(Checked& check, const CudaTransformer& transformer, int allRows, int sees, bool withCaches)
      : t(&transformer), rows(allRows) {
    const parvis::TransformerModel& m = t->model_;
    const size_t wide = static_cast<size_t>(std::max({m.dim, m.feedForward, m.heads * m.headSize}) + 16),
                 r = static_cast<size_t>(rows);
    const int count = rows / streams;
    std::vector<Row> all;
    std::vector<StreamRows> groups;
    const int tiles = (count * (m.heads / m.kvHeads) + tileQueries - 1) / tileQueries;
    for (int stream = 0; stream < streams; stream++) {
      groups.push_back({stream, stream * count, count, stream * tiles});
      for (int i = 0; i < count; i++)
        all.push_back({stream,
                       0,
                       -1,
                       {0, i % official::grid, i / official::grid % official::grid},
                       std::max(0, sees - count + i) % official::tokens,
                       sees});
    }
    table = memory.put(check, all);
    squares = memory.take<float>(check, r * static_cast<size_t>(squaresStride(m.dim)));
    elements = memory.take<uint16_t>(check, r * wide);
    out = memory.take<uint16_t>(check, r * wide);
    y = memory.take<float>(check, r * static_cast<size_t>(std::max<int>(static_cast<int>(wide), m.vocabulary)));
    queries = memory.take<uint16_t>(check, r * static_cast<size_t>(m.heads * paddedHead(m.headSize)));
    cacheBytes = static_cast<size_t>(streams) * static_cast<size_t>(m.kvHeads) * official::tokens *
                 static_cast<size_t>(paddedHead(m.headSize)) * 2;
    const size_t caches = withCaches ? static_cast<size_t>(2 * m.layers) : 2;
    cache = memory.take<uint8_t>(check, caches * cacheBytes);
    attention = {{table, rows},
                 memory.put(check, groups),
                 streams,
                 count * (m.heads / m.kvHeads),
                 1,
                 m.heads,
                 m.kvHeads,
                 m.headSize,
                 queries,
                 cacheOf(0),
                 out,
                 static_cast<ptrdiff_t>(wide),
                 nullptr,
                 nullptr};
    if (withCaches) {
      attention.partial = partial =
          memory.take<float>(check, attentionPartials(streams * tiles, m.kvHeads, m.headSize, official::tokens));
      attention.counters = counters = memory.take<uint32_t>(check, attentionCounters(streams * tiles, m.kvHeads));
      if (check.ok())
        check(cudaMemsetAsync(counters, 0, attentionCounters(streams * tiles, m.kvHeads) * 4, stream()), "clearing");
    }
    fill(check, squares, r * static_cast<size_t>(squaresStride(m.dim)) * 4);
    fill(check, elements, r * wide * 2);
    fill(check, y, r * wide * 4);
    fill(check, queries, r * static_cast<size_t>(m.heads * paddedHead(m.headSize)) * 2);
    fill(check, cache, caches * cacheBytes);
    check(cudaStreamSynchronize(stream()), "filling");
  }
  Cache cacheOf(int layer) const {
    return {cache + static_cast<size_t>(2 * layer) * cacheBytes,
            cache + static_cast<size_t>(2 * layer + 1) * cacheBytes, official::tokens};
  }

  // As sessions have them: `normed` is behind a norm, what adds to rows leaves them for the next one.
  cudaError_t multiply(const Matrix& w, Epilogue epilogue, bool normed) const {
    const parvis::TransformerModel& m = t->model_;
    Projection p{};
    p.eps = m.normEps, p.rows = rows, p.elements = elements, p.weights = w.packed(), p.epilogue = epilogue,
    p.xStride = (w.inputs + 15) / 16 * 16, p.processors = device->processors(), p.prefetched = device->prefetched();
    if (normed) p.squares = squares;
    if (epilogue == Epilogue::add) p.next = {t->finalNorm_.weight, out, rowStride(m.dim), squares};
    p.y = y, p.out = out;
    p.yStride = epilogue == Epilogue::store    ? m.vocabulary
                : epilogue == Epilogue::swiglu ? (m.feedForward + 15) / 16 * 16
                                               : (m.dim + 15) / 16 * 16;
    p.rotation = {{table, rows},
                  m.heads,
                  m.kvHeads,
                  m.headSize,
                  {m.rotationPairs[0], m.rotationPairs[1], m.rotationPairs[2]},
                  t->cosine_,
                  t->sine_,
                  Element::bfloat16,
                  queries,
                  cacheOf(0)};
    return rows <= maxSkinnyRows(p.weights.format) ? project(p, steps()) : projectTiled(p, steps());
  }
};

struct Family {
  const char* name;
  const Matrix Layer::*matrix;
  Epilogue epilogue;
  bool normed;
};
const Family families[] = {{"qkv", &Layer::qkv, Epilogue::append, true},
                           {"wo", &Layer::attentionOutput, Epilogue::add, false},
                           {"gateUp", &Layer::up, Epilogue::swiglu, true},
                           {"down", &Layer::down, Epilogue::add, false}};

// One family over all layers: their weights together are many times the second-level cache.
void projections(Checked& check, Json& fields, const CudaTransformer& t, int rows) {
  const Bench b(check, t, rows, official::tokens / 2, false);
  Memory memory;
  uint4* out = memory.take<uint4>(check, 1);
  std::vector<std::string> list;
  double bytesAll = 0, msAll = 0;
  const auto add = [&](const char* name, const std::function<cudaError_t(int)>& one,
                       const std::function<const void*(int)>& weights, double bytes, double flops, int launches) {
    if (!check.ok()) return;
    Graph graph, plain;
    const auto loop = [&](const std::function<cudaError_t(int)>& work) {
      return [&, work] {
        cudaError_t e = cudaSuccess;
        for (int i = 0; i < launches && e == cudaSuccess; i++) e = work(i);
        return e;
      };
    };
    if (!graph.capture(check, stream(), loop(one))) return;
    if (!plain.capture(check, stream(),
                       loop([&](int i) { return readAll(weights(i), static_cast<size_t>(bytes), out); })))
      return;
    const Spread s = graph.time(check, stream(), 15).over(launches), r = plain.time(check, stream(), 15).over(launches);
    Json j;
    j.text("name", name)
        .number("rows", rows)
        .number("bytes", bytes)
        .raw("ms", s.json())
        .number("gigabytesPerSecond", bytes / s.median / 1e6);
    j.number("ofCeiling", ceiling > 0 ? bytes / s.median * 1000 / ceiling : NAN)
        .number("teraflops", flops / s.median / 1e9);
    j.raw("plainReadMs", r.json()).number("ofPlainRead", r.median / s.median);
    list.push_back(j.done());
    bytesAll += bytes * launches, msAll += s.median * launches;
  };
  const int layers = t.model_.layers;
  for (const Family& f : families) {
    const Matrix& first = t.layers_[0].*f.matrix;
    const double bytes = static_cast<double>(first.packed().bytes());
    add(
        f.name, [&](int i) { return b.multiply(t.layers_[static_cast<size_t>(i)].*f.matrix, f.epilogue, f.normed); },
        [&](int i) -> const void* { return (t.layers_[static_cast<size_t>(i)].*f.matrix).data; }, bytes, bytes* rows,
        layers);
  }
  // The head is one matrix: copies of it.
  const size_t headBytes = t.head_.packed().bytes();
  const int copies = static_cast<int>(std::min<size_t>(64, 4 * std::max(l2Bytes, size_t{32} << 20) / headBytes + 2));
  uint8_t* heads = memory.take<uint8_t>(check, static_cast<size_t>(copies) * headBytes);
  for (int i = 0; i < copies && check.ok(); i++)
    check(cudaMemcpyAsync(heads + static_cast<size_t>(i) * headBytes, t.head_.data, headBytes, cudaMemcpyDeviceToDevice,
                          stream()),
          "copying");
  const auto head = [&](int i) {
    Matrix m = t.head_;
    m.data = heads + static_cast<size_t>(i) * headBytes;
    return m;
  };
  // A step reads it once, the other matrices once a layer.
  const double before = msAll, bytesBefore = bytesAll;
  add(
      "head", [&](int i) { return b.multiply(head(i), Epilogue::store, true); },
      [&](int i) -> const void* { return heads + static_cast<size_t>(i) * headBytes; }, static_cast<double>(headBytes),
      static_cast<double>(headBytes) * rows, copies);
  msAll = before + (msAll - before) / copies, bytesAll = bytesBefore + static_cast<double>(headBytes);
  fields.number("rows", rows)
      .raw("families", Json::list(list))
      .number("stepMs", msAll)
      .number("gigabytesPerSecond", bytesAll / msAll / 1e6);
  fields.number("ofCeiling", ceiling > 0 ? bytesAll / msAll * 1000 / ceiling : NAN);
}

// ---- attention and draws --------------------------------------------------------------------------------------

void attentions(Checked& check, Json& fields, const CudaTransformer& t, int n) {
  std::vector<std::string> list;
  for (const int sees : {64, 288, 576}) {
    const Bench b(check, t, 2 * n, sees, true);
    if (!check.ok()) return;
    Graph graph;
    if (!graph.capture(check, stream(), [&] {
          cudaError_t e = cudaSuccess;
          for (int i = 0; i < t.model_.layers && e == cudaSuccess; i++) {
            Attention a = b.attention;
            a.cache = b.cacheOf(i);
            e = attend(a, steps());
          }
          return e;
        }))
      return;
    list.push_back(
        Json().number("sees", sees).raw("ms", graph.time(check, stream(), 15).over(t.model_.layers).json()).done());
  }
  fields.number("n", n).raw("lengths", Json::list(list));
}

void draws(Checked& check, Json& fields) {
  constexpr int most = 64, launches = 20;
  Memory memory;
  std::vector<float> logits(static_cast<size_t>(2 * most) * official::vocabulary);
  uint64_t state = 7;
  for (float& l : logits) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    l = static_cast<float>(state >> 40) * 0x1p-21f - 4.0f;
  }
  // All tokens as they are, then cut.
  std::vector<Drawing> tables[2];
  for (const bool cut : {false, true})
    for (int i = 0; i < most; i++)
      tables[cut].push_back(
          {0, i, i, most + i, -1, 1.5f, {parvis::Mode::sample, 1, cut ? 2000 : 0, cut ? 0.95f : 1.0f}});
  const Drawing* const drawings[] = {memory.put(check, tables[0]), memory.put(check, tables[1])};
  Sampling s{};
  s.logits = memory.put(check, logits);
  s.rows = 2 * most;
  s.stride = s.vocabulary = official::vocabulary;
  s.seeds = memory.put(check, std::vector<uint64_t>{1});
  s.tokensEach = most;
  s.tokens = memory.take<int32_t>(check, most);
  s.nonFinite = memory.put(check, std::vector<int>{0});
  s.threads = 1024;
  std::vector<std::string> list;
  for (const int n : {1, 4, 16, 64})
    for (const bool cut : {false, true}) {
      s.predictions = n, s.table = drawings[cut];
      Graph graph;
      if (!graph.capture(check, stream(), [&] {
            cudaError_t e = cudaSuccess;
            for (int i = 0; i < launches && e == cudaSuccess; i++) e = sample(s, parvis::Mode::sample, steps());
            return e;
          }))
        return;
      list.push_back(Json()
                         .number("draws", n)
                         .text("rule", cut ? "top-k 2000, top-p 0.95" : "all")
                         .raw("ms", graph.time(check, stream(), 15).over(launches).json())
                         .done());
    }
  fields.raw("counts", Json::list(list));
}

}  // namespace
