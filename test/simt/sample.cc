// Draws and scores of cuda/sample.cu against cpu/isa/sample.cc: the same token from equal logits, every time.
#include <algorithm>
#include <array>
#include <limits>

#include "../../cpu/kernels.h"
#include "cases.h"

namespace parvis::cpu {
extern const Sampler sampler_baseline;
}
using namespace parvis::cuda;
using cases::Array;
using parvis::cpu::sampler_baseline;

namespace {

struct Rule {
  const char* name;
  float scale, temperature, topP;
  int topK;
};

struct Batch {
  int vocabulary, predictions, tokensEach = 11;
  ptrdiff_t stride;
  Array<float> logits;    // conditional rows, then unconditional ones
  Array<float> original;  // the same before a draw that works in place
  Array<Drawing> table;
  Array<uint64_t> seeds;
  Array<int32_t> tokens;
  Array<float> logProbs, kept;
  Array<int> nonFinite;

  Batch(int vocabulary, int predictions, uint64_t seed, int kind, const Rule& rule)
      : vocabulary(vocabulary), predictions(predictions), stride((vocabulary + 31) / 32 * 32),
        tokens(static_cast<size_t>(predictions * tokensEach), -7), logProbs(tokens.size(), -7),
        kept(static_cast<size_t>(2 * predictions * vocabulary), -7), nonFinite(static_cast<size_t>(predictions)) {
    cases::Numbers numbers(seed);
    logits = numbers.normals(static_cast<size_t>(2 * predictions) * static_cast<size_t>(stride), 3);
    for (float& l : logits) {
      if (kind == 1) l = std::round(l);                    // many equals
      if (kind == 2) l = numbers.below(2) ? 0.0f : -0.0f;  // all equal, in two patterns
      if (kind == 3) l *= 30;                              // most weights are zero
      if (kind == 4)
        l = (numbers.below(2) ? 1.0f : -1.0f) * std::pow(10.0f, static_cast<float>(numbers.below(84) - 45)) *
            (1 + numbers.uniform());                                     // a range beyond floats
      if (kind == 5) l = static_cast<float>(numbers.below(9)) * 1e-45f;  // and one whose inverse is
    }
    original = logits;
    for (int i = 0; i < predictions; i++) {
      table.push_back({predictions - 1 - i,
                       numbers.below(tokensEach),
                       i,
                       rule.scale == 1 ? -1 : predictions + i,
                       i % 2,
                       rule.scale,
                       {parvis::Mode::sample, rule.temperature, rule.topK, rule.topP}});
      seeds.push_back(numbers.bits());
    }
  }

  Sampling sampling(int threads, bool inPlace = false) {
    logits = original;
    return {logits.data(),
            0,
            2 * predictions,
            stride,
            predictions,
            vocabulary,
            table.data(),
            seeds.data(),
            tokensEach,
            tokens.data(),
            logProbs.data(),
            kept.data(),
            2,
            nonFinite.data(),
            threads,
            inPlace,
            false,
            {}};
  }
  void mode(parvis::Mode mode) {
    for (Drawing& d : table) d.rule.mode = mode;
  }

  size_t at(int i) const {
    return static_cast<size_t>(table[static_cast<size_t>(i)].seat * tokensEach + table[static_cast<size_t>(i)].token);
  }
  const float* keptOf(int i) const {
    return kept.data() + (2 * table[static_cast<size_t>(i)].seat + table[static_cast<size_t>(i)].kept) * vocabulary;
  }

  parvis::cpu::Draw reference(int i, std::vector<float>& l, std::vector<uint64_t>& w) {
    const Drawing& d = table[static_cast<size_t>(i)];
    l.resize(static_cast<size_t>(vocabulary));
    w.resize(static_cast<size_t>(vocabulary));
    return {original.data() + d.conditional * stride,
            d.unconditional < 0 ? nullptr : original.data() + d.unconditional * stride,
            vocabulary,
            d.rule,
            d.guidance,
            seeds[static_cast<size_t>(d.seat)],
            static_cast<uint32_t>(d.token),
            l.data(),
            w.data()};
  }
};

constexpr Rule rules[] = {{"plain", 1, 1, 1, 0},
                          {"guided", 3, 1, 1, 0},
                          {"cold", 1, 0.3f, 1, 0},
                          {"hot", 1, 4, 1, 0},
                          {"greedy", 2, 0, 1, 0},
                          {"top-k 1", 1, 1, 1, 1},
                          {"top-k 5", 1, 1, 1, 5},
                          {"top-k of all", 1, 1, 1, 1 << 20},
                          {"top-p 0.1", 1, 1, 0.1f, 0},
                          {"top-p 0.9", 1, 1, 0.9f, 0},
                          {"tiny top-p", 1, 1, 1e-6f, 0},
                          {"all of them", 2, 0.7f, 0.8f, 40},
                          {"overflowing temperature", 1, 1e-45f, 1, 0}};
const char* kinds[] = {"normal", "equals", "zeros", "peaked", "enormous", "denormal"};

}  // namespace

int main(int, char** argv) {
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  std::vector<float> l;
  std::vector<uint64_t> w;
  int drawn = 0;
  constexpr parvis::Mode draws[] = {parvis::Mode::sample, parvis::Mode::gumbel};
  for (const Rule& rule : rules)
    for (int kind = 0; kind < (rule.scale == 1 ? 6 : 4); kind++) {  // guidance would make infinite what is enormous
      int wrong = 0, odd = 0;
      cudaError_t e = cudaSuccess;
      constexpr std::array<int, 4> batches[] = {{300, 64, 6, 0}, {97, 32, 6, 1}, {7, 32, 3, 1}, {1500, 128, 1, 0}};
      for (const auto& [vocabulary, threads, predictions, inPlace] : batches)
        for (const parvis::Mode mode : draws) {
          Batch b(vocabulary, predictions, static_cast<uint64_t>(vocabulary + kind), kind, rule);
          b.mode(mode);
          if (e == cudaSuccess) e = cases::finish(sample(b.sampling(threads, inPlace), mode, nullptr));
          b.mode(parvis::Mode::score);
          if (e == cudaSuccess) e = cases::finish(score(b.sampling(threads, inPlace), nullptr));
          b.mode(mode);
          for (int i = 0; i < predictions; i++) {
            const parvis::cpu::Draw d = b.reference(i, l, w);
            const size_t at = b.at(i);
            const int32_t token = sampler_baseline.draw(d);
            wrong += b.tokens[at] != token;
            drawn++;
            for (int v = 0; v < vocabulary; v++)
              wrong += cases::bits(b.keptOf(i)[v]) != cases::bits(l[static_cast<size_t>(v)]);
            float logProb = 0;
            sampler_baseline.score(d, token, &logProb);
            odd += std::fabs(logProb - b.logProbs[at]) > 1e-6f * std::fabs(logProb);
            b.tokens[at] = -7;
          }
          for (const int32_t t : b.tokens) odd += t != -7;  // nothing else is written
          for (const int bad : b.nonFinite) odd += bad;
        }
      cases::check(e == cudaSuccess && wrong == 0 && odd == 0, "%s, %s logits: %d draws differ, %d other faults",
                   rule.name, kinds[kind], wrong, odd);
    }
  // At the size of the official models, once.
  for (const parvis::Mode mode : draws) {
    Batch b(16384, 1, 5, 0, {"", 1.5f, 1, 0.95f, 2000});
    b.mode(mode);
    const cudaError_t e = cases::finish(sample(b.sampling(256), mode, nullptr));
    cases::check(e == cudaSuccess && b.tokens[b.at(0)] == sampler_baseline.draw(b.reference(0, l, w)), "16384 tokens");
  }
  // At that of the tokenizer of videos, with the authors' rules: the logits do not fit into shared memory.
  for (const Rule& rule : {Rule{"PAR", 1.15f, 1, 1, 8000}, Rule{"NBP", 1, 1, 0.9f, 16000}}) {
    for (const parvis::Mode mode : draws) {
      Batch b(64000, 1, 6, 0, rule);
      b.mode(mode);
      const cudaError_t e = cases::finish(sample(b.sampling(1024, true), mode, nullptr));
      cases::check(e == cudaSuccess && b.tokens[b.at(0)] == sampler_baseline.draw(b.reference(0, l, w)),
                   "64000 tokens, %s", rule.name);
    }
  }
  constexpr Rule plain{"plain", 1, 1, 1, 0};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    Batch b(100, 2, 1, 0, plain);
    b.original[40] = bad;
    const cudaError_t e = cases::finish(sample(b.sampling(64), parvis::Mode::sample, nullptr));
    const auto flag = [&](int i) { return b.nonFinite[static_cast<size_t>(b.table[static_cast<size_t>(i)].seat)]; };
    cases::check(e == cudaSuccess && flag(0) == 1 && flag(1) == 0 && b.tokens[b.at(0)] == -1 && b.tokens[b.at(1)] >= 0,
                 "a logit of %g is reported, the other sequence goes on", static_cast<double>(bad));
  }
  // Other modes, padding, and rows of logits that are not there now are passed over; each has its own rule and
  // guidance.
  {
    Batch b(200, 6, 9, 0, plain);
    b.table[0].rule.mode = parvis::Mode::score;
    b.table[1].token = -1;
    b.table[2].conditional = 12;
    b.table[3].unconditional = 9, b.table[3].guidance = 2.5f, b.table[3].kept = -1;
    b.table[4].rule.topK = 3;
    b.table[5].unconditional = 11;  // guidance 1: it is not looked at
    b.original[static_cast<size_t>(11 * b.stride)] = std::numeric_limits<float>::quiet_NaN();
    b.tokens[b.at(0)] = 17;
    Sampling s = b.sampling(64);
    cudaError_t e = cases::finish(sample(s, parvis::Mode::sample, nullptr));
    if (e == cudaSuccess) e = cases::finish(score(s, nullptr));
    int wrong = 0;
    for (int i = 3; i < 6; i++) {
      parvis::cpu::Draw d = b.reference(i, l, w);
      if (i == 5) d.unconditional = nullptr;
      wrong += b.tokens[b.at(i)] != sampler_baseline.draw(d);
    }
    float logProb = 0;
    sampler_baseline.score(b.reference(0, l, w), 17, &logProb);
    wrong += std::fabs(logProb - b.logProbs[b.at(0)]) > 1e-6f * std::fabs(logProb);
    for (const int32_t t : b.tokens) wrong += t == -7 ? 0 : 1;
    cases::check(e == cudaSuccess && wrong == 4, "a table of all sorts: %d differ", wrong - 4);
    s.firstRow = 4, s.rows = 1, s.logits += 4 * b.stride;
    std::fill(b.tokens.begin(), b.tokens.end(), -7);
    e = cases::finish(sample(s, parvis::Mode::sample, nullptr));
    size_t others = 0;
    for (const int32_t t : b.tokens) others += t != -7;
    cases::check(e == cudaSuccess && others == 1 && b.tokens[b.at(4)] != -7, "predictions of one chunk of logits: %zu",
                 others);
  }
  {
    Batch b(100, 2, 1, 0, plain);
    cases::check(sample(b.sampling(48), parvis::Mode::sample, nullptr) == cudaErrorInvalidValue,
                 "a block that is no whole number of warps is refused");
    Sampling s = b.sampling(64);
    s.vocabulary = s.stride = 60000;
    cases::check(score(s, nullptr) == cudaErrorInvalidValue, "a vocabulary that does not fit shared memory is refused");
  }
  for (const bool scores : {false, true}) {  // beside the draws the tables of the next step come, if they are written
    constexpr int depth = 3, stride = 200, end = stride - partEndInts;
    Array<int32_t> ring(depth * stride), ahead(stride, -1);
    for (size_t i = 0; i < ring.size(); i++) ring[i] = static_cast<int32_t>(i);
    Array<uint32_t> counter(1, 5);  // this step is number 4
    const auto endOf = [&](Array<int32_t>& of, int part) {
      return reinterpret_cast<PartEnd*>(of.data() + part * stride + end);
    };
    *endOf(ring, 2) = {{0, 40, 60, 70}, {33, 1, 0, 118}, 3, {}};  // as it was three steps ago
    Batch b(200, 2, 2, 0, plain);
    if (scores) {
      b.mode(parvis::Mode::score);
      std::fill(b.tokens.begin(), b.tokens.end(), 5);
    }
    Sampling s = b.sampling(64);
    s.ring = {ring.data(), depth, stride, counter.data(), ahead.data()};
    const auto run = [&] {
      return cases::finish(scores ? score(s, nullptr) : sample(s, parvis::Mode::sample, nullptr));
    };
    cudaError_t e = run();
    size_t come = static_cast<size_t>(std::count_if(ahead.begin(), ahead.end(), [](int32_t v) { return v != -1; }));
    endOf(ring, 2)->step = 6;
    if (e == cudaSuccess) e = run();
    for (int i = 0; i < end; i++) {
      const bool wanted = i < 33 || i == 40 || i >= 70;
      come += ahead[static_cast<size_t>(i)] != (wanted ? 2 * stride + i : -1);
    }
    cases::check(e == cudaSuccess && come == 0 && endOf(ahead, 0)->step == 6, "%s, tables brought ahead: %zu wrong",
                 scores ? "scores" : "draws", come);
  }
  std::fprintf(stderr, "%d draws\n", drawn);
  return cases::failures > 0;
}
