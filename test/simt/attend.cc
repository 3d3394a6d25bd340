// cuda/attend.cu, cuda/attend-rows.cu and the attention of cuda/plain.cu against the CPU backend's: groups over a
// cache, shared keys, all head sizes, full sequences.
#include <algorithm>

#include "reference.h"

using namespace parvis::cuda;
using namespace reference;

namespace {

struct Case {
  const char* name;
  int heads, kvHeads, headSize, streams, slots;
  std::vector<int> sees;  // of each row
};

// Random queries, keys and values, and what the CPU backend makes of them.
template <class E>
struct Problem {
  Array<parvis::Row> rows;
  Array<StreamRows> groups;
  Array<E> queries, keys, values, expected, out;
  Attention attention;

  explicit Problem(const Case& c) {
    cases::Numbers numbers(static_cast<uint64_t>(c.headSize * c.slots));
    const int count = static_cast<int>(c.sees.size()), width = paddedHead(c.headSize), group = c.heads / c.kvHeads;
    const int outStride = up(c.heads * c.headSize, 16);
    const int tiles = (count * group + tileQueries - 1) / tileQueries;
    std::vector<parvis::cpu::AttentionRow> meta;
    for (const int sees : c.sees) meta.push_back({-1, {0, 0, 0}, sees});
    for (int stream = 0; stream < c.streams; stream++) {
      groups.push_back({stream, stream * count, count, stream * tiles});
      for (const int sees : c.sees) rows.push_back({stream, 0, -1, {0, 0, 0}, -1, sees});
    }
    groups.push_back({0, 0, 0, 0});  // padding
    queries.resize(static_cast<size_t>(c.streams * count * c.heads * width));
    keys.resize(static_cast<size_t>(c.streams * c.kvHeads * c.slots * width));
    values = keys;
    const auto fill = [&](Array<E>& v, float scale) {
      for (size_t i = 0; i < v.size(); i++)
        if (static_cast<int>(i % static_cast<size_t>(width)) < c.headSize) convert(numbers.normal() * scale, v[i]);
    };
    fill(queries, 1.5f);
    fill(keys, 1);
    fill(values, 1);
    for (int d = 0; d < width; d++) {
      queries[static_cast<size_t>(d)] = 0;                        // a query that attends uniformly
      if (c.slots > 1) keys[static_cast<size_t>(width + d)] = 0;  // a key that every query scores 0
    }

    expected.resize(static_cast<size_t>(c.streams * count * outStride));
    out.resize(expected.size());
    const std::vector<float> cosine(static_cast<size_t>(c.headSize), 1), sine(cosine.size(), 0);  // no rotation
    std::vector<uint8_t> scratch(4 << 20);
    for (int stream = 0; stream < c.streams; stream++)
      for (int h = 0; h < c.kvHeads; h++) {
        CacheOf<E> cache(c.slots, c.headSize);
        for (int slot = 0; slot < c.slots; slot++)
          for (int d = 0; d < c.headSize; d++) {
            const int at = ((stream * c.kvHeads + h) * c.slots + slot) * width + d;
            cache.key(slot, d) = keys[static_cast<size_t>(at)];
            cache.value(slot, d) = values[static_cast<size_t>(at)];
          }
        const int columns = group * c.headSize;
        std::vector<float> qkv(static_cast<size_t>(count * columns));
        for (int i = 0; i < count; i++)
          for (int j = 0; j < columns; j++) {
            const int head = h * group + j / c.headSize;
            const int at = ((stream * count + i) * c.heads + head) * width + j % c.headSize;
            qkv[static_cast<size_t>(i * columns + j)] = value(queries[static_cast<size_t>(at)]);
          }
        kernels_baseline.attend[kind<E>]({qkv.data(),
                                          columns,
                                          meta.data(),
                                          count,
                                          c.headSize,
                                          group,
                                          0,
                                          0,
                                          0,
                                          cache.head(),
                                          {{0, c.headSize / 4, c.headSize / 4}, cosine.data(), sine.data()},
                                          expected.data() + stream * count * outStride + h * columns,
                                          outStride,
                                          scratch.data()});
      }
    // What lies behind the visible slots must not matter, not even NaN.
    const int longest = *std::max_element(c.sees.begin(), c.sees.end());
    for (size_t i = 0; i < keys.size(); i++)
      if (static_cast<int>(i / static_cast<size_t>(width) % static_cast<size_t>(c.slots)) >= longest) {
        convert(NAN, keys[i]);
        convert(NAN, values[i]);
      }
    attention = {{rows.data(), static_cast<int>(rows.size())},
                 groups.data(),
                 static_cast<int>(groups.size()),
                 count * group + 5,
                 1,
                 c.heads,
                 c.kvHeads,
                 c.headSize,
                 queries.data(),
                 {keys.data(), values.data(), c.slots},
                 out.data(),
                 outStride,
                 nullptr,
                 nullptr};
  }

  double offBy(cudaError_t e) const {
    std::vector<float> x, y;
    for (size_t i = 0; i < out.size(); i++) {
      x.push_back(value(out[i]));
      y.push_back(value(expected[i]));
    }
    return e == cudaSuccess ? relative(x, y) : 1e30;
  }
};

void attention(const Case& c) {
  Problem<uint16_t> problem(c);
  const int count = static_cast<int>(c.sees.size()), width = paddedHead(c.headSize), group = c.heads / c.kvHeads;
  const int outStride = up(c.heads * c.headSize, 16), tiles = (count * group + tileQueries - 1) / tileQueries;
  Array<uint16_t>&queries = problem.queries, &out = problem.out;
  Attention& a = problem.attention;
  // A row of the last stream by itself has the same bits.
  const auto alone = [&](int i, cudaError_t (*kernel)(const Attention&, parvis::cuda::StepStream)) {
    Array<uint16_t> one(static_cast<size_t>(outStride));
    const int stream = c.streams - 1, row = stream * count + i;
    const Array<StreamRows> only = {{stream, 0, 1, 0}};
    Attention b = a;
    b.rows = {problem.rows.data() + row, 1};
    b.groups = only.data();
    b.groupCount = 1;
    b.maxQueries = group;
    b.queries = queries.data() + row * c.heads * width;
    b.out = one.data();
    return cases::finish(kernel(b, nullptr)) == cudaSuccess &&
           std::equal(one.begin(), one.end(), out.begin() + row * outStride);
  };

  double off = problem.offBy(cases::finish(attendRows(a, nullptr)));
  cases::check(off < 8e-3, "%s, all keys in one block: %.2g off", c.name, off);
  cases::check(alone(count - 1, attendRows) && alone(count / 2, attendRows),
               "%s, all keys in one block: a row alone has the same bits", c.name);

  // Groups of other sizes are passed over.
  const Array<uint16_t> before = out;
  Attention other = a;
  other.leastQueries = count * group + 1;
  const bool ran =
      cases::finish(attendRows(other, nullptr)) == cudaSuccess && cases::finish(attend(other, nullptr)) == cudaSuccess;
  cases::check(ran && out == before, "%s: not of these sizes", c.name);

  Array<float> partial(attentionPartials(c.streams * tiles, c.kvHeads, c.headSize, c.slots), NAN);
  Array<uint32_t> counters(attentionCounters(c.streams * tiles, c.kvHeads));
  a.partial = partial.data();
  a.counters = counters.data();
  off = 0;
  for (int again = 0; again < 2; again++) {  // the counters are as they were
    std::fill(out.begin(), out.end(), static_cast<uint16_t>(0));
    off = std::fmax(off, problem.offBy(cases::finish(attend(a, nullptr))));
  }
  cases::check(off < 8e-3, "%s: %.2g off", c.name, off);
  cases::check(alone(count - 1, attend) && alone(count / 2, attend), "%s: a row alone has the same bits", c.name);

  // However the blocks of a split merge, and whatever is asked for before the wait.
  const Array<uint16_t> once = out;
  for (int i = 0; i < count; i++)  // what a step writes is not asked for before
    problem.rows[static_cast<size_t>(i)].slot = c.sees[static_cast<size_t>(i)] - 1;
  bool same = true;
  for (const bool clusters : {false, true}) {
    if (cases::isInterpreted() && !clusters) continue;
    Tuning tuning;
    tuning.clusters = clusters && cases::hasCapability9();
    std::fill(out.begin(), out.end(), static_cast<uint16_t>(0));
    same = same && cases::finish(attend(a, {nullptr, cases::hasCapability9(), tuning})) == cudaSuccess && out == once;
    tuning.earlyKeys = false;
    std::fill(out.begin(), out.end(), static_cast<uint16_t>(0));
    same = same && cases::finish(attend(a, {nullptr, false, tuning})) == cudaSuccess && out == once;
  }
  cases::check(same, "%s: the same bits in clusters, and with keys that come early", c.name);
}

// plain.cu: float32.
void plainAttention(const Case& c) {
  const Problem<float> problem(c);
  const double off = problem.offBy(cases::finish(attendPlain(problem.attention, nullptr)));
  cases::check(off < 1e-5, "float32, %s: %.2g off", c.name, off);
}

// Keys that are NaN or infinite are not taken for masked ones: no query that sees them gets a finite output.
template <class E, class Kernel>
void damagedKeys(const Case& c, const char* name, Kernel kernel) {
  const int width = paddedHead(c.headSize);
  const auto finiteOutputs = [&](float damage, bool everyKey) {
    Problem<E> problem(c);
    Array<float> partial(attentionPartials(problem.attention.groupCount, c.kvHeads, c.headSize, c.slots), NAN);
    Array<uint32_t> counters(attentionCounters(problem.attention.groupCount, c.kvHeads));
    problem.attention.partial = partial.data();
    problem.attention.counters = counters.data();
    for (size_t i = 0; i < problem.queries.size(); i += static_cast<size_t>(width)) convert(1.0f, problem.queries[i]);
    for (size_t i = 0; i < problem.keys.size(); i += static_cast<size_t>(everyKey ? width : width * c.slots))
      convert(damage, problem.keys[i]);
    const cudaError_t e = cases::finish(kernel(problem.attention, nullptr));
    const int columns = c.heads * c.headSize, stride = up(columns, 16);
    size_t finite = e == cudaSuccess ? 0 : 1;
    for (size_t i = 0; i < problem.out.size(); i++)
      finite += static_cast<int>(i) % stride < columns && std::isfinite(value(problem.out[i]));
    return finite;
  };
  cases::check(finiteOutputs(NAN, false) == 0, "%s, %s: one key is NaN", name, c.name);
  cases::check(finiteOutputs(INFINITY, false) == 0, "%s, %s: one key is infinite", name, c.name);
  cases::check(finiteOutputs(-INFINITY, true) == 0, "%s, %s: every score is minus infinity", name, c.name);
}

std::vector<int> full(int n, int groups) {  // the block-wise mask of design.md, section 1
  std::vector<int> sees;
  for (int x = 0; x < n; x++) sees.push_back(x + 1);
  for (int g = 1; g <= groups; g++)
    for (int i = 0; i < n; i++) sees.push_back(n + g * n);
  return sees;
}

}  // namespace

int main(int, char** argv) {
  cases::setSeed(std::strtoull(argv[1], nullptr, 10));
  attention({"head size 64, one token, one slot", 2, 2, 64, 1, 1, {1}});
  attention({"head size 64, a group of 4 in 40 slots", 2, 2, 64, 2, 40, {36, 36, 36, 36}});
  attention({"head size 64, a group of 16 in 300 slots", 2, 2, 64, 1, 300, std::vector<int>(16, 272)});
  attention({"head size 64, token by token in 129 slots", 3, 3, 64, 2, 200, {129}});
  attention({"head size 100, a group of 16 in 144 slots", 2, 2, 100, 1, 160, std::vector<int>(16, 144)});
  attention({"head size 128, two queries a key", 4, 2, 128, 1, 64, {33, 34, 35}});
  attention({"head size 32, full sequence of groups of 4", 1, 1, 32, 1, 40, full(4, 9)});
  attention({"head size 64, full sequence of groups of 16", 1, 1, 64, 1, 176, full(16, 10)});
  attention({"head size 16, a group of 4 in 40 slots", 2, 1, 16, 1, 40, {36, 36, 36, 36}});
  attention({"head size 80, causal group", 1, 1, 80, 1, 70, {66, 67, 68}});
  attention({"head size 96, a group of 4 in 70 slots", 1, 1, 96, 1, 70, {68, 68, 68, 68}});
  attention({"head size 48, causal group", 1, 1, 48, 1, 140, {131, 132, 133, 134}});
  attention({"head size 64, full sequences of groups of 4", 2, 2, 64, 3, 100, full(4, 22)});
  attention({"head size 100, full sequence of groups of 4, two queries a key", 4, 2, 100, 1, 90, full(4, 20)});
  attention({"head size 128, causal, three queries a key", 3, 1, 128, 2, 70, full(1, 68)});
  attention({"head size 32, full sequence of 576 slots", 1, 1, 32, 1, 576, full(4, 143)});
  attention({"head size 4, three queries a key", 6, 2, 4, 2, 9, {8, 9}});
  plainAttention({"head size 4, three queries a key", 6, 2, 4, 2, 9, {8, 9}});
  plainAttention({"head size 100, two queries a key, causal", 4, 2, 100, 2, 60, {1, 33, 57}});
  plainAttention({"head size 128, full sequence of groups of 4", 1, 1, 128, 1, 40, full(4, 9)});
  for (const Case& c : {Case{"a group of 4 in 40 slots", 2, 2, 64, 2, 40, {36, 36, 36, 36}},
                        Case{"a row in 300 slots", 1, 1, 32, 1, 300, {290}}}) {
    damagedKeys<uint16_t>(c, "attend", attend);
    damagedKeys<uint16_t>(c, "all keys in one block", attendRows);
    damagedKeys<float>(c, "float32", attendPlain);
  }
  cases::check(attend({}, nullptr) == cudaErrorInvalidValue, "nothing to do is refused");
  cases::check(attendRows({}, nullptr) == cudaErrorInvalidValue, "nothing to do is refused, all keys in one block");
  Attention odd{{nullptr, 1},          nullptr, 1, 1,       1,      1, 1, 200, nullptr,
                {nullptr, nullptr, 8}, nullptr, 0, nullptr, nullptr};
  cases::check(attend(odd, nullptr) == cudaErrorInvalidValue && attendRows(odd, nullptr) == cudaErrorInvalidValue,
               "a head size that was not built is refused");
  return cases::failures > 0;
}
