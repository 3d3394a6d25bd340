// Drawing a token from logits: guidance, temperature, top-k, top-p, draw. The arithmetic is that of
// include/parvis/sampling.h, to the bit the same on every backend, so this file is compiled without contraction.
// Selection works on integers (the ordered bit pattern of a float, and integer probabilities) by radix passes:
// no sort, no order of summation to agree on. Compiled once for each instruction set, like unit.cc.
#include "../kernels.h"
#include "parvis/sampling.h"

namespace {

using parvis::cpu::Draw;

// Unsigned integers in the order of the floats.
inline uint32_t ordered(float f) {
  uint32_t u;
  __builtin_memcpy(&u, &f, 4);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}

void guideAll(const Draw& d) {
  if (d.unconditional)
    for (int i = 0; i < d.vocabulary; i++)
      d.logits[i] = parvis::guide(d.conditional[i], d.unconditional[i], d.guidance);
  else
    for (int i = 0; i < d.vocabulary; i++) d.logits[i] = d.conditional[i];
}

// Index of the largest logit (the first of equals), or -1 where one is NaN or infinite.
int32_t largest(const float* l, int count) {
  float sum = 0, most = l[0];
  for (int i = 0; i < count; i++) {
    sum += l[i] - l[i];  // 0, or NaN for ever
    most = l[i] > most ? l[i] : most;
  }
  if (!(sum == 0)) return -1;
  for (int i = 0; i < count; i++)
    if (l[i] == most) return i;
  return -1;
}

// Ordered pattern of the k-th largest logit.
uint32_t kthLargest(const float* l, int count, int k) {
  uint32_t prefix = 0;
  int left = k;
  for (int shift = 24; shift >= 0; shift -= 8) {
    int histogram[256] = {};
    const uint64_t mask = shift == 24 ? 0 : ~0ull << (shift + 8);
    for (int i = 0; i < count; i++) {
      const uint32_t key = ordered(l[i]);
      if (((key ^ prefix) & mask) == 0) histogram[key >> shift & 255]++;
    }
    int digit = 255;
    while (digit > 0 && histogram[digit] < left) left -= histogram[digit--];
    prefix |= static_cast<uint32_t>(digit) << shift;
  }
  return prefix;
}

// Zeroes the weights outside the smallest set of likeliest tokens whose sum exceeds p (that last token is kept).
// Order: by logit, equals by index. A token stays where the sum of those before it is at most p of the total.
void keepTopP(const Draw& d, uint64_t total) {
  const uint64_t limit = static_cast<uint64_t>(static_cast<double>(d.rule.topP) * static_cast<double>(total));
  uint64_t before = 0;
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    uint64_t histogram[256] = {};
    const uint64_t mask = shift == 24 ? 0 : ~0ull << (shift + 8);
    for (int i = 0; i < d.vocabulary; i++) {
      const uint32_t key = ordered(d.logits[i]);
      if (((key ^ prefix) & mask) == 0) histogram[key >> shift & 255] += d.weights[i];
    }
    uint64_t sum = before;
    int last = 255;
    for (int digit = 255; digit >= 0; digit--) {
      if (histogram[digit] == 0) continue;
      if (sum > limit) break;
      last = digit;
      before = sum;
      sum += histogram[digit];
    }
    prefix |= static_cast<uint32_t>(last) << shift;
  }
  for (int i = 0; i < d.vocabulary; i++) {
    const uint32_t key = ordered(d.logits[i]);
    if (key > prefix) continue;
    if (key < prefix || before > limit) d.weights[i] = 0;
    else before += d.weights[i];
  }
}

// The token that wins the race of the weights; the first of equals.
int32_t winner(const Draw& d) {
  float most = 0;
  int32_t best = 0;
  for (int first = 0; first < d.vocabulary; first += 4) {
    const int count = d.vocabulary - first < 4 ? d.vocabulary - first : 4;
    uint64_t any = 0;
    for (int i = 0; i < count; i++) any |= d.weights[first + i];
    if (any == 0) continue;
    const parvis::Philox bits = parvis::raceBits(d.seed, d.index, static_cast<uint32_t>(first / 4));
    for (int i = 0; i < count; i++) {
      const float place = parvis::race(d.weights[first + i], bits.word[i]);
      if (!(place > most)) continue;
      most = place;
      best = first + i;
    }
  }
  return best;
}

int32_t draw(const Draw& d) {
  guideAll(d);
  const int32_t best = largest(d.logits, d.vocabulary);
  if (best < 0 || d.rule.temperature == 0) return best;
  const float most = d.logits[best] / d.rule.temperature;
  if (!(most - most == 0)) return best;  // a temperature so small that the quotient overflows
  uint64_t total = 0;
  for (int i = 0; i < d.vocabulary; i++) {
    d.weights[i] = parvis::weightBelow(d.logits[i] / d.rule.temperature - most);
    total += d.weights[i];
  }
  if (d.rule.topK > 0 && d.rule.topK < d.vocabulary) {
    const uint32_t threshold = kthLargest(d.logits, d.vocabulary, d.rule.topK);
    total = 0;
    for (int i = 0; i < d.vocabulary; i++) {
      d.weights[i] = ordered(d.logits[i]) < threshold ? 0 : d.weights[i];
      total += d.weights[i];
    }
  }
  if (d.rule.topP < 1) {
    keepTopP(d, total);
    total = 0;
    for (int i = 0; i < d.vocabulary; i++) total += d.weights[i];
  }
  if (d.rule.mode == parvis::Mode::gumbel) return winner(d);
  const uint64_t target = parvis::scaleBits(parvis::drawBits(d.seed, d.index), total);
  uint64_t sum = 0;
  for (int i = 0; i < d.vocabulary; i++) {
    sum += d.weights[i];
    if (sum > target) return i;
  }
  return best;
}

bool score(const Draw& d, int32_t token, float* logProb) {
  guideAll(d);
  const int32_t best = largest(d.logits, d.vocabulary);
  if (best < 0) return false;
  const float most = d.logits[best];
  uint64_t total = 0;
  for (int i = 0; i < d.vocabulary; i++) total += parvis::weightBelow(d.logits[i] - most);
  *logProb = static_cast<float>(static_cast<double>(d.logits[token]) - most -
                                __builtin_log(static_cast<double>(total) * 0x1p-40));
  return true;
}

}  // namespace

#define PARVIS_JOIN2(a, b) a##b
#define PARVIS_JOIN(a, b) PARVIS_JOIN2(a, b)

namespace parvis::cpu {

extern const Sampler PARVIS_JOIN(sampler_, PARVIS_ISA);
const Sampler PARVIS_JOIN(sampler_, PARVIS_ISA) = {draw, score, guideAll};

}  // namespace parvis::cpu
