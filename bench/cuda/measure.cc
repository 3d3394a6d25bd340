// What the CUDA backend reaches on the device at hand, beside what the device can do. Random weights of the official
// shapes. One JSON object on standard output, progress on standard error.
//   measure [--out FILE] [--date DATE] [--seconds 200] --parts LIST
// LIST: parts between commas, in their order. MODEL: XXL 3B L XL B; N: tokens a step.
//   probe              what the machine lets programs do, and the graph of a step of XXL
//   read, constants    the device's bandwidth; what kernels that follow each other cost, and a flag between blocks
//   sweep:MODEL:N      a step with each choice of Tuning, and with less overlap
//   step:MODEL:N       steps as a caller runs them, against steps in one graph; the kernels of one by themselves
//   same:MODEL:N       pictures of one seed, again and again, with each overlap and without graphs
//   generate:MODEL:N[:BATCH]   pictures from the first row to the last pixel
//   projections:MODEL, attention:MODEL, draws, vq   kernels by themselves
// A part that fails, or for which no time is left, says so in its entry. --out is written after every part.
#include <cxxabi.h>

#include <cstring>
#include <map>
#include <memory>

#include "../../cuda/session.h"
#include "../../cuda/tokenizer.h"
#include "../../cuda/transformer.h"
#include "../../test/cuda/official.h"
#include "measuring.h"
#include "parvis/cuda.h"

using namespace measuring;
using namespace parvis::cuda;
using parvis::Row;
using parvis::Status;

// ---- a session's launches -------------------------------------------------------------------------------------

// A step is measured as the session enqueues it, not as a copy of its code here: an explicit instantiation may name
// what is private, and hands it on.
namespace {
struct EnqueueOf {};
struct WorkspaceOf {};
struct PlansOf {};
auto reach(EnqueueOf);
auto reach(WorkspaceOf);
auto reach(PlansOf);
template <class Tag, auto member>
struct Reach {
  friend auto reach(Tag) { return member; }
};
template struct Reach<EnqueueOf, &CudaSession::enqueue>;
template struct Reach<WorkspaceOf, &CudaSession::w_>;
template struct Reach<PlansOf, &Workspace::captured_>;

std::shared_ptr<Device> device;  // the one that the part at hand works with
cudaStream_t stream() { return device->stream(); }
StepStream steps() { return device->steps(); }  // where kernels overlap as in a session
size_t l2Bytes = 0;
double ceiling = 0;  // bytes a second of a large read
Results results;

bool succeeded(Checked& check, const Status& s) {
  if (!s.ok()) check.fail(s.message);
  return s.ok();
}

// ---- reading --------------------------------------------------------------------------------------------------

cudaError_t readAll(const void* from, size_t bytes, uint4* out, int blocksEach = 8) {
  return parvis::cuda::readAll(from, bytes, out, device->processors(), blocksEach, stream());
}

// Exponents of 2^-6 in both halves of a word: finite whatever they are read as, and no zeros, which would take less
// power.
__global__ void fillKernel(uint32_t* to, size_t count) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    uint32_t v = static_cast<uint32_t>(i) * 2654435761u;
    v ^= v >> 15, v *= 2246822519u, v ^= v >> 13;
    to[i] = (v & 0x807f807fu) | 0x3c803c80u;
  }
}

bool fill(Checked& check, void* to, size_t bytes) {
  if (!check.ok() || bytes < 4) return check.ok();
  fillKernel<<<4096, 256, 0, stream()>>>(static_cast<uint32_t*>(to), bytes / 4);
  return check(cudaGetLastError(), "filling");
}

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

// ---- a step ---------------------------------------------------------------------------------------------------

company::Options options(int batch, int n) {
  company::Options o;
  for (int i = 0; i < batch; i++)
    o.classIds.push_back(i * 37 % official::classes), o.seeds.push_back(static_cast<uint64_t>(i + 1));
  o.guided = true, o.slots = o.tokens = official::tokens, o.maxRows = n;
  return o;
}

company::Rule rule() {
  company::Rule r;
  r.guidanceScale = 1.5f;
  return r;
}

const parvis::Cancel never{false};

bool runSteps(Checked& check, parvis::Session& session, const company::Options& o,
              const std::vector<company::Table>& steps, size_t begin, size_t end) {
  for (size_t i = begin; i < end && check.ok(); i++)
    succeeded(check, company::step(session, o, steps[i], rule(), never));
  return check.ok();
}

// What a function's launches are called: projectKernel<1, true, (Epilogue)3>.
std::string nameOf(const void* function) {
  const char* mangled = nullptr;
  if (cudaFuncGetName(&mangled, function) != cudaSuccess || !mangled) {
    cudaGetLastError();
    char at[32];
    std::snprintf(at, sizeof at, "%p", function);
    return at;
  }
  int status = 0;
  char* plain = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  std::string name = status == 0 && plain ? plain : mangled;
  std::free(plain);
  if (const size_t parameters = name.rfind('(');
      parameters != std::string::npos && name.find('>', parameters) == std::string::npos)
    name.erase(parameters);
  for (const char* dull : {"void ", "parvis::cuda::", "(anonymous namespace)::"})
    for (size_t at; (at = name.find(dull)) != std::string::npos;) name.erase(at, std::strlen(dull));
  return name;
}

// The kernels of one step by function: how many, and how long they take when replayed without the others.
std::string kernelsOf(Checked& check, cudaGraph_t step) {
  size_t count = 0;
  if (!check(cudaGraphGetNodes(step, nullptr, &count), "reading a graph")) return "[]";
  std::vector<cudaGraphNode_t> nodes(count);
  if (!check(cudaGraphGetNodes(step, nodes.data(), &count), "reading a graph")) return "[]";
  std::map<std::string, std::vector<cudaKernelNodeParams>> parameters;
  for (cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type;
    cudaKernelNodeParams p{};
    if (!check(cudaGraphNodeGetType(node, &type), "reading a graph")) return "[]";
    if (type != cudaGraphNodeTypeKernel) continue;
    if (!check(cudaGraphKernelNodeGetParams(node, &p), "reading a kernel of a graph")) return "[]";
    parameters[nameOf(p.func)].push_back(p);
  }
  std::vector<std::string> list;
  for (const auto& [name, all] : parameters) {
    cudaGraph_t graph = nullptr;
    if (!check(cudaGraphCreate(&graph, 0), "making a graph")) return "[]";
    cudaGraphNode_t last = nullptr;
    for (const cudaKernelNodeParams& p : all) {
      cudaGraphNode_t node = nullptr;
      check(cudaGraphAddKernelNode(&node, graph, last ? &last : nullptr, last ? 1 : 0, &p),
            "adding a kernel to a graph");
      last = node;
      if (!check.ok()) break;
    }
    Graph chain;
    if (!check.ok()) {
      cudaGraphDestroy(graph);
      return "[]";
    }
    if (!chain.take(check, graph)) return "[]";
    list.push_back(Json()
                       .text("kernel", name)
                       .number("launches", static_cast<double>(all.size()))
                       .number("ms", chain.time(check, stream(), 9).median)
                       .done());
  }
  return Json::list(list, ",\n    ");
}

// A session in the middle of a picture, and one of its steps and some of them in one graph, between which there can be
// no gap.
constexpr int together = 12;
struct MiddleStep {
  std::unique_ptr<parvis::Session> session;
  Graph one, many;
  bool make(Checked& check, CudaTransformer& t, int n, int batch) {
    const auto steps = official::steps(n);
    const company::Options o = options(batch, n);
    if (!succeeded(check, company::seated(t, o, session)) || !runSteps(check, *session, o, steps, 0, steps.size() / 2))
      return false;
    check(cudaStreamSynchronize(stream()), "running steps");
    auto& inside = static_cast<CudaSession&>(*session);
    const StepPlan& plan = ((*(inside.*reach(WorkspaceOf{}))).*reach(PlansOf{})).back().plan;
    const auto enqueue = [&] {
      Launcher launch(*device, t.element_);
      return (inside.*reach(EnqueueOf{}))(launch, plan, {});
    };
    return one.capture(check, stream(), enqueue) && many.capture(check, stream(), [&] {
      cudaError_t e = cudaSuccess;
      for (int i = 0; i < together && e == cudaSuccess; i++) e = enqueue();
      return e;
    });
  }
};

// Steps from the middle of a picture: as a caller runs them, and many of them in one graph.
void step(Checked& check, Json& fields, CudaTransformer& t, int n, int batch) {
  const auto steps = official::steps(n);
  const size_t middle = steps.size() / 2, some = std::min<size_t>(32, steps.size() / 4);
  const company::Options o = options(batch, n);
  std::unique_ptr<parvis::Session> session;
  if (!succeeded(check, company::seated(t, o, session))) return;
  if (!runSteps(check, *session, o, steps, 0, middle - some / 2)) return;
  check(cudaStreamSynchronize(stream()), "running steps");
  const double begin = now();
  if (!runSteps(check, *session, o, steps, middle - some / 2, middle + some / 2)) return;
  const double enqueued = now();
  check(cudaStreamSynchronize(stream()), "running steps");
  const double looped = (now() - begin) / static_cast<double>(some / 2 * 2);

  // Another session stops in the middle: from here on the first's rows and counters would not fit together.
  session.reset();
  MiddleStep at;
  if (!at.make(check, t, n, batch)) return;
  const Spread alone = at.one.time(check, stream(), 15), chained = at.many.time(check, stream(), 9).over(together);
  fields.number("n", n)
      .number("batch", batch)
      .number("loopMs", looped)
      .number("hostMs", (enqueued - begin) / static_cast<double>(some / 2 * 2));
  fields.raw("graphMs", alone.json())
      .raw("chainedMs", chained.json())
      .number("gap", (looped - chained.median) / looped);
  Checked apart;  // what it takes to read a graph may be missing
  const std::string kernels = kernelsOf(apart, at.one.graph());
  fields.raw("kernels", kernels);
  if (!apart.ok()) fields.text("kernelsProblem", apart.error());
}

// ---- settings -------------------------------------------------------------------------------------------------

struct Setting {
  std::string name;
  Overlap overlap = Overlap::weights;
  Tuning tuning{};
};

// Whatever lies in the memory of the device stays; the transformer's stream and its choices become others.
bool with(Checked& check, CudaTransformer& t, const Setting& setting, const std::function<void()>& work) {
  const std::shared_ptr<Device> before = device;
  t.takeKept({});  // what a session left belongs to the other stream
  check(cudaDeviceSynchronize(), "ending what ran");
  device = std::make_shared<Device>(0, setting.overlap, setting.tuning);
  if (succeeded(check, device->use())) {
    t.device_ = device;
    work();
    t.takeKept({});
    check(cudaDeviceSynchronize(), "ending what ran");
  }
  device = t.device_ = before;
  return check.ok();
}

const std::pair<const char*, bool Tuning::*> choices[] = {
    {"largeTiles", &Tuning::largeTiles},   {"evenTiles", &Tuning::evenTiles}, {"deepStages", &Tuning::deepStages},
    {"lateRelease", &Tuning::lateRelease}, {"earlyKeys", &Tuning::earlyKeys}, {"clusters", &Tuning::clusters},
    {"guidedHead", &Tuning::guidedHead},   {"rowsAhead", &Tuning::rowsAhead}};
Tuning usual() {
  Tuning t;
  t.clusters = true;
  return t;
}

// A step in each setting. The first one comes again at the end: what moved meanwhile is the machine.
void sweep(Checked& check, Json& fields, CudaTransformer& t, int n) {
  std::vector<Setting> all = {{"overlap=2", Overlap::weights, usual()},
                              {"overlap=1", Overlap::launches, usual()},
                              {"overlap=0", Overlap::none, usual()}};
  for (const auto& [name, member] : choices) {
    Setting s{"", Overlap::weights, usual()};
    s.tuning.*member = !(s.tuning.*member);
    s.name = std::string("overlap=2 ") + name + (s.tuning.*member ? "=1" : "=0");
    all.push_back(s);
  }
  Tuning none = usual();
  for (const auto& [name, member] : choices) none.*member = false;
  all.push_back({"overlap=2 none", Overlap::weights, none});
  all.push_back({"overlap=2 again", Overlap::weights, usual()});
  std::vector<std::string> list;
  for (const Setting& setting : all) {
    Checked one;
    Json j;
    j.text("setting", setting.name);
    with(one, t, setting, [&] {
      MiddleStep at;
      if (!at.make(one, t, n, 1)) return;
      const Spread alone = at.one.time(one, stream(), 15), chained = at.many.time(one, stream(), 5).over(together);
      j.raw("graphMs", alone.json()).raw("chainedMs", chained.json());
    });
    if (!one.ok()) j.text("problem", one.error());
    list.push_back(j.done());
    if (cudaDeviceSynchronize() != cudaSuccess) {
      check.fail(one.error());
      break;
    }
  }
  // What a step reads at the middle of a picture: all of its weights, and keys and values of two streams.
  const parvis::TransformerModel& m = t.model_;
  const double slots = official::tokens / 2.0;
  double weights = static_cast<double>(t.head_.packed().bytes());
  for (const Layer& l : t.layers_)
    for (const Matrix* matrix : {&l.qkv, &l.attentionOutput, &l.up, &l.down})
      weights += static_cast<double>(matrix->packed().bytes());
  fields.number("n", n)
      .number("weightBytes", weights)
      .number("cacheBytes", 2.0 * 2.0 * m.layers * m.kvHeads * paddedHead(m.headSize) * 2.0 * slots)
      .raw("settings", Json::list(list, ",\n    "));
}

// The same tokens from the same seed, whatever overlaps and whatever runs at the same time: this is where a read that
// comes too early would show.
void same(Checked& check, Json& fields, CudaTransformer& t, int n) {
  const auto steps = official::steps(n);
  const company::Options o = options(1, n);
  std::vector<Setting> all = {{"overlap=0", Overlap::none, usual()},
                              {"overlap=1", Overlap::launches, usual()},
                              {"overlap=2", Overlap::weights, usual()},
                              {"overlap=2 late release", Overlap::weights, usual()},
                              {"no graphs", Overlap::weights, usual()}};
  all[3].tuning.lateRelease = true;
  std::vector<int32_t> first;
  std::vector<std::string> names;
  int pictures = 0, differing = 0;
  for (const Setting& setting : all) {
    const bool plain = setting.name == "no graphs";
    if (plain) setenv("PARVIS_GRAPHS", "0", 1);
    int here = 0;
    with(check, t, setting, [&] {
      for (int i = 0; i < (plain ? 5 : 20) && check.ok(); i++) {
        std::unique_ptr<parvis::Session> session;
        std::vector<int32_t> tokens;
        if (!succeeded(check, company::seated(t, o, session)) ||
            !runSteps(check, *session, o, steps, 0, steps.size()) ||
            !succeeded(check, company::readTokens(*session, o, tokens)))
          return;
        if (first.empty()) first = tokens;
        pictures++;
        here += tokens != first;
      }
    });
    if (plain) unsetenv("PARVIS_GRAPHS");
    differing += here;
    names.push_back(Json().text("setting", setting.name).number("differing", here).done());
  }
  // And the same picture among others.
  std::vector<int32_t> tokens;
  const company::Options many = options(8, n);
  std::unique_ptr<parvis::Session> session;
  if (check.ok() && succeeded(check, company::seated(t, many, session)) &&
      runSteps(check, *session, many, steps, 0, steps.size()) &&
      succeeded(check, company::readTokens(*session, many, tokens))) {
    pictures++;
    const bool differs = !std::equal(first.begin(), first.end(), tokens.begin());
    differing += differs;
    names.push_back(Json().text("setting", "in a batch of 8").number("differing", differs).done());
  }
  for (const int32_t token : first)
    if (token < 0 || token >= official::vocabulary) check.fail("a token that was not drawn");
  fields.number("pictures", pictures).number("differing", differing).raw("settings", Json::list(names));
}

// ---- what the machine does ------------------------------------------------------------------------------------

// Edges of a graph along which a kernel may begin before the one ahead has ended.
cudaError_t programmaticEdges(cudaGraph_t graph, double& edges) {
  size_t count = 0;
  std::vector<cudaGraphNode_t> from, to;
  std::vector<cudaGraphEdgeData> data;
  const auto ask = [&](cudaGraphNode_t* f, cudaGraphNode_t* t, cudaGraphEdgeData* d) {
#if CUDART_VERSION >= 13000
    return cudaGraphGetEdges(graph, f, t, d, &count);
#else
    return cudaGraphGetEdges_v2(graph, f, t, d, &count);
#endif
  };
  if (const cudaError_t e = ask(nullptr, nullptr, nullptr); e != cudaSuccess) return e;
  from.resize(count), to.resize(count), data.resize(count);
  if (const cudaError_t e = ask(from.data(), to.data(), data.data()); e != cudaSuccess) return e;
  edges = static_cast<double>(std::count_if(data.begin(), data.end(), [](const cudaGraphEdgeData& d) {
    return d.type == cudaGraphDependencyTypeProgrammatic;
  }));
  return cudaSuccess;
}

void probe(Checked& check, Json& fields, CudaTransformer& t) {
  const auto succeeds = [](cudaError_t e) {
    cudaGetLastError();
    return e == cudaSuccess;
  };
  void *managed = nullptr, *mapped = nullptr;
  fields.flag("managedMemory", succeeds(cudaMallocManaged(&managed, 1 << 20)));
  fields.flag("hostFallback", succeeds(cudaHostAlloc(&mapped, 1 << 20, cudaHostAllocMapped)));
  if (managed) cudaFree(managed);
  if (mapped) cudaFreeHost(mapped);
  const company::Options o = options(1, 4);
  const auto steps = official::steps(4);
  {
    std::unique_ptr<parvis::Session> session;
    if (!succeeded(check, company::seated(t, o, session)) || !runSteps(check, *session, o, steps, 0, 12)) return;
    check(cudaStreamSynchronize(stream()), "running steps");
  }
  const Launches way = device->launches();
  fields.text("launches", way == Launches::graphs        ? "graphs"
                          : way == Launches::plainGraphs ? "plain graphs"
                                                         : "kernels");
  MiddleStep at;
  if (!at.make(check, t, 4, 1)) return;
  size_t nodes = 0;
  check(cudaGraphGetNodes(at.one.graph(), nullptr, &nodes), "reading a graph");
  fields.number("kernels", static_cast<double>(nodes));
  double edges = NAN;
  if (check(programmaticEdges(at.one.graph(), edges), "reading a graph's edges"))
    fields.number("programmaticEdges", edges);
}

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

// ---- pictures -------------------------------------------------------------------------------------------------

// From the class to the tokens and the bytes of pictures, as Par does it.
void generate(Checked& check, Json& fields, CudaTransformer& t, parvis::Tokenizer* tokenizer, int n, int batch,
              int repeats) {
  if (!check.ok()) return;
  const auto steps = official::steps(n);
  const company::Options o = options(batch, n);
  std::vector<int32_t> tokens;
  constexpr int side = 16 * official::grid;
  std::vector<uint8_t> pixels(static_cast<size_t>(batch) * side * side * 3);
  std::vector<double> transformer, all, sessions, decoded;
  for (int i = batch == 1 ? -2 : -1; i < repeats && check.ok(); i++) {
    const double begin = now();
    std::unique_ptr<parvis::Session> session;
    if (!succeeded(check, company::seated(t, o, session))) return;
    const double made = now();
    if (!runSteps(check, *session, o, steps, 0, steps.size()) ||
        !succeeded(check, company::readTokens(*session, o, tokens)))
      return;
    const double drawn = now();
    if (tokenizer) {
      parvis::DecodeOptions d;
      d.count = batch, d.gridHeight = d.gridWidth = official::grid, d.outHeight = d.outWidth = side;
      if (!succeeded(check, tokenizer->decode(tokens.data(), d, pixels.data(), nullptr, never))) return;
    }
    const double end = now();
    session.reset();
    if (i < 0) continue;
    sessions.push_back(made - begin), transformer.push_back(drawn - begin), decoded.push_back(end - drawn),
        all.push_back(end - begin);
  }
  for (const int32_t token : tokens)
    if (token < 0 || token >= official::vocabulary) check.fail("a token that was not drawn");
  fields.number("n", n).number("batch", batch).number("steps", static_cast<double>(steps.size()));
  fields.raw("ms", Spread(all).json())
      .raw("transformerMs", Spread(transformer).json())
      .raw("sessionMs", Spread(sessions).json());
  if (tokenizer) fields.raw("decodeMs", Spread(decoded).json());
  else fields.text("decode", "left out: no tokenizer");
  fields.number("imagesPerSecond", batch / Spread(all).median * 1000);
}

void decodes(Checked& check, Json& fields, parvis::Tokenizer& tokenizer, int count, int repeats) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count * official::tokens; i++) tokens.push_back(i * 7919 % 16384);
  constexpr int side = 16 * official::grid;
  std::vector<uint8_t> pixels(static_cast<size_t>(count) * side * side * 3);
  parvis::DecodeOptions o;
  o.count = count, o.gridHeight = o.gridWidth = official::grid, o.outHeight = o.outWidth = side;
  std::vector<double> times;
  for (int i = -3; i < repeats && check.ok(); i++) {
    const double begin = now();
    succeeded(check, tokenizer.decode(tokens.data(), o, pixels.data(), nullptr, never));
    if (i >= 0) times.push_back(now() - begin);
  }
  constexpr double flops = 567e9;  // of one picture
  fields.number("count", count)
      .raw("ms", Spread(times).json())
      .number("msAnImage", Spread(times).median / count)
      .number("teraflops", flops * count / Spread(times).median / 1e9);
}

// ---- everything -----------------------------------------------------------------------------------------------

// The model that the part before needed stays.
std::shared_ptr<parvis::Transformer> loaded;
std::string loadedName;
CudaTransformer* loadedModel(Checked& check, const std::string& name) {
  if (loaded && loadedName == name) return static_cast<CudaTransformer*>(loaded.get());
  loaded.reset();
  const official::Size* const size = official::sizeOf(name);
  if (!size) {
    check.fail("no such model");
    return nullptr;
  }
  const parvis::TransformerModel m = official::model(*size);
  const official::Weights weights(official::tensorsOf(m));
  if (!weights.good()) {
    check.fail("writing random weights failed");
    return nullptr;
  }
  if (!succeeded(check, CudaTransformer::load(device, weights.file, weights.weights, m, parvis::Precision::bfloat16,
                                              never, loaded)))
    return nullptr;
  loadedName = name;
  return static_cast<CudaTransformer*>(loaded.get());
}

std::shared_ptr<parvis::Tokenizer> loadedTokenizer;
parvis::Tokenizer* tokenizer(Checked& check) {
  if (!loadedTokenizer) {
    const official::Weights weights(official::tensorsOf(official::vq16()));
    succeeded(check, CudaTokenizer::load(device, weights.file, weights.weights, official::vq16(),
                                         parvis::Precision::bfloat16, never, loadedTokenizer));
  }
  return loadedTokenizer.get();
}

std::vector<std::string> split(const std::string& text, char by) {
  std::vector<std::string> parts(1);
  for (const char c : text)
    if (c == by) parts.emplace_back();
    else parts.back() += c;
  return parts;
}

// A part by its words, as the first lines of this file have them.
void measure(const std::string& part, Checked& check, Json& fields) {
  const std::vector<std::string> words = split(part, ':');
  const std::string& what = words[0];
  const auto number = [&](size_t i, int otherwise) {
    return words.size() > i ? std::atoi(words[i].c_str()) : otherwise;
  };
  const int n = number(2, 4), batch = number(3, 1);
  if (n < 1 || batch < 1 || official::tokens % n != 0) return check.fail("not a number of tokens or pictures");
  if (what == "read") return reading(check, fields);
  if (what == "constants") return constants(check, fields);
  if (what == "draws") return draws(check, fields);
  if (what == "vq") {
    parvis::Tokenizer* const t = tokenizer(check);
    std::vector<std::string> list;
    for (const int pictures : {1, 16}) {
      Json j;
      if (check.ok()) decodes(check, j, *t, pictures, pictures == 1 ? 30 : 5);
      list.push_back(j.done());
    }
    fields.raw("decodes", Json::list(list));
    return;
  }
  const std::string name = what == "probe" ? "XXL" : words.size() > 1 ? words[1] : "";
  fields.text("model", name);
  CudaTransformer* const t = loadedModel(check, name);
  if (!t) return;
  if (what == "probe") return probe(check, fields, *t);
  if (what == "sweep") return sweep(check, fields, *t, n);
  if (what == "step") return step(check, fields, *t, n, batch);
  if (what == "same") return same(check, fields, *t, n);
  if (what == "generate")
    return generate(check, fields, *t, tokenizer(check), n, batch, batch == 1 ? 7 : batch <= 8 ? 3 : 1);
  if (what == "projections" || what == "attention") {
    std::vector<std::string> list;
    const bool attends = what == "attention";
    for (const int count : attends ? std::vector<int>{1, 4, 16} : std::vector<int>{2, 8, 32, 128, 512}) {
      Json j;
      attends ? attentions(check, j, *t, count) : projections(check, j, *t, count);
      list.push_back(j.done());
    }
    fields.raw("counts", Json::list(list, ",\n   "));
    return;
  }
  check.fail("no such part");
}

std::string versionText(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }

}  // namespace

int main(int count, char** arguments) {
  std::vector<std::string> parts;
  std::string date = "unknown";
  for (int i = 1; i < count; i++) {
    const std::string a = arguments[i];
    if (i + 1 < count && a == "--out") results.file = arguments[++i];
    else if (i + 1 < count && a == "--date") date = arguments[++i];
    else if (i + 1 < count && a == "--seconds") results.seconds = std::atof(arguments[++i]);
    else if (i + 1 < count && a == "--parts") parts = split(arguments[++i], ',');
    else parts.clear(), i = count;
  }
  if (parts.empty()) {
    std::fprintf(stderr,
                 "measure: --parts LIST [--out FILE] [--date DATE] [--seconds 200]; measure.cc lists the parts\n");
    return 2;
  }
  device = std::make_shared<Device>(0);
  if (const Status s = device->use(); !s.ok()) {
    std::fprintf(stderr, "measure: %s\n", s.message.c_str());
    return 1;
  }
  cudaDeviceProp properties{};
  int driver = 0, runtime = 0;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess || cudaDriverGetVersion(&driver) != cudaSuccess ||
      cudaRuntimeGetVersion(&runtime) != cudaSuccess)
    return 1;
  l2Bytes = static_cast<size_t>(properties.l2CacheSize);
  Json d;
  d.text("name", properties.name)
      .text("capability", std::to_string(properties.major) + "." + std::to_string(properties.minor))
      .number("processors", properties.multiProcessorCount);
  d.number("memory", static_cast<double>(properties.totalGlobalMem))
      .number("l2", static_cast<double>(l2Bytes))
      .text("driver", versionText(driver))
      .text("runtime", versionText(runtime));
  results.head = "\"device\": " + d.done() + ", \"date\": " + Json::quoted(date);
  results.head += ", \"overlap\": " + std::to_string(static_cast<int>(device->overlap()));  // PARVIS_OVERLAP
  for (const std::string& part : parts)
    results.part(part, [&](Checked& check, Json& fields) { measure(part, check, fields); });
  std::fputs(results.json().c_str(), stdout);
  return results.problems() > 0;
}
