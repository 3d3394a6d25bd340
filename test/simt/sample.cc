// Draws and scores of cuda/sample.cu against cpu/isa/sample.cc: the same token from equal logits, every time.
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

struct Batch {
  int vocabulary, predictions, tokensEach = 11, rowsEach = 4;
  ptrdiff_t stride;
  Array<float> logits;  // conditional rows, then unconditional ones
  Array<Prediction> table;
  Array<parvis::Row> rows;  // of three steps; the last one is run
  Array<int> step = Array<int>(1, 2);
  Array<uint64_t> seeds;
  bool guided = false;

  Batch(int vocabulary, int predictions, uint64_t seed, int kind) : vocabulary(vocabulary), predictions(predictions), stride((vocabulary + 31) / 32 * 32) {
    cases::Numbers numbers(seed);
    logits = numbers.normals(static_cast<size_t>(2 * predictions) * static_cast<size_t>(stride), 3);
    for (float& l : logits) {
      if (kind == 1) l = std::round(l);             // many equals
      if (kind == 2) l = numbers.below(2) ? 0.0f : -0.0f;  // all equal, in two patterns
      if (kind == 3) l *= 30;                       // most weights are zero
      if (kind == 4) l = (numbers.below(2) ? 1.0f : -1.0f) * std::pow(10.0f, static_cast<float>(numbers.below(84) - 45)) * (1 + numbers.uniform());  // a range beyond floats
      if (kind == 5) l = static_cast<float>(numbers.below(9)) * 1e-45f;  // and one whose inverse is
    }
    for (int i = 0; i < predictions; i++) {
      table.push_back({predictions - 1 - i, numbers.below(rowsEach)});
      seeds.push_back(numbers.bits());
    }
    for (int i = 0; i < 3 * rowsEach; i++) rows.push_back({0, 0, 0, 0, 0, 0, i < 2 * rowsEach ? -1 : i % 5 + 3});
  }

  Sampling sampling(int threads, Array<int32_t>& tokens, Array<float>& logProbs, Array<float>& kept, Array<int>& nonFinite) {
    return {logits.data(), guided ? logits.data() + predictions * stride : nullptr, stride, predictions, vocabulary, table.data(),
            {rows.data(), rowsEach, step.data()}, seeds.data(), tokensEach,
            tokens.data(), logProbs.data(), kept.data(), nonFinite.data(), 1, 1, 1, 0, threads};
  }

  int position(int i) const { return rows[static_cast<size_t>(2 * rowsEach + table[static_cast<size_t>(i)].row)].predicts; }
  size_t at(int i) const { return static_cast<size_t>(table[static_cast<size_t>(i)].sequence * tokensEach + position(i)); }

  parvis::cpu::Draw reference(int i, const Sampling& s, std::vector<float>& l, std::vector<uint64_t>& w) {
    l.resize(static_cast<size_t>(vocabulary));
    w.resize(static_cast<size_t>(vocabulary));
    return {s.conditional + i * stride, s.unconditional ? s.unconditional + i * stride : nullptr, vocabulary, s.guidanceScale, s.temperature, s.topP, s.topK,
            seeds[static_cast<size_t>(table[static_cast<size_t>(i)].sequence)], static_cast<uint32_t>(position(i)), l.data(), w.data()};
  }
};

struct Rule {
  const char* name;
  float scale, temperature, topP;
  int topK;
};
constexpr Rule rules[] = {
    {"plain", 1, 1, 1, 0},       {"guided", 3, 1, 1, 0},         {"cold", 1, 0.3f, 1, 0},       {"hot", 1, 4, 1, 0},         {"greedy", 2, 0, 1, 0},
    {"top-k 1", 1, 1, 1, 1},     {"top-k 5", 1, 1, 1, 5},        {"top-k of all", 1, 1, 1, 1 << 20}, {"top-p 0.1", 1, 1, 0.1f, 0}, {"top-p 0.9", 1, 1, 0.9f, 0},
    {"tiny top-p", 1, 1, 1e-6f, 0}, {"all of them", 2, 0.7f, 0.8f, 40}, {"overflowing temperature", 1, 1e-45f, 1, 0}};
const char* kinds[] = {"normal", "equals", "zeros", "peaked", "enormous", "denormal"};

}  // namespace

int main(int, char** argv) {
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  std::vector<float> l;
  std::vector<uint64_t> w;
  int drawn = 0;
  for (const Rule& rule : rules)
    for (int kind = 0; kind < (rule.scale == 1 ? 6 : 4); kind++) {  // guidance would make infinite what is enormous
      int wrong = 0, odd = 0;
      cudaError_t e = cudaSuccess;
      constexpr std::array<int, 3> batches[] = {{300, 64, 6}, {97, 32, 6}, {7, 32, 3}, {1500, 128, 1}};
      for (const auto& [vocabulary, threads, predictions] : batches) {
        Batch b(vocabulary, predictions, static_cast<uint64_t>(vocabulary + kind), kind);
        b.guided = rule.scale != 1;
        const size_t tokens = static_cast<size_t>(predictions * b.tokensEach);
        Array<int32_t> out(tokens, -7);
        Array<float> logProbs(tokens, -7), kept(static_cast<size_t>(predictions * vocabulary));
        Array<int> nonFinite(1);
        Sampling s = b.sampling(threads, out, logProbs, kept, nonFinite);
        s.guidanceScale = rule.scale;
        s.temperature = rule.temperature;
        s.topP = rule.topP;
        s.topK = rule.topK;
        if (e == cudaSuccess) e = sample(s, nullptr);
        if (e == cudaSuccess) e = cases::finish(score(s, nullptr));
        for (int i = 0; i < predictions; i++) {
          const parvis::cpu::Draw d = b.reference(i, s, l, w);
          const size_t at = b.at(i);
          const int32_t token = sampler_baseline.draw(d);
          wrong += out[at] != token;
          drawn++;
          for (int v = 0; v < vocabulary; v++) wrong += cases::bits(kept[static_cast<size_t>(i * vocabulary + v)]) != cases::bits(l[static_cast<size_t>(v)]);
          float logProb = 0;
          sampler_baseline.score(d, token, &logProb);
          odd += std::fabs(logProb - logProbs[at]) > 1e-6f * std::fabs(logProb);
          out[at] = -7;
        }
        for (const int32_t t : out) odd += t != -7;  // nothing else is written
        odd += nonFinite[0];
      }
      cases::check(e == cudaSuccess && wrong == 0 && odd == 0, "%s, %s logits: %d draws differ, %d other faults", rule.name, kinds[kind], wrong, odd);
    }
  // At the size of the official models, once.
  {
    Batch b(16384, 1, 5, 0);
    b.guided = true;
    Array<int32_t> out(11, -7);
    Array<float> logProbs(11), kept(16384);
    Array<int> nonFinite(1);
    Sampling s = b.sampling(256, out, logProbs, kept, nonFinite);
    s.guidanceScale = 1.5f;
    s.topK = 2000;
    s.topP = 0.95f;
    const cudaError_t e = cases::finish(sample(s, nullptr));
    cases::check(e == cudaSuccess && out[b.at(0)] == sampler_baseline.draw(b.reference(0, s, l, w)), "16384 tokens");
  }
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    Batch b(100, 2, 1, 0);
    b.logits[40] = bad;
    Array<int32_t> out(22, -7);
    Array<float> logProbs(22), kept(200);
    Array<int> nonFinite(1);
    const Sampling s = b.sampling(64, out, logProbs, kept, nonFinite);
    const cudaError_t e = cases::finish(sample(s, nullptr));
    const size_t at = b.at(0), other = b.at(1);
    cases::check(e == cudaSuccess && nonFinite[0] == 1 && out[at] == -1 && out[other] >= 0, "a logit of %g is reported, the other sequence goes on", static_cast<double>(bad));
  }
  {
    Batch b(100, 2, 1, 0);
    Array<int32_t> out(22);
    Array<float> logProbs(22), kept(200);
    Array<int> nonFinite(1);
    Sampling s = b.sampling(48, out, logProbs, kept, nonFinite);
    cases::check(sample(s, nullptr) == cudaErrorInvalidValue, "a block that is no whole number of warps is refused");
    s = b.sampling(64, out, logProbs, kept, nonFinite);
    s.vocabulary = 60000;
    cases::check(score(s, nullptr) == cudaErrorInvalidValue, "a vocabulary that does not fit shared memory is refused");
  }
  std::fprintf(stderr, "%d draws\n", drawn);
  return cases::failures > 0;
}
