// Whole steps, kernel after kernel, against the CPU backend's session on the same weights: that layouts, row tables, the
// step counter and the cache fit together. Known tokens are scored with guidance, so that a rounding cannot change what
// comes after it; PAR's steps with n = 4 on 16 tokens: class, three tokens, transition tokens, two groups. The same again
// with the kernels for many rows, all slots in one pass under the block-wise mask.
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "../../include/parvis/backend.h"
#include "reference.h"

using namespace parvis::cuda;
using cases::Array;
using reference::up;

namespace {

const parvis::TransformerModel model = [] {
  parvis::TransformerModel m;
  m.layers = 2, m.dim = 64, m.heads = 2, m.kvHeads = 1, m.headSize = 44, m.feedForward = 40, m.vocabulary = 60, m.classes = 3, m.transitions = 3;
  return m;
}();
constexpr int n = 4, tokens = 16, slots = 16, sequences = 2, streams = 4;
constexpr float guidance = 1.5f;

// The checkpoint: bfloat16 numbers, for the CPU backend in a file of float32.
struct Tensors {
  std::vector<parvis::TensorSource> sources;
  std::vector<Array<float>> values;
  cases::Numbers numbers{42};
  uint64_t bytes = 0;

  const Array<float>& add(const std::string& name, std::vector<int64_t> shape, float scale, float offset = 0) {
    size_t count = 1;
    for (const int64_t d : shape) count *= static_cast<size_t>(d);
    Array<float> v = numbers.normals(count, scale);
    for (float& f : v) f = cases::widen(cases::bf16(f + offset));
    sources.push_back({name, parvis::DType::float32, shape, bytes, {}});
    bytes += count * 4;
    values.push_back(std::move(v));
    return values.back();
  }
};

struct Matrix {
  Packing plain;
  int inputs;
  Array<uint4> data;
  Packed packed;
  // Interleaved outputs of one matrix, or gates and ups of two; both numbers stay where the checkpoint has them.
  Matrix(const float* low, const float* high, int outputs, int inputs)
      : plain{low, high ? high : low + inputs, high ? inputs : 2 * inputs, high ? outputs : outputs / 2, high ? outputs : outputs / 2, Element::float32}, inputs(inputs),
        packed{nullptr, plain.lowRows, inputs} {
    data.resize(packed.elements() / 8);
    packed.data = reinterpret_cast<uint16_t*>(data.data());
    if (cases::finish(pack(plain, packed, 128, nullptr)) != cudaSuccess) cases::check(false, "packing %d x %d", outputs, inputs);
  }
};

template <class E>
struct Layer {
  Array<float> attentionNorm, feedForwardNorm;
  Matrix qkv, wo, gateUp, down;
  Array<E> keys, values;
};

// Steps of one row first (the class, then tokens), then groups of n.
Array<parvis::Row> singles, groups, sequence;  // `sequence`: all of them
void makeRows() {
  const auto row = [](int input, int slot, int sees) {
    const bool token = input >= 0;
    return parvis::Row{input, slot, token ? input / 4 : -1, token ? input % 4 : -1, 1, sees, slot};
  };
  for (int k = 0; k < n; k++) singles.push_back(row(k == 0 ? parvis::classInput : k - 1, k, k + 1));
  for (int g = 1; g < tokens / n; g++)
    for (int i = 0; i < n; i++) groups.push_back(row(g > 1 ? (g - 1) * n + i : i == 0 ? n - 1 : -1 - i, g * n + i, (g + 1) * n));
  sequence = singles;
  sequence.insert(sequence.end(), groups.begin(), groups.end());
}

template <class E>
void steps(bool whole, double logitTolerance, double probTolerance) {
  constexpr bool packed = sizeof(E) == 2;
  constexpr Element element = packed ? Element::bfloat16 : Element::float32;
  const char* precision = whole ? "bfloat16, one pass" : packed ? "bfloat16" : "float32";
  const int dim = model.dim, width = model.heads * model.headSize, outputs = width + 2 * model.kvHeads * model.headSize, ff = model.feedForward, quarter = model.headSize / 4;

  // ---- weights, twice
  Tensors t;
  const auto classTable = reference::elements<E>(t.add("cls_embedding.embedding_table.weight", {model.classes + 1, dim}, 1));
  const auto tokenTable = reference::elements<E>(t.add("tok_embeddings.weight", {model.vocabulary, dim}, 1));
  const auto transitionTable = reference::elements<E>(t.add("spe_tok_embeddings.special_embeddings.weight", {model.transitions, dim}, 1));
  std::vector<Layer<E>> layers;
  for (int i = 0; i < model.layers; i++) {
    const std::string name = "layers." + std::to_string(i) + ".";
    const size_t cache = static_cast<size_t>(streams * model.kvHeads * slots * paddedHead(model.headSize));
    const Array<float> attentionNorm = t.add(name + "attention_norm.weight", {dim}, 0.1f, 1), feedForwardNorm = t.add(name + "ffn_norm.weight", {dim}, 0.1f, 1);
    const float* gate = t.add(name + "feed_forward.w1.weight", {ff, dim}, 0.1f).data();
    const float* upward = t.add(name + "feed_forward.w3.weight", {ff, dim}, 0.1f).data();
    layers.push_back({attentionNorm, feedForwardNorm, Matrix(t.add(name + "attention.wqkv.weight", {outputs, dim}, 0.1f).data(), nullptr, outputs, dim),
                      Matrix(t.add(name + "attention.wo.weight", {dim, width}, 0.1f).data(), nullptr, dim, width), Matrix(gate, upward, ff, dim),
                      Matrix(t.add(name + "feed_forward.w2.weight", {dim, ff}, 0.1f).data(), nullptr, dim, ff), Array<E>(cache), Array<E>(cache)});
  }
  const Array<float> finalNorm = t.add("norm.weight", {dim}, 0.1f, 1);
  const Matrix head(t.add("output.weight", {model.vocabulary, dim}, 0.2f).data(), nullptr, model.vocabulary, dim);

  // ---- the CPU backend
  char file[] = "/tmp/parvis-simt-XXXXXX";
  std::FILE* f = fdopen(mkstemp(file), "wb");
  for (const auto& v : t.values) std::fwrite(v.data(), 4, v.size(), f);
  std::fclose(f);
  const auto backend = parvis::createCpuBackend(1);
  const parvis::Cancel cancel{false};
  std::shared_ptr<parvis::Transformer> transformer;
  parvis::Status status = backend->loadTransformer(file, t.sources, model, packed ? parvis::Precision::bfloat16 : parvis::Precision::float32, cancel, transformer);
  unlink(file);
  parvis::SessionOptions o;
  o.classIds = {1, 2}, o.seeds = {1, 2}, o.guided = true, o.slots = slots, o.tokens = tokens, o.maxRows = n;
  for (int i = 0; i < sequences * tokens; i++) o.known.push_back(t.numbers.below(model.vocabulary));
  for (int i = 0; i < tokens; i++) o.keepLogits.push_back(i);
  std::unique_ptr<parvis::Session> session;
  if (status.ok()) status = transformer->createSession(o, session);
  parvis::StepRule rule;
  rule.mode = parvis::StepRule::Mode::score;
  rule.guidanceScale = guidance;
  for (int k = 0; k < n && status.ok(); k++) status = session->step(&singles[static_cast<size_t>(k)], 1, rule, cancel);
  for (int g = 0; g < tokens / n - 1 && status.ok(); g++) status = session->step(&groups[static_cast<size_t>(g * n)], n, rule, cancel);
  cases::check(status.ok(), "the CPU backend, %s %s", precision, status.message.c_str());
  if (!status.ok()) return;
  std::vector<float> expected(static_cast<size_t>(sequences * tokens * model.vocabulary)), expectedProbs(static_cast<size_t>(sequences * tokens));
  if (!session->readLogits(expected.data()).ok() || !session->readLogProbs(expectedProbs.data()).ok()) return;

  // ---- the kernels
  Array<float> cosine, sine;
  for (int p = 0; p < 4; p++)
    for (int k = 0; k < quarter; k++) {
      const float angle = static_cast<float>(p) * static_cast<float>(1 / std::pow(10000.0, 2.0 * k / (model.headSize / 2)));
      cosine.push_back(std::cos(angle));
      sine.push_back(std::sin(angle));
    }
  const int most = whole ? tokens : n, xStride = up(dim, 16), wideStride = up(width, 16), ffStride = up(ff, 16), vocabularyStride = up(model.vocabulary, 2);
  Array<float> x(static_cast<size_t>(streams * most * xStride)), logits(static_cast<size_t>(streams * most * vocabularyStride)), logProbs(expectedProbs.size()), kept, all(expected.size()), partial;
  Array<E> normed(x.size());
  Array<E> queries(static_cast<size_t>(streams * most * model.heads * paddedHead(model.headSize))), attended(static_cast<size_t>(streams * most * wideStride)), gated(static_cast<size_t>(streams * most * ffStride));
  Array<uint32_t> counters(64);
  Array<int32_t> known(o.known.begin(), o.known.end()), classIds(o.classIds.begin(), o.classIds.end());
  Array<int> nonFinite(1), step(1);
  cudaError_t e = cudaSuccess;
  const auto then = [&](cudaError_t next) { e = e == cudaSuccess ? next : e; };
  const auto apply = [&](Projection p, const Matrix& w) {
    p.weights = w.packed;
    if (packed && !whole) return then(project(p, nullptr));
    if (p.x) {
      then(parvis::cuda::norm({p.x, p.xStride, nullptr, p.rows, w.inputs, p.normWeight, p.eps, element, normed.data(), p.xStride, 64}, nullptr));
      p.x = nullptr;
      p.elements = normed.data();
    }
    then(whole ? projectTiled(p, nullptr) : projectPlain(p, w.plain, w.inputs, nullptr));
  };

  for (int s = 0; s < (whole ? 1 : n + tokens / n - 1); s++) {
    const int count = whole ? tokens : s < n ? 1 : n, rows = streams * count;
    step[0] = s < n ? s : s - n;
    const RowTable table{whole ? sequence.data() : s < n ? singles.data() : groups.data(), count, step.data()};
    then(embed({table, sequences, streams, known.data(), tokens, classIds.data(), model.classes, classTable.data(), tokenTable.data(), transitionTable.data(), element, dim, x.data(), xStride, 64}, nullptr));
    for (Layer<E>& l : layers) {
      const Cache cache{l.keys.data(), l.values.data(), slots};
      Projection p{};
      p.x = x.data(), p.normWeight = l.attentionNorm.data(), p.eps = model.normEps, p.xStride = xStride, p.rows = rows, p.epilogue = Epilogue::append;
      p.rotation = {table, streams, model.heads, model.kvHeads, model.headSize, cosine.data(), sine.data(), element, queries.data(), cache};
      apply(p, l.qkv);
      Attention a{table, streams, model.heads, model.kvHeads, model.headSize, queries.data(), cache, attended.data(), wideStride, nullptr, counters.data()};
      partial.resize(attentionPartials(a));
      a.partial = partial.data();
      then(whole ? attendRows(a, nullptr) : packed ? attend(a, nullptr) : attendPlain(a, nullptr));
      const auto residual = [&](const Array<E>& from, int stride, const Matrix& w) {
        Projection r{};
        r.elements = from.data(), r.xStride = stride, r.rows = rows, r.epilogue = Epilogue::add, r.y = x.data(), r.yStride = xStride;
        apply(r, w);
      };
      residual(attended, wideStride, l.wo);
      p.normWeight = l.feedForwardNorm.data(), p.epilogue = Epilogue::swiglu, p.out = gated.data(), p.yStride = ffStride;
      apply(p, l.gateUp);
      residual(gated, ffStride, l.down);
    }
    Projection p{};
    p.x = x.data(), p.normWeight = finalNorm.data(), p.eps = model.normEps, p.xStride = xStride, p.rows = rows, p.epilogue = Epilogue::store, p.y = logits.data(), p.yStride = vocabularyStride;
    apply(p, head);
    Array<Prediction> predictions;
    for (int q = 0; q < sequences; q++)
      for (int i = 0; i < count; i++) predictions.push_back({q, i});
    kept.resize(predictions.size() * static_cast<size_t>(model.vocabulary));
    Sampling d{};
    d.conditional = logits.data(), d.unconditional = logits.data() + sequences * count * vocabularyStride, d.stride = vocabularyStride, d.predictions = sequences * count, d.vocabulary = model.vocabulary;
    d.table = predictions.data(), d.rows = table, d.tokensEach = tokens, d.tokens = known.data(), d.logProbs = logProbs.data(), d.guided = kept.data(), d.nonFinite = nonFinite.data();
    d.guidanceScale = guidance, d.temperature = 1, d.topP = 1, d.threads = 64;
    then(cases::finish(score(d, nullptr)));
    for (size_t i = 0; i < predictions.size(); i++) {
      const int position = table.rows[step[0] * count + predictions[i].row].predicts;
      std::copy_n(kept.begin() + static_cast<ptrdiff_t>(i) * model.vocabulary, model.vocabulary, all.begin() + (predictions[i].sequence * tokens + position) * model.vocabulary);
    }
  }
  const double off = reference::relative(all, expected);
  double worst = 0;
  for (size_t i = 0; i < logProbs.size(); i++) worst = std::fmax(worst, std::fabs(static_cast<double>(logProbs[i] - expectedProbs[i])));
  cases::check(e == cudaSuccess && nonFinite[0] == 0, "all steps of %d layers ran, %s", model.layers, precision);
  cases::check(off < logitTolerance, "logits of %d positions, %s: %.2g off", sequences * tokens, precision, off);
  cases::check(worst < probTolerance, "log-probabilities, %s: %.2g off", precision, worst);
}

}  // namespace

int main(int, char** argv) {
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  makeRows();
  steps<float>(false, 1e-5, 1e-4);
  steps<uint16_t>(false, 3e-2, 0.1);
  steps<uint16_t>(true, 3e-2, 0.1);
  return cases::failures > 0;
}
