// Steps and pictures: as a session runs them, in one graph, in each setting, again and again.
#pragma once

#include <cxxabi.h>

#include <map>

#include "../../cuda/tokenizer.h"
#include "measure-shared.h"

namespace {

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
  struct Kernel {
    cudaGraphNode_t node;
    cudaKernelNodeParams parameters;
  };
  std::map<std::string, std::vector<Kernel>> kernels;
  for (cudaGraphNode_t node : nodes) {
    cudaGraphNodeType type;
    cudaKernelNodeParams p{};
    if (!check(cudaGraphNodeGetType(node, &type), "reading a graph")) return "[]";
    if (type != cudaGraphNodeTypeKernel) continue;
    if (!check(cudaGraphKernelNodeGetParams(node, &p), "reading a kernel of a graph")) return "[]";
    kernels[nameOf(p.func)].push_back({node, p});
  }
  std::vector<std::string> list;
  for (const auto& [name, all] : kernels) {
    cudaGraph_t graph = nullptr;
    if (!check(cudaGraphCreate(&graph, 0), "making a graph")) return "[]";
    cudaGraphNode_t last = nullptr;
    for (const Kernel& kernel : all) {
      cudaGraphNode_t node = nullptr;
      check(cudaGraphAddKernelNode(&node, graph, last ? &last : nullptr, last ? 1 : 0, &kernel.parameters),
            "adding a kernel to a graph");
      // Blocks that read each other's shared memory are a cluster here too.
      cudaLaunchAttributeValue cluster{};
      if (check.ok()) {
        check(cudaGraphKernelNodeGetAttribute(kernel.node, cudaLaunchAttributeClusterDimension, &cluster),
              "asking for a kernel's cluster");
        if (cluster.clusterDim.x > 1)
          check(cudaGraphKernelNodeSetAttribute(node, cudaLaunchAttributeClusterDimension, &cluster),
                "making a cluster");
      }
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

// Milliseconds from the class to the tokens of a picture.
Spread pictures(Checked& check, CudaTransformer& t, int n) {
  const auto steps = official::steps(n);
  const company::Options o = options(1, n);
  std::vector<int32_t> tokens;
  std::vector<double> times;
  for (int i = -2; i < 5 && check.ok(); i++) {
    const double begin = now();
    std::unique_ptr<parvis::Session> session;
    if (!succeeded(check, company::seated(t, o, session)) || !runSteps(check, *session, o, steps, 0, steps.size()) ||
        !succeeded(check, company::readTokens(*session, o, tokens)))
      break;
    if (i >= 0) times.push_back(now() - begin);
  }
  return Spread(times);
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
      // A replayed step finds no tables of its own ahead, so whole pictures tell what that brings.
      if (setting.name == all[0].name || setting.name.find("rowsAhead") != std::string::npos)
        j.raw("pictureMs", pictures(one, t, n).json());
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

}  // namespace
