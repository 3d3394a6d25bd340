// The CUDA backend's sessions against the CPU backend's, on the same small checkpoints: decoding with a cache, whole
// sequences, draws, batches, graphs and their eviction, and everything that may go wrong. This is what Par runs, but
// for the binding.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>

#include "../../cuda/transformer.h"
#include "../../include/parvis/backend.h"
#include "cases.h"
#include "company.h"

using company::Line;
using company::Options;
using company::Results;
using company::Rule;
using company::run;
using company::seated;
using company::Table;
using parvis::Code;
using parvis::Mode;
using parvis::Precision;
using parvis::Status;

namespace {

// Random weights in a file of float32; every number fits into bfloat16.
class Checkpoint {
 public:
  explicit Checkpoint(const parvis::TransformerModel& m, bool damaged = false) : numbers_(42) {
    const int width = m.heads * m.headSize;
    const auto norm = [&](const std::string& role, parvis::NormKind kind) {
      add(role + ".weight", {m.dim}, 0.1f, 1);
      if (kind == parvis::NormKind::layer) add(role + ".bias", {m.dim}, 0.3f);
    };
    const auto projection = [&](const std::string& role, int outputs, int inputs) {
      add(role + ".weight", {outputs, inputs}, 0.1f);
      if (m.bias) add(role + ".bias", {outputs}, 0.5f);
    };
    add("classes", {m.classes + 1, m.dim}, 1);
    add("tokens", {m.vocabulary, m.dim}, 1);
    if (m.specials > 0) add("specials", {m.specials, m.dim}, 1);
    if (m.positions > 0) add("positions", {m.positions, m.dim}, 1);
    if (m.embeddingNorm) norm("embeddingNorm", parvis::NormKind::layer);
    for (int i = 0; i < m.layers; i++) {
      const std::string layer = "layers." + std::to_string(i) + ".";
      norm(layer + "attentionNorm", m.norm);
      norm(layer + "feedForwardNorm", m.norm);
      projection(layer + "qkv", width + 2 * m.kvHeads * m.headSize, m.dim);
      projection(layer + "attentionOutput", m.dim, width);
      if (m.activation == parvis::Activation::swiglu) add(layer + "gate.weight", {m.feedForward, m.dim}, 0.1f);
      projection(layer + "up", m.feedForward, m.dim);
      projection(layer + "down", m.dim, m.feedForward);
    }
    norm("finalNorm", m.norm);
    add("head", {m.vocabulary, m.dim}, 0.2f);
    if (damaged) values_[values_.size() - 3] = NAN;
    char name[] = "/tmp/parvis-session-XXXXXX";
    std::FILE* f = fdopen(mkstemp(name), "wb");
    std::fwrite(values_.data(), 4, values_.size(), f);
    std::fclose(f);
    file = name;
  }
  ~Checkpoint() { unlink(file.c_str()); }
  std::string file;
  std::vector<parvis::WeightSource> tensors;

 private:
  void add(const std::string& name, std::vector<int64_t> shape, float scale, float offset = 0) {
    size_t count = 1;
    for (const int64_t d : shape) count *= static_cast<size_t>(d);
    tensors.push_back({name, {{name, parvis::DType::float32, shape, values_.size() * 4, {}}}});
    for (const float f : numbers_.normals(count, scale)) values_.push_back(cases::widen(cases::bf16(f + offset)));
  }
  std::vector<float> values_;
  cases::Numbers numbers_;
};

parvis::TransformerModel small() {
  parvis::TransformerModel m;
  m.layers = 2, m.dim = 64, m.heads = 2, m.kvHeads = 1, m.headSize = 44, m.feedForward = 40, m.vocabulary = 61,
  m.classes = 3, m.specials = 3;
  m.rotationPairs[1] = m.rotationPairs[2] = m.headSize / 4;
  return m;
}

// PAR's steps: n rows one by one, then groups of n; or all rows at once, each seeing what its group does.
std::vector<Table> steps(int n, int tokens, int width, bool whole) {
  std::vector<Table> all;
  for (int slot = 0; slot < tokens; slot++) {
    const int group = slot / n, place = slot % n,
              input = slot == 0    ? -1
                      : slot < n   ? slot - 1
                      : group > 1  ? slot - n
                      : place == 0 ? n - 1
                                   : -1 - place;
    const Line line{input,
                    slot,
                    input >= 0 ? input / width : -1,
                    input >= 0 ? input % width : -1,
                    slot < n ? slot + 1 : (group + 1) * n,
                    slot};
    if (slot < n || place == 0) all.emplace_back();
    if (whole && all.size() > 1) all.pop_back();
    all.back().push_back(line);
  }
  return all;
}

struct Both {
  std::shared_ptr<parvis::Transformer> cpu, cuda;
};

std::unique_ptr<parvis::Backend> cpuBackend;

Both load(const Checkpoint& c, const parvis::TransformerModel& m, Precision precision) {
  const parvis::Cancel cancel{false};
  Both both;
  Status s = cpuBackend->loadTransformer(c.file, c.tensors, m, precision, cancel, both.cpu);
  if (s.ok())
    s = parvis::cuda::CudaTransformer::load(std::make_shared<parvis::cuda::Device>(0), c.file, c.tensors, m, precision,
                                            cancel, both.cuda);
  cases::check(s.ok(), "loading %s", s.message.c_str());
  return both;
}

Options options(int sequences, int tokens, int maxRows, bool guided) {
  Options o;
  for (int i = 0; i < sequences; i++) {
    o.classIds.push_back(i % 4);
    o.seeds.push_back(static_cast<uint64_t>(7 + i));
  }
  o.guided = guided, o.slots = tokens, o.tokens = tokens, o.maxRows = maxRows;
  return o;
}

double worst(const std::vector<float>& a, const std::vector<float>& b, bool relative) {
  double most = relative ? 1e-30 : 1, difference = 0;
  for (size_t i = 0; i < a.size(); i++) {
    if (relative) most = std::fmax(most, std::fabs(static_cast<double>(b[i])));
    const double d = std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    difference = d <= difference ? difference : d == d ? d : 1e30;
  }
  return difference / most;
}

// ---- against the CPU ----------------------------------------------------------------------------------------

void scores(const Both& both, const char* name, int sequences, int n, int tokens, bool whole, bool guided,
            double tolerance) {
  const auto table = steps(n, tokens, 4, whole);
  Options o = options(sequences, tokens, whole ? tokens : n, guided);
  o.positions = both.cpu->model().positions > 0;
  cases::Numbers numbers(5);
  for (int i = 0; i < sequences * tokens; i++) o.known.push_back(numbers.below(both.cpu->model().vocabulary));
  o.keepLogits = {tokens - 1, 0, tokens / 2};
  Rule rule;
  rule.mode = Mode::score;
  rule.guidanceScale = guided ? 1.5f : 1;
  const Results expected = run(*both.cpu, o, table, rule), found = run(*both.cuda, o, table, rule);
  const double logits = worst(found.logits, expected.logits, true),
               logProbs = worst(found.logProbs, expected.logProbs, false);
  cases::check(expected.status.ok() && found.status.ok() && logits < tolerance && logProbs < 20 * tolerance &&
                   found.tokens == o.known,
               "%s: %d sequences of %d scored %s, n = %d%s: logits %.2g, log-probabilities %.2g off %s", name,
               sequences, tokens, whole ? "at once" : "step by step", n, guided ? ", guided" : "", logits, logProbs,
               found.status.message.c_str());
}

// Tables that are not PAR's: rows that predict nothing, rows that leave nothing in the cache, any prefix, any cell, any
// order of positions. A row sees at most what has been appended up to the end of its step.
void tables(const Both& both, const char* name, double tolerance) {
  cases::Numbers numbers(77);
  constexpr int tokens = 20, maxRows = 7;
  Options o = options(2, tokens, maxRows, true);
  for (int i = 0; i < 2 * tokens; i++) o.known.push_back(numbers.below(both.cpu->model().vocabulary));
  for (int i = 0; i < tokens; i++) o.keepLogits.push_back(i);
  std::vector<Table> table;
  for (int filled = 0, position = 0; filled < tokens - maxRows;) {
    const int count = 1 + numbers.below(maxRows), before = filled;
    Table rows;
    for (int i = 0; i < count; i++) {
      const int input = numbers.below(5) == 0 ? -1 - numbers.below(4) : numbers.below(tokens);
      const bool append = i == 0 || numbers.below(4) != 0;
      rows.push_back({input, append ? filled : -1, input >= 0 ? numbers.below(9) : -1,
                      input >= 0 ? numbers.below(9) : -1, 0, numbers.below(4) == 0 ? -1 : position++ * 7 % tokens});
      filled += append;
    }
    for (Line& l : rows) l.sees = before + 1 + numbers.below(filled - before);
    table.push_back(rows);
  }
  Rule rule;
  rule.mode = Mode::score;
  rule.guidanceScale = 3;
  const Results expected = run(*both.cpu, o, table, rule), found = run(*both.cuda, o, table, rule);
  double most = 1e-30, difference = 0;
  size_t scored = 0;
  bool alike = true;
  for (size_t i = 0; i < expected.logits.size(); i++) {
    const bool there = expected.logits[i] == expected.logits[i];
    alike = alike && there == (found.logits[i] == found.logits[i]);
    if (!there) continue;
    scored++;
    most = std::fmax(most, std::fabs(static_cast<double>(expected.logits[i])));
    difference = std::fmax(difference,
                           std::fabs(static_cast<double>(expected.logits[i]) - static_cast<double>(found.logits[i])));
  }
  cases::check(expected.status.ok() && found.status.ok() && alike && scored > 500 && difference / most < tolerance,
               "%s: %zu steps of other tables, %zu logits: %.2g off %s%s", name, table.size(), scored,
               difference / most, expected.status.message.c_str(), found.status.message.c_str());
}

void draws(const Both& both, const char* name, int sequences, int n, int tokens, const Rule& rule) {
  const auto table = steps(n, tokens, 4, false);
  const Options o = options(sequences, tokens, n, true);
  const Results expected = run(*both.cpu, o, table, rule), found = run(*both.cuda, o, table, rule);
  size_t same = 0;
  for (size_t i = 0; i < expected.tokens.size(); i++)
    same += expected.tokens[i] == found.tokens[i] && found.tokens[i] >= 0;
  cases::check(expected.status.ok() && found.status.ok() && same == expected.tokens.size(),
               "%s: %zu of %zu tokens as on the CPU, n = %d, temperature %g, top-k %d, top-p %g %s", name, same,
               expected.tokens.size(), n, static_cast<double>(rule.temperature), rule.topK,
               static_cast<double>(rule.topP), found.status.message.c_str());
}

// ---- what a backend promises --------------------------------------------------------------------------------

// One is 8 rows; `among` are many more.
void batches(const Both& both, int n, int tokens, int among) {
  Rule rule;
  rule.guidanceScale = 2;
  const auto table = steps(n, tokens, 4, false);
  const Results many = run(*both.cuda, options(among, tokens, n, true), table, rule);
  bool same = many.status.ok();
  for (int i = 0; i < among; i += 2) {
    Options o = options(among, tokens, n, true);
    o.classIds = {o.classIds[static_cast<size_t>(i)]};
    o.seeds = {o.seeds[static_cast<size_t>(i)]};
    const Results alone = run(*both.cuda, o, table, rule);
    same = same && alone.status.ok() &&
           std::memcmp(alone.tokens.data(), many.tokens.data() + i * tokens, static_cast<size_t>(tokens) * 4) == 0;
  }
  cases::check(same, "a sequence alone has the tokens that it has among %d %s", among, many.status.message.c_str());
}

// Passes of several steps: the tokens of the steps one after another, whoever is beside a sequence and however many
// steps a pass has; a seat that runs in passes takes no other steps.
void passes(const Both& both, const char* name, int n, int tokens, bool guided) {
  Rule rule;
  rule.guidanceScale = guided ? 2 : 1, rule.temperature = 0.02f;
  const auto table = steps(n, tokens, 4, false);
  Options o = options(3, tokens, n, guided);
  const Results expected = run(*both.cuda, o, table, rule);
  const parvis::Cancel cancel{false};
  std::unique_ptr<parvis::Session> session;
  o.maxRows = n + 6;  // room for guesses, but not for as many as are asked for
  Status s = seated(*both.cuda, o, session);
  for (int seat = 0; seat < o.sequences() && s.ok(); seat++) s = session->plan(seat, company::planOf(o, table, rule));
  const int32_t all = static_cast<int32_t>(table.size());
  std::vector<int32_t> done(3), took(3);
  bool grows = true;
  for (int pass = 0; s.ok() && pass < 4 * all && done != std::vector<int32_t>(3, all); pass++) {
    std::vector<parvis::PassPart> parts;
    for (int32_t seat = 0; seat < 3; seat++)
      if ((pass + seat) % 4 != 0) parts.push_back({seat, 1 + (pass + 3 * seat) % 6});
    parvis::PassResult result;
    s = session->pass(parts, cancel, result);
    for (size_t i = 0; i < result.done.size(); i++) {
      int32_t& before = done[static_cast<size_t>(parts[i].seat)];
      grows = grows && result.done[i] >= std::min(before + 1, all);
      took[static_cast<size_t>(parts[i].seat)] += before < all ? 1 : 0;
      before = result.done[i];
    }
  }
  std::vector<int32_t> found;
  if (s.ok()) s = readTokens(*session, o, found);
  cases::check(
      expected.status.ok() && s.ok() && grows && done == std::vector<int32_t>(3, all) && found == expected.tokens,
      "%s: passes of up to six steps, n = %d%s: %d, %d and %d for %d steps %s", name, n, guided ? ", guided" : "",
      took[0], took[1], took[2], all, s.message.c_str());
  s = company::step(*session, o, table[0], rule, cancel);
  const Status again = session->plan(0, company::planOf(o, table, rule));
  cases::check(s.code == Code::invalidOption && again.code == Code::invalidOption, "a seat that runs in passes: %s %s",
               s.message.c_str(), again.message.c_str());
}

// A profile changes no token, and both backends record the same matrix products.
void profiles(const Both& both, const char* name) {
  const auto table = steps(4, 16, 4, false);
  const Options o = options(2, 16, 4, true);
  const parvis::Cancel cancel{false};
  Rule rule;
  rule.guidanceScale = 2;  // so that logits of all rows are needed
  const Results plain = run(*both.cuda, o, table, rule);
  double flops[2] = {};
  std::vector<int32_t> tokens;
  Status status = plain.status;
  for (int i = 0; i < 2; i++) {
    std::unique_ptr<parvis::Session> session;
    if (status.ok()) status = seated(i == 0 ? *both.cpu : *both.cuda, o, session);
    for (const Table& rows : table) {
      if (!status.ok()) break;
      session->profile(&rows == &table.back());  // of the last step: 16 rows, which no backend pads
      status = step(*session, o, rows, rule, cancel);
    }
    if (status.ok()) status = readTokens(*session, o, tokens);
    if (!status.ok()) break;
    const parvis::Profile records = session->profile(false);
    for (const parvis::LaunchRecord& r : records) flops[i] += r.flops;
    cases::check(!records.empty(), "%s, a profile of %zu launches", name, records.size());
  }
  cases::check(status.ok() && tokens == plain.tokens && flops[0] == flops[1] && flops[0] > 0,
               "%s, profiles of %.0f products %s", name, flops[0], status.message.c_str());
}

// What PARVIS_OVERLAP asks for, as far as the device can, and the same tokens with all of it.
void overlaps(const Checkpoint& c, const parvis::TransformerModel& m) {
  using parvis::cuda::Overlap;
  const char* const asked = std::getenv("PARVIS_OVERLAP");
  const std::string before = asked ? asked : "";
  const parvis::Cancel cancel{false};
  Rule rule;
  rule.guidanceScale = 2;
  std::vector<std::vector<int32_t>> tokens;
  bool right = true;
  for (const auto& [text, overlap] : std::initializer_list<std::pair<const char*, Overlap>>{
           {"0", Overlap::none}, {"1", Overlap::launches}, {"2", Overlap::weights}, {nullptr, Overlap::weights}}) {
    text ? setenv("PARVIS_OVERLAP", text, 1) : unsetenv("PARVIS_OVERLAP");
    const auto device = std::make_shared<parvis::cuda::Device>(0);
    std::shared_ptr<parvis::Transformer> t;
    const Status s = parvis::cuda::CudaTransformer::load(device, c.file, c.tensors, m, Precision::bfloat16, cancel, t);
    if (!s.ok()) return cases::check(false, "loading %s", s.message.c_str());
    const Overlap can =
        device->architecture() < "sm_90" && device->architecture().size() == 5 ? Overlap::none : overlap;
    right = right && device->overlap() == can && device->steps().overlap == (can != Overlap::none) &&
            (device->prefetched() > 0) == (can == Overlap::weights);
    const Results r = run(*t, options(2, 24, 4, true), steps(4, 24, 4, false), rule);
    right = right && r.status.ok();
    tokens.push_back(r.tokens);
  }
  asked ? setenv("PARVIS_OVERLAP", before.c_str(), 1) : unsetenv("PARVIS_OVERLAP");
  cases::check(right, "kernels overlap as far as they are asked to");
  cases::check(std::count(tokens.begin(), tokens.end(), tokens[0]) == 4, "the same tokens however kernels overlap");
}

// The same tokens whichever way kernels work: as they usually do, with every other choice, and with some of each.
void tunings(const Checkpoint& c, const parvis::TransformerModel& m, Precision precision, int count) {
  if (cases::isInterpreted()) return;  // each kernel's cases have run out of what nvcc compiled
  using parvis::cuda::Device;
  using parvis::cuda::Overlap;
  using parvis::cuda::Tuning;
  bool Tuning::*const choices[] = {&Tuning::largeTiles, &Tuning::evenTiles, &Tuning::deepStages, &Tuning::lateRelease,
                                   &Tuning::earlyKeys,  &Tuning::clusters,  &Tuning::guidedHead, &Tuning::rowsAhead};
  std::vector<Tuning> all;
  for (const int others : {0, 0xff, 0x55, 0x33}) {
    Tuning t;
    t.clusters = true;
    for (int i = 0; i < 8; i++)
      if (others >> i & 1) t.*choices[i] = !(t.*choices[i]);
    all.push_back(t);
  }
  all.resize(static_cast<size_t>(count));
  const parvis::Cancel cancel{false};
  Rule rule;
  rule.guidanceScale = 2;
  const Options o = options(1, 136, 4, true);  // slots of two splits of attention
  std::vector<Results> results;
  Status s;
  for (const Tuning& tuning : all) {
    const auto device = std::make_shared<Device>(0, Overlap::weights, tuning);
    std::shared_ptr<parvis::Transformer> t;
    if (s.ok()) s = parvis::cuda::CudaTransformer::load(device, c.file, c.tensors, m, precision, cancel, t);
    if (!s.ok()) break;
    results.push_back(run(*t, o, steps(4, 136, 4, false), rule));
    s = results.back().status;
  }
  bool same = s.ok();
  for (const Results& r : results)
    same = same && r.tokens == results[0].tokens && !r.tokens.empty() && r.tokens[0] >= 0;
  cases::check(same, "the same tokens whichever way kernels work, %s",
               s.ok() ? precision == Precision::int8 ? "int8" : "bfloat16" : s.message.c_str());

  setenv("PARVIS_TUNING", "lateRelease=1,clusters=0", 1);
  Tuning asked;
  const Status taken = parvis::cuda::tuningAsked(asked);
  setenv("PARVIS_TUNING", "late=1", 1);
  const Status refused = Device(0).use();
  unsetenv("PARVIS_TUNING");
  cases::check(taken.ok() && asked.lateRelease && !asked.clusters && asked.largeTiles &&
                   refused.code == Code::invalidOption && refused.message.find("\"late=1\"") != std::string::npos,
               "PARVIS_TUNING is taken, or refused: %s", refused.message.c_str());
}

// Rules that change from step to step, more of them than a session keeps graphs for, in two sessions at once.
void rules(const Both& both, int tokens) {
  const auto table = steps(1, tokens, 4, false);
  const parvis::Cancel cancel{false};
  std::unique_ptr<parvis::Session> cuda[2], cpu[2];
  const Options o = options(2, tokens, 1, true);
  Status s;
  for (int i = 0; i < 2 && s.ok(); i++) {
    s = seated(*both.cuda, o, cuda[i]);
    if (s.ok()) s = seated(*both.cpu, o, cpu[i]);
  }
  for (size_t k = 0; k < table.size() && s.ok(); k++)
    for (size_t i = 0; i < 2 && s.ok(); i++) {
      Rule rule;
      rule.guidanceScale = 1.0f + static_cast<float>((k / 3 + i) % 8) / 8;
      rule.topK = k % 2 ? 20 : 0;
      s = company::step(*cuda[i], o, table[k], rule, cancel);
      if (s.ok()) s = company::step(*cpu[i], o, table[k], rule, cancel);
    }
  bool same = s.ok();
  for (int i = 0; i < 2 && same; i++) {
    std::vector<int32_t> a, b;
    same = company::readTokens(*cuda[i], o, a).ok() && company::readTokens(*cpu[i], o, b).ok() && a == b;
  }
  cases::check(same, "rules that change with the steps, two sessions in turn %s", s.message.c_str());
}

// The same tables twice: the second half of the sequence is drawn again by replayed graphs, after positions beyond the
// first table.
void far(const Both& both) {
  Options o = options(1, 4, 1, false);
  std::vector<Table> table;
  for (int i = 0; i < 4; i++)
    table.push_back({Line{i == 0 ? -1 : i - 1, i, i == 0 ? -1 : 100 * i, i == 0 ? -1 : 9000 + i, i + 1, i}});
  const Results a = run(*both.cpu, o, table, {}), b = run(*both.cuda, o, table, {});
  cases::check(a.status.ok() && b.status.ok() && a.tokens == b.tokens, "cells far out %s", b.status.message.c_str());
}

size_t freeMemory() {
  size_t free = 0, total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? free : 0;
}

// A session works in what the last one of its shape has left, graphs included, and nothing of that one shows. What is
// free is exact on the SIMT layer alone: a device hands memory out by the megabyte.
#if defined(__CUDACC__)
constexpr bool exact = false;
#else
constexpr bool exact = true;
#endif
// `elsewhere` runs the same where no session has been, or on the CPU.
using Run = std::function<Results(const Options&, const std::vector<Table>&, const Rule&)>;
void kept(const Both& both, int tokens, const Run& elsewhere) {
  const size_t before = freeMemory();
  const Options four = options(2, tokens, 4, true);
  const auto table = steps(4, tokens, 4, false);
  Rule rule;
  rule.guidanceScale = 2;
  const Results first = run(*both.cuda, four, table, rule), wanted = elsewhere(four, table, rule);
  const size_t after = freeMemory();
  cases::check(first.status.ok() && (!exact || after < before), "a session leaves its memory to the next one");
  Options other = four;
  other.seeds = {901, 902};
  other.classIds = {3, 1};
  const Results otherWanted = elsewhere(other, table, rule);
  bool same = first.tokens == wanted.tokens && otherWanted.tokens != wanted.tokens;
  for (int i = 0; i < 2; i++)
    same = same && run(*both.cuda, four, table, rule).tokens == wanted.tokens &&
           run(*both.cuda, other, table, rule).tokens == otherWanted.tokens;
  cases::check(same, "other classes and seeds in the same memory");
  rule.topK = 5;
  cases::check(run(*both.cuda, other, table, rule).tokens == elsewhere(other, table, rule).tokens,
               "another rule in the same memory");
  other.known = wanted.tokens;
  for (size_t i = 4; i < other.known.size(); i += 3) other.known[i] = -1;
  cases::check(run(*both.cuda, other, table, rule).tokens == elsewhere(other, table, rule).tokens,
               "known tokens in the same memory");
  cases::check(!exact || freeMemory() == after, "and no memory beside it");

  Rule score = rule;
  score.mode = Mode::score;
  other.known = wanted.tokens;
  const Results found = run(*both.cuda, other, table, score), expected = elsewhere(other, table, score);
  cases::check(found.status.ok() && worst(found.logProbs, expected.logProbs, false) < 1e-4,
               "scores in the same memory");
  cases::check(run(*both.cuda, four, table, rule).tokens == elsewhere(four, table, rule).tokens,
               "and tokens after scores");

  // One that breaks off in the middle leaves what the next one finds as new.
  const parvis::Cancel cancel{false};
  std::unique_ptr<parvis::Session> session;
  Status s = seated(*both.cuda, four, session);
  for (size_t i = 0; i < 3 && s.ok(); i++) s = company::step(*session, four, table[i], rule, cancel);
  session.reset();
  cases::check(s.ok() && (!exact || freeMemory() == after) &&
                   run(*both.cuda, four, table, rule).tokens == elsewhere(four, table, rule).tokens,
               "after a session that broke off %s", s.message.c_str());

  // Two at once: the later to end is kept; then one of another shape takes its place.
  std::unique_ptr<parvis::Session> second;
  s = seated(*both.cuda, four, session);
  if (s.ok()) s = seated(*both.cuda, four, second);
  session.reset();
  second.reset();
  cases::check(s.ok() && (!exact || freeMemory() == after), "of two sessions one is kept %s", s.message.c_str());
  const Options larger = options(2, tokens, 6, true);
  s = seated(*both.cuda, larger, session);
  session.reset();
  cases::check(s.ok() && (!exact || freeMemory() < after), "one of another shape takes its place %s",
               s.message.c_str());

#if !defined(__CUDACC__)  // a device has too much memory to fill it
  Options wide = options(2, tokens, 4, true);
  wide.slots = 40000;
  s = both.cuda->createSession(wide.session(), session);
  const size_t left = freeMemory();
  session.reset();
  wide.slots = static_cast<int>(static_cast<double>(wide.slots) * 0.75 * static_cast<double>(before) /
                                static_cast<double>(before - left));
  for (int i = 0; i < 2 && s.ok(); i++) {  // the second is another shape: only one of them fits
    wide.slots += i;
    s = both.cuda->createSession(wide.session(), session);
    session.reset();
  }
  cases::check(s.ok() && left < before && freeMemory() < before / 2,
               "what is kept goes where another session needs the room %s", s.message.c_str());
  s = both.cuda->createSession(wide.session(), session);
  session.reset();
  void* p = nullptr;
  cases::check(s.ok() && cudaMalloc(&p, before / 2) == cudaErrorMemoryAllocation, "which is not to be had otherwise");
  cudaGetLastError();
#endif
}

// ---- what may go wrong --------------------------------------------------------------------------------------

#if !defined(__CUDACC__)
// What one backend keeps goes where another on the same device needs the room, also while that one works. The large
// sessions run no step: to the layer each launch costs time by the memory that is taken.
void givenUp(const Checkpoint& checkpoint, const parvis::TransformerModel& m) {
  const Both one = load(checkpoint, m, Precision::bfloat16), other = load(checkpoint, m, Precision::bfloat16);
  parvis::cuda::Device(0).reclaimKept(true);  // what those before have kept
  const size_t before = freeMemory();
  Options wide = options(2, 12, 4, true);
  wide.slots = 40000;
  std::unique_ptr<parvis::Session> session;
  const auto make = [&](const Both& both) {
    const Status s = both.cuda->createSession(wide.session(), session);
    session.reset();
    return s;
  };
  Status s = one.cuda->createSession(wide.session(), session);
  const size_t left = freeMemory();
  session.reset();
  wide.slots = static_cast<int>(static_cast<double>(wide.slots) * 0.75 * static_cast<double>(before) /
                                static_cast<double>(before - left));
  if (s.ok()) s = make(one);
  const size_t kept = freeMemory();
  cases::check(s.ok() && kept < before / 2 && parvis::cuda::reclaimableBytes(0) == before - kept &&
                   parvis::cuda::reclaimableBytes(1) == 0,
               "a session keeps most of the memory %s", s.message.c_str());
  s = make(other);
  cases::check(s.ok() && freeMemory() == kept && parvis::cuda::reclaimableBytes(0) == before - kept,
               "which another backend takes where it needs it %s", s.message.c_str());
  s = make(one);
  cases::check(s.ok() && freeMemory() == kept, "and the first one again %s", s.message.c_str());

  const auto table = steps(4, 12, 4, false);
  const Options narrow = options(2, 12, 4, true);
  const Results wanted = run(*one.cuda, narrow, table, {});
  int drawn = 0, made = 0;
  std::thread beside([&] {
    for (int i = 0; i < 3; i++) {
      const Results r = run(*one.cuda, narrow, table, {});
      drawn += r.status.ok() && r.tokens == wanted.tokens;
    }
  });
  for (int i = 0; i < 3; i++) {  // gives up what the other thread keeps whenever it keeps something
    wide.slots += i;
    made += make(other).ok();
    parvis::cuda::Device(0).reclaimKept(true);
  }
  beside.join();
  cases::check(wanted.status.ok() && drawn == 3 && made == 3, "while the first one works: %d drawn, %d made", drawn,
               made);
}
#endif

void errors(const Both& both, const Checkpoint& checkpoint, const parvis::TransformerModel& m) {
  const auto table = steps(4, 16, 4, false);
  parvis::Cancel cancel{false};
  const Rule rule;
  std::unique_ptr<parvis::Session> session;
  const Options one = options(1, 16, 4, true);
  Status s = seated(*both.cuda, one, session);
  const auto ran = [&](const Line& line) { return company::step(*session, one, {line}, rule, cancel); };
  Status e = ran(table[1][0]);
  cases::check(s.ok() && e.code == Code::invalidOption && e.message.find("not known yet") != std::string::npos,
               "a token read before it is drawn: %s", e.message.c_str());
  Line line = table[0][0];
  line.slot = 16;
  e = ran(line);
  cases::check(e.code == Code::invalidOption, "a slot outside the cache: %s", e.message.c_str());
  cancel = true;
  e = ran(table[0][0]);
  cases::check(e.code == Code::cancelled, "cancelled before a step");
  cancel = false;
  e = ran(table[0][0]);
  cases::check(e.ok(), "and goes on after it %s", e.message.c_str());
  session.reset();

  e = both.cuda->createSession(options(64, 1 << 24, 1, true).session(), session);  // more than any device has
  cases::check(e.code == Code::outOfMemory && e.message.find("need") != std::string::npos &&
                   e.message.find("free on GPU 0") != std::string::npos,
               "too much: %s", e.message.c_str());
  e = seated(*both.cuda, one, session);
  cases::check(e.ok(), "and room for another afterwards");

  std::shared_ptr<parvis::Transformer> t;
  cancel = true;
  e = parvis::cuda::CudaTransformer::load(std::make_shared<parvis::cuda::Device>(0), checkpoint.file,
                                          checkpoint.tensors, m, Precision::bfloat16, cancel, t);
  cases::check(e.code == Code::cancelled && !t, "loading cancelled");
  cancel = false;
  e = parvis::cuda::CudaTransformer::load(std::make_shared<parvis::cuda::Device>(99), checkpoint.file,
                                          checkpoint.tensors, m, Precision::bfloat16, cancel, t);
  cases::check(e.code == Code::deviceUnavailable && !t, "a device that is not there: %s", e.message.c_str());
  auto other = checkpoint.tensors;
  other[5].parts[0].shape[0]++;
  e = parvis::cuda::CudaTransformer::load(std::make_shared<parvis::cuda::Device>(0), checkpoint.file, other, m,
                                          Precision::bfloat16, cancel, t);
  cases::check(e.code == Code::badCheckpoint, "another shape: %s", e.message.c_str());
  other = checkpoint.tensors;
  other.back().parts[0].offset += 4;
  e = parvis::cuda::CudaTransformer::load(std::make_shared<parvis::cuda::Device>(0), checkpoint.file, other, m,
                                          Precision::bfloat16, cancel, t);
  cases::check(e.code == Code::badCheckpoint, "a file that ends early: %s", e.message.c_str());
  parvis::TransformerModel wide = m;
  wide.headSize = 132;
  e = parvis::cuda::CudaTransformer::load(std::make_shared<parvis::cuda::Device>(0), checkpoint.file,
                                          checkpoint.tensors, wide, Precision::bfloat16, cancel, t);
  cases::check(e.code == Code::deviceUnavailable && e.message.find("head size") != std::string::npos,
               "a head size beyond the kernels': %s", e.message.c_str());
  const Checkpoint damaged(m, true);
  const Both nan = load(damaged, m, Precision::bfloat16);
  const Results r = run(*nan.cuda, options(1, 16, 4, true), table, rule);
  cases::check(r.status.code == Code::nonFinite, "weights that are NaN: %s", r.status.message.c_str());
}

// Stored types and layouts: halves, bfloat16, and a matrix stored the other way round.
void stored(const parvis::TransformerModel& m) {
  const Checkpoint c(m);
  const Both plain = load(c, m, Precision::bfloat16);
  // The same numbers, converted: tensor i as float16, bfloat16 or float32 in turn, every fourth transposed.
  std::vector<uint8_t> bytes;
  std::FILE* f = std::fopen(c.file.c_str(), "rb");
  std::vector<parvis::WeightSource> tensors = c.tensors;
  for (size_t i = 0; i < tensors.size(); i++) {
    parvis::TensorSource& t = tensors[i].parts[0];
    size_t count = 1;
    for (const int64_t d : t.shape) count *= static_cast<size_t>(d);
    std::vector<float> v(count), turned(count);
    std::fseek(f, static_cast<long>(t.offset), SEEK_SET);
    if (std::fread(v.data(), 4, count, f) != count) return;
    if (i % 4 == 3 && t.shape.size() == 2) {
      for (int64_t r = 0; r < t.shape[0]; r++)
        for (int64_t k = 0; k < t.shape[1]; k++)
          turned[static_cast<size_t>(k * t.shape[0] + r)] = v[static_cast<size_t>(r * t.shape[1] + k)];
      v = turned;
      t.strides = {1, t.shape[0]};
    }
    t.dtype = i % 3 == 0 ? parvis::DType::bfloat16 : i % 3 == 1 ? parvis::DType::float32 : parvis::DType::float16;
    t.offset = bytes.size();
    bytes.resize(bytes.size() + count * parvis::byteSize(t.dtype));
    parvis::convertFloats(v.data(), parvis::DType::float32, bytes.data() + t.offset, t.dtype, count);
  }
  std::fclose(f);
  char name[] = "/tmp/parvis-stored-XXXXXX";
  f = fdopen(mkstemp(name), "wb");
  std::fwrite(bytes.data(), 1, bytes.size(), f);
  std::fclose(f);
  const parvis::Cancel cancel{false};
  std::shared_ptr<parvis::Transformer> cpu, cuda;
  Status s = cpuBackend->loadTransformer(name, tensors, m, Precision::bfloat16, cancel, cpu);
  if (s.ok())
    s = parvis::cuda::CudaTransformer::load(std::make_shared<parvis::cuda::Device>(0), name, tensors, m,
                                            Precision::bfloat16, cancel, cuda);
  unlink(name);
  if (!s.ok()) return cases::check(false, "loading mixed types: %s", s.message.c_str());
  scores({cpu, cuda}, "stored in three types, some transposed", 1, 4, 8, false, true, 1e-2);
}

// What other families of models have: LayerNorm, biases, GELU, learned positions, a norm of the embeddings, three axes
// of rotation or none.
void flagged() {
  parvis::TransformerModel m = small();
  m.headSize = 40, m.positions = 24;
  for (const bool all : {true, false}) {
    m.norm = all ? parvis::NormKind::layer : parvis::NormKind::rms;
    m.activation = parvis::Activation::gelu;
    m.bias = all;
    m.embeddingNorm = true;
    m.rotationPairs[0] = all ? 4 : 0, m.rotationPairs[1] = all ? 6 : 0, m.rotationPairs[2] = all ? 7 : 0;
    const Checkpoint checkpoint(m);
    const char* name = all ? "LayerNorm, biases, GELU, positions, three axes" : "RMSNorm, GELU, positions, no axes";
    for (const Precision precision : {Precision::float32, Precision::bfloat16}) {
      const Both both = load(checkpoint, m, precision);
      const double tolerance = precision == Precision::float32 ? 1e-5 : 1e-2;
      scores(both, name, 2, 4, 16, false, true, tolerance);
      scores(both, name, 3, 4, 24, true, true, tolerance);
    }
  }
}

}  // namespace

int main(int, char** argv) {
  const char* machine = std::getenv("PARVIS_SIMT");
  setenv("PARVIS_SIMT", (std::string(machine ? machine : "") + ",memory=256M,seed=" + argv[1]).c_str(), 1);
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  cpuBackend = parvis::createCpuBackend(1);
  const parvis::TransformerModel m = small();
  const Checkpoint checkpoint(m);
  Rule rule;
  rule.guidanceScale = 1.5f;
  {
    const Both both = load(checkpoint, m, Precision::float32);
    scores(both, "float32", 2, 4, 16, false, true, 1e-5);
    scores(both, "float32", 1, 4, 16, true, false, 1e-5);
    tables(both, "float32", 1e-5);
    draws(both, "float32", 2, 4, 24, rule);
    profiles(both, "float32");
    rule.temperature = 0.8f, rule.topK = 30, rule.topP = 0.9f;
    draws(both, "float32", 1, 1, 8, rule);
    rule.temperature = 0;
    draws(both, "float32", 1, 4, 16, rule);
    rules(both, 24);
    far(both);
    const Both another = load(checkpoint, m, Precision::float32);
    kept(another, 24, [&](const Options& o, const std::vector<Table>& table, const Rule& rule) {
      return run(*another.cpu, o, table, rule);
    });
  }
  {
    const Both both = load(checkpoint, m, Precision::int8);
    scores(both, "int8", 2, 4, 16, false, true, 1e-2);
    scores(both, "int8", 3, 4, 24, true, true, 1e-2);  // 144 rows
    profiles(both, "int8");
    batches(both, 4, 16, 3);  // 24 rows
    batches(both, 4, 16, 5);  // 40 rows: tiles
    tunings(checkpoint, m, Precision::int8, 2);
  }
  {
    const Both both = load(checkpoint, m, Precision::bfloat16);
    scores(both, "bfloat16", 2, 4, 16, false, true, 1e-2);
    scores(both, "bfloat16", 3, 4, 24, true, true, 1e-2);   // 144 rows
    scores(both, "bfloat16", 1, 4, 40, true, false, 1e-2);  // 80 queries of a key
    tables(both, "bfloat16", 1e-2);
    profiles(both, "bfloat16");
    batches(both, 4, 16, 3);  // 24 rows
    batches(both, 4, 16, 9);  // 72 rows: tiles
    passes(both, "bfloat16", 1, 16, true);
    passes(both, "bfloat16", 4, 24, false);
    kept(load(checkpoint, m, Precision::bfloat16), 12,
         [&](const Options& o, const std::vector<Table>& table, const Rule& rule) {
           return run(*load(checkpoint, m, Precision::bfloat16).cuda, o, table, rule);
         });
    overlaps(checkpoint, m);
    tunings(checkpoint, m, Precision::bfloat16, 4);
#if !defined(__CUDACC__)  // a device has too much memory to fill it
    givenUp(checkpoint, m);
#endif
    errors(both, checkpoint, m);
  }
  stored(m);
  flagged();
  return cases::failures > 0;
}
