// When the blocks of one layer start, are over their wait and end, in a step of XXL with n = 4 whose kernels overlap:
// who has a place when, and who waits for whom. Built of the same sources as the backend, with PARVIS_TRACE.
//   trace [--out FILE] [--parts trace:MODEL:N]     the other options of measure are passed over
// One JSON object: rows, one for each kernel of the middle layer, in microseconds from the first block's start. first
// and last: of its blocks. Two rows may overlap: that is what is looked at.
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>

#include "../../cuda/session.h"
#include "../../cuda/trace.cuh"
#include "../../cuda/transformer.h"
#include "../../test/cuda/official.h"
#include "measuring.h"

using namespace measuring;
using namespace parvis::cuda;
using parvis::Status;

namespace {

constexpr uint32_t most = 1 << 18;

struct Part {
  std::string name;
  std::vector<TraceEvent> events;
};

// Events of one source to those of its launches: a launch's blocks are over their wait before the next one's are.
std::vector<Part> launches(const char* name, std::vector<TraceEvent> events) {
  std::stable_sort(events.begin(), events.end(),
                   [](const TraceEvent& a, const TraceEvent& b) { return a.waited < b.waited; });
  std::vector<Part> all;
  std::map<uint32_t, size_t> open;  // by the number of blocks: the launch that is not whole
  for (const TraceEvent& e : events) {
    const auto found = open.find(e.blocks);
    const bool isNew = found == open.end() || all[found->second].events.size() == e.blocks;
    if (isNew) {
      open[e.blocks] = all.size();
      all.push_back({name, {}});
    }
    all[open[e.blocks]].events.push_back(e);
  }
  return all;
}

void run(Checked& check, Json& fields, const char* name, int n) {
  const official::Size* const size = official::sizeOf(name);
  if (!size || n < 1 || official::tokens % n != 0) return check.fail("no such model, or not a number of tokens");
  const auto device = std::make_shared<Device>(0);
  Status s = device->use();
  const parvis::TransformerModel m = official::model(*size);
  const official::Weights weights(official::tensorsOf(m));
  const parvis::Cancel never{false};
  std::shared_ptr<parvis::Transformer> loaded;
  if (s.ok())
    s = CudaTransformer::load(device, weights.file, weights.weights, m, parvis::Precision::bfloat16, never, loaded);
  if (!s.ok()) return check.fail(s.message);
  company::Options o;
  o.classIds = {1}, o.seeds = {1};
  o.guided = true, o.slots = o.tokens = official::tokens, o.maxRows = n;
  company::Rule rule;
  rule.guidanceScale = 1.5f;
  const auto steps = official::steps(n);
  std::unique_ptr<parvis::Session> session;
  s = company::seated(*loaded, o, session);
  const size_t middle = steps.size() / 2;
  for (size_t i = 0; i < middle && s.ok(); i++) s = company::step(*session, o, steps[i], rule, never);
  if (!s.ok()) return check.fail(s.message);
  check(cudaStreamSynchronize(device->stream()), "running steps");

  Memory memory;
  TraceEvent* const events[2] = {memory.take<TraceEvent>(check, most), memory.take<TraceEvent>(check, most)};
  uint32_t* const counts = memory.take<uint32_t>(check, 2);
  if (!check.ok()) return;
  check(cudaMemset(counts, 0, 8), "clearing");
  check(traceProjections({events[0], counts, most}), "tracing");
  check(traceAttention({events[1], counts + 1, most}), "tracing");
  s = company::step(*session, o, steps[middle], rule, never);
  if (!s.ok()) return check.fail(s.message);
  check(cudaStreamSynchronize(device->stream()), "running a step");
  check(traceProjections({}), "tracing");
  check(traceAttention({}), "tracing");
  std::vector<Part> all;
  for (const int of : {0, 1}) {
    uint32_t count = 0;
    check(cudaMemcpy(&count, counts + of, 4, cudaMemcpyDeviceToHost), "reading the trace");
    std::vector<TraceEvent> found(std::min(count, most));
    check(cudaMemcpy(found.data(), events[of], found.size() * sizeof(TraceEvent), cudaMemcpyDeviceToHost),
          "reading the trace");
    if (!check.ok()) return;
    for (Part& p : launches(of == 0 ? "project" : "attend", std::move(found))) all.push_back(std::move(p));
  }
  const auto waitOf = [](const Part& p) { return p.events.front().waited; };
  std::stable_sort(all.begin(), all.end(), [&](const Part& a, const Part& b) { return waitOf(a) < waitOf(b); });
  const size_t perLayer = 5, first = static_cast<size_t>(m.layers / 2) * perLayer;
  if (all.size() < static_cast<size_t>(m.layers) * perLayer + 1)
    return check.fail("the trace has " + std::to_string(all.size()) + " launches");
  const char* const names[] = {"qkv", "attend", "wo", "gateUp", "down"};
  uint64_t zero = ~uint64_t{0};
  for (const TraceEvent& e : all[first].events) zero = std::min(zero, e.started);
  std::vector<std::string> rows;
  for (size_t i = 0; i < perLayer; i++) {
    const Part& p = all[first + i];
    const auto span = [&](uint64_t TraceEvent::*time, bool last) {
      const auto less = [&](const TraceEvent& a, const TraceEvent& b) { return a.*time < b.*time; };
      const TraceEvent& e = last ? *std::max_element(p.events.begin(), p.events.end(), less)
                                 : *std::min_element(p.events.begin(), p.events.end(), less);
      return (static_cast<double>(e.*time) - static_cast<double>(zero)) / 1000;
    };
    rows.push_back(Json()
                       .text("kernel", p.name == "attend" ? p.name : names[i])
                       .number("blocks", static_cast<double>(p.events.size()))
                       .number("startUs", span(&TraceEvent::started, false))
                       .number("lastStartUs", span(&TraceEvent::started, true))
                       .number("waitedUs", span(&TraceEvent::waited, false))
                       .number("lastWaitedUs", span(&TraceEvent::waited, true))
                       .number("firstDoneUs", span(&TraceEvent::done, false))
                       .number("doneUs", span(&TraceEvent::done, true))
                       .done());
  }
  fields.text("model", name).number("n", n).raw("rows", Json::list(rows, ",\n    "));
}

}  // namespace

int main(int count, char** arguments) {
  Results results;
  std::string part = "trace:XXL:4";
  for (int i = 1; i + 1 < count; i += 2) {
    if (std::strcmp(arguments[i], "--out") == 0) results.file = arguments[i + 1];
    if (std::strcmp(arguments[i], "--parts") == 0) part = arguments[i + 1];
  }
  const size_t first = part.find(':'), second = part.rfind(':');
  const std::string model = second > first ? part.substr(first + 1, second - first - 1) : "";
  const int n = second > first ? std::atoi(part.c_str() + second + 1) : 0;
  results.head = "\"what\": \"a layer, block by block\"";
  results.part(part, [&](Checked& check, Json& fields) { run(check, fields, model.c_str(), n); });
  std::fputs(results.json().c_str(), stdout);
  return results.problems() > 0;
}
