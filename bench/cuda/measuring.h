// What measurements on a device share: graphs that are replayed and timed by events, spreads of times, and JSON that is
// written after every part, so that a run that is cut short leaves what it had.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "../../cuda/platform.cuh"

namespace measuring {

// ---- JSON -----------------------------------------------------------------------------------------------------

class Json {
 public:
  Json& text(const char* name, const std::string& value) { return raw(name, quoted(value)); }
  Json& number(const char* name, double value) {
    char t[40];
    std::snprintf(t, sizeof t, "%.6g", value);
    return raw(name, std::isfinite(value) ? t : "null");
  }
  Json& flag(const char* name, bool value) { return raw(name, value ? "true" : "false"); }
  Json& raw(const char* name, const std::string& value) {
    fields_ += (fields_.empty() ? "" : ", ") + quoted(name) + ": " + value;
    return *this;
  }
  std::string done() const { return "{" + fields_ + "}"; }
  static std::string list(const std::vector<std::string>& items, const char* between = ", ") {
    std::string all;
    for (const std::string& item : items) all += (all.empty() ? "" : between) + item;
    return "[" + all + "]";
  }
  static std::string quoted(const std::string& s) {
    std::string t = "\"";
    for (const char c : s) {
      if (c == '"' || c == '\\') t += '\\';
      if (static_cast<unsigned char>(c) >= 32) t += c;
    }
    return t + "\"";
  }

 private:
  std::string fields_;
};

// ---- times ----------------------------------------------------------------------------------------------------

inline double now() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Spread {
  double median = NAN, least = NAN, greatest = NAN;
  Spread() = default;
  explicit Spread(std::vector<double> times) {
    if (times.empty()) return;
    std::sort(times.begin(), times.end());
    median = times[times.size() / 2], least = times.front(), greatest = times.back();
  }
  Spread over(double by) const {
    Spread s = *this;
    s.median /= by, s.least /= by, s.greatest /= by;
    return s;
  }
  std::string json() const {
    return Json().number("median", median).number("least", least).number("greatest", greatest).done();
  }
};

// The first error of a part; everything after it does nothing. Each part begins with a new one.
class Checked {
 public:
  bool ok() const { return error_.empty(); }
  const std::string& error() const { return error_; }
  void fail(const std::string& what) {
    if (ok()) error_ = what;
  }
  bool operator()(cudaError_t e, const char* doing) {
    if (e != cudaSuccess) fail(std::string(doing) + ": " + cudaGetErrorString(e));
    return ok();
  }

 private:
  std::string error_;
};

// Launches captured once, replayed and timed.
class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  ~Graph() {
    if (exec_) cudaGraphExecDestroy(exec_);
    if (graph_) cudaGraphDestroy(graph_);
  }
  cudaGraph_t graph() const { return graph_; }
  bool capture(Checked& check, cudaStream_t stream, const std::function<cudaError_t()>& enqueue) {
    // Once as it is: kernels are loaded when they are first used, and a capture is no time for that.
    if (!check(enqueue(), "launching") || !check(cudaStreamSynchronize(stream), "running")) return false;
    if (!check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing")) return false;
    const cudaError_t e = enqueue(), ended = cudaStreamEndCapture(stream, &graph_);
    return check(e, "launching") && check(ended, "capturing") && instantiate(check);
  }
  bool take(Checked& check, cudaGraph_t graph) {
    graph_ = graph;
    return instantiate(check);
  }
  // Milliseconds of one replay, alone on the device.
  Spread time(Checked& check, cudaStream_t stream, int repeats) {
    cudaEvent_t begin = nullptr, end = nullptr;
    std::vector<double> times;
    check(cudaEventCreate(&begin), "making an event");
    check(cudaEventCreate(&end), "making an event");
    for (int i = -2; i < repeats && check.ok(); i++) {
      float ms = 0;
      check(cudaEventRecord(begin, stream), "recording an event");
      check(cudaGraphLaunch(exec_, stream), "launching a graph");
      check(cudaEventRecord(end, stream), "recording an event");
      check(cudaEventSynchronize(end), "running a graph");
      if (check.ok()) check(cudaEventElapsedTime(&ms, begin, end), "reading events");
      if (i >= 0) times.push_back(static_cast<double>(ms));
    }
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
    return check.ok() ? Spread(times) : Spread();
  }

 private:
  bool instantiate(Checked& check) { return check(cudaGraphInstantiate(&exec_, graph_, 0), "instantiating a graph"); }
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t exec_ = nullptr;
};

// Memory of a part, given back when it ends.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  ~Memory() {
    for (void* p : all_) cudaFree(p);
  }
  template <class T>
  T* take(Checked& check, size_t count) {
    void* p = nullptr;
    if (!check.ok() || !check(cudaMalloc(&p, std::max<size_t>(count, 1) * sizeof(T)), "taking memory")) return nullptr;
    all_.push_back(p);
    return static_cast<T*>(p);
  }
  template <class T>
  T* put(Checked& check, const std::vector<T>& from) {
    T* p = take<T>(check, from.size());
    if (p) check(cudaMemcpy(p, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice), "copying");
    // It may return with the last of it on its way, and the stream that kernels run in does not wait for it by itself.
    if (p) check(cudaDeviceSynchronize(), "copying");
    return p;
  }

 private:
  std::vector<void*> all_;
};

// Exponents of 2^-6 in both halves of a word: finite whatever they are read as, and neither zeros nor all alike, which
// would take less power, and the clock would be higher.
static __global__ void fillKernel(uint32_t* to, size_t count) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    uint32_t v = static_cast<uint32_t>(i) * 2654435761u;
    v ^= v >> 15, v *= 2246822519u, v ^= v >> 13;
    to[i] = (v & 0x807f807fu) | 0x3c803c80u;
  }
}
inline cudaError_t fillWithNumbers(void* to, size_t bytes, cudaStream_t stream) {
  fillKernel<<<4096, 256, 0, stream>>>(static_cast<uint32_t*>(to), bytes / 4);
  return cudaGetLastError();
}

// ---- results --------------------------------------------------------------------------------------------------

class Results {
 public:
  std::string file, head;  // head: the fields before the parts
  double seconds = 1e9;
  Results() : began_(now()) {}
  double elapsed() const { return (now() - began_) / 1000; }
  // Runs a part where there is time; its fields, or why it has none, become one entry.
  void part(const std::string& name, const std::function<void(Checked&, Json&)>& work) {
    Checked check;
    Json fields;
    fields.text("name", name);
    if (broken_) check.fail("left out: the device failed before");
    else if (elapsed() > seconds) check.fail("left out: out of time");
    else work(check, fields);
    if (!check.ok()) fields.text("problem", check.error());
    // A failed kernel takes the whole context with it.
    if (!broken_ && cudaDeviceSynchronize() != cudaSuccess) broken_ = true;
    std::fprintf(stderr, "%6.1f s  %s%s%s\n", elapsed(), name.c_str(), check.ok() ? "" : ": ", check.error().c_str());
    problems_ += !check.ok();
    parts_.push_back(fields.done());
    write();
  }
  // Several entries of one part.
  void add(const Json& fields) { parts_.push_back(fields.done()); }
  std::string json() const {
    return "{" + head + ", \"seconds\": " + std::to_string(static_cast<int>(elapsed())) +
           ",\n \"parts\": " + Json::list(parts_, ",\n  ") + "}\n";
  }
  void write() const {
    if (file.empty()) return;
    const std::string text = json(), partial = file + ".partial";
    std::FILE* f = std::fopen(partial.c_str(), "wb");
    if (!f) return;
    const bool whole = std::fwrite(text.data(), 1, text.size(), f) == text.size();
    if (std::fclose(f) == 0 && whole) std::rename(partial.c_str(), file.c_str());
  }
  int problems() const { return problems_; }

 private:
  double began_;
  std::vector<std::string> parts_;
  bool broken_ = false;
  int problems_ = 0;
};

}  // namespace measuring
