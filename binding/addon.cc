// Table of contents: what JavaScript sees. lib/machine/native.ts types it.
#include <functional>

#include "../common/floats.h"
#include "../common/steps.h"
#include "arguments.h"
#include "engine.h"
#include "parvis/cuda.h"
#include "promise.h"

namespace parvis::binding {

namespace {

Napi::Value cpu(const Napi::CallbackInfo& info) {
  const CpuInfo c = cpuInfo(info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "");
  Napi::Object o = Napi::Object::New(info.Env());
  o.Set("isa", c.isa);
  Napi::Array isas = Napi::Array::New(info.Env());
  for (const std::string& isa : c.isas) isas.Set(isas.Length(), isa);
  o.Set("isas", isas);
  o.Set("bfloat16", c.bfloat16);
  o.Set("cores", c.cores);
  o.Set("threads", c.threads);
  o.Set("quota", c.quota);
  o.Set("quotaGroup", c.quotaGroup);
  Napi::Object memory = Napi::Object::New(info.Env());
  memory.Set("total", static_cast<double>(c.memory));
  memory.Set("free", static_cast<double>(c.freeMemory));
  memory.Set("group", c.memoryGroup);
  memory.Set("checked", c.memoryChecked);
  o.Set("memory", memory);
  return o;
}

Napi::Value createEngine(const Napi::CallbackInfo& info) {
  return info.Env().GetInstanceData<Classes>()->engine.New({info[0]});
}

Napi::Value createCancel(const Napi::CallbackInfo& info) {
  return info.Env().GetInstanceData<Classes>()->cancel.New({});
}

// Work without an engine: libuv's threads are the right place for it.
template <class Result>
class Task : public Napi::AsyncWorker {
 public:
  using Work = std::function<Status(Result&)>;
  using Resolve = std::function<Napi::Value(Napi::Env, const Result&)>;
  static Napi::Value start(Napi::Env env, Work work, Resolve resolve) {
    auto* task = new Task(env, std::move(work), std::move(resolve));  // deletes itself
    const Napi::Promise promise = task->deferred_.Promise();
    task->Queue();
    return promise;
  }
  void Execute() override {
    status_ = guarded([&] { return work_(result_); });
  }
  void OnOK() override {
    if (!status_.ok()) return deferred_.Reject(errorValue(Env(), status_));
    try {
      deferred_.Resolve(resolve_(Env(), result_));
    } catch (const Napi::Error& e) {
      deferred_.Reject(typedValue(Env(), e));
    }
  }

 private:
  Task(Napi::Env env, Work work, Resolve resolve)
      : AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), work_(std::move(work)),
        resolve_(std::move(resolve)) {}
  Napi::Promise::Deferred deferred_;
  Work work_;
  Resolve resolve_;
  Result result_{};
  Status status_;
};

// The driver takes hundreds of milliseconds to load.
Napi::Value cuda(const Napi::CallbackInfo& info) {
  return Task<CudaProbe>::start(
      info.Env(),
      [](CudaProbe& out) {
        out = probeCuda();
        return Status{};
      },
      [](Napi::Env env, const CudaProbe& p) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o.Set("compiled", p.compiled);
        o.Set("driver", p.driver);
        o.Set("runtime", p.runtime);
        o.Set("architectures", p.architectures);
        Napi::Array devices = Napi::Array::New(env);
        for (const CudaDevice& d : p.devices) {
          Napi::Object device = Napi::Object::New(env);
          const uint32_t index = devices.Length();
          device.Set("index", index);
          device.Set("name", d.name);
          Napi::Array capability = Napi::Array::New(env);
          capability.Set(0u, d.major);
          capability.Set(1u, d.minor);
          device.Set("capability", capability);
          device.Set("memory", static_cast<double>(d.memory));
          if (!d.problem.empty()) device.Set("problem", d.problem);
          devices.Set(index, device);
        }
        o.Set("devices", devices);
        if (!p.reason.empty()) o.Set("reason", p.reason);
        return o;
      });
}

Napi::Value memoryOf(const Napi::CallbackInfo& info) {
  if (!info[0].IsNumber())
    throw typedError(info.Env(), {Code::internal, "parvis native call: device must be a number"});
  return Task<CudaMemory>::start(
      info.Env(), [device = info[0].ToNumber().Int32Value()](CudaMemory& out) { return cudaMemory(device, out); },
      [](Napi::Env env, const CudaMemory& m) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o.Set("free", static_cast<double>(m.free));
        o.Set("total", static_cast<double>(m.total));
        return o;
      });
}

Napi::Value convert(const Napi::CallbackInfo& info) {
  const DType from = dtype(info.Env(), info[1].ToString()), to = dtype(info.Env(), info[2].ToString());
  if (from == DType::int8 || to == DType::int8)
    throw typedError(info.Env(), {Code::internal, "parvis native call: int8 is no type of floats"});
  std::vector<uint8_t> data = array<uint8_t>(info[0], "data");
  const size_t count = data.size() / byteSize(from);
  const auto output = std::make_shared<Output<uint8_t>>(info.Env(), count * byteSize(to));
  return Task<int>::start(
      info.Env(),
      [data = std::move(data), output, count, from, to](int&) {
        convertFloats(data.data(), from, output->data(), to, count);
        return Status{};
      },
      [output](Napi::Env env, const int&) { return output->take(env); });
}

// Rows of `inputs` floats -> { integers, scales }
Napi::Value quantizeRows(const Napi::CallbackInfo& info) {
  const DType from = dtype(info.Env(), info[1].ToString());
  const int inputs = info[2].ToNumber().Int32Value();
  std::vector<uint8_t> data = array<uint8_t>(info[0], "data");
  if (from == DType::int8 || inputs < 1 || data.size() % (static_cast<size_t>(inputs) * byteSize(from)) != 0)
    throw typedError(info.Env(), {Code::internal, "parvis native call: data must be whole rows of floats"});
  const size_t rows = data.size() / byteSize(from) / static_cast<size_t>(inputs),
               groups = static_cast<size_t>(scaleGroups(inputs));
  const auto integers = std::make_shared<Output<uint8_t>>(info.Env(), rows * static_cast<size_t>(inputs));
  const auto scales = std::make_shared<Output<float>>(info.Env(), rows * groups);
  return Task<int>::start(
      info.Env(),
      [data = std::move(data), integers, scales, rows, groups, inputs, from](int&) {
        std::vector<float> row(static_cast<size_t>(inputs));
        for (size_t r = 0; r < rows; r++) {
          const size_t at = r * row.size();
          convertFloats(data.data() + at * byteSize(from), from, row.data(), DType::float32, row.size());
          quantizeRow(row.data(), inputs, reinterpret_cast<int8_t*>(integers->data()) + at,
                      scales->data() + r * groups);
        }
        return Status{};
      },
      [integers, scales](Napi::Env env, const int&) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o.Set("integers", integers->take(env));
        o.Set("scales", scales->take(env));
        return o;
      });
}

// integers, scales, inputs -> float32
Napi::Value dequantizeRows(const Napi::CallbackInfo& info) {
  const int inputs = info[2].ToNumber().Int32Value();
  std::vector<uint8_t> integers = array<uint8_t>(info[0], "integers");
  std::vector<float> scales = array<float>(info[1], "scales");
  const size_t groups = static_cast<size_t>(scaleGroups(std::max(inputs, 1)));
  if (inputs < 1 || integers.size() % static_cast<size_t>(inputs) != 0 ||
      scales.size() != integers.size() / static_cast<size_t>(inputs) * groups)
    throw typedError(info.Env(), {Code::internal, "parvis native call: integers and scales do not fit"});
  const auto output = std::make_shared<Output<uint8_t>>(info.Env(), integers.size() * sizeof(float));
  return Task<int>::start(
      info.Env(),
      [integers = std::move(integers), scales = std::move(scales), output, groups, inputs](int&) {
        float* out = reinterpret_cast<float*>(output->data());
        for (size_t r = 0; r < scales.size() / groups; r++)
          dequantizeRow(reinterpret_cast<const int8_t*>(integers.data()) + r * static_cast<size_t>(inputs),
                        scales.data() + r * groups, inputs, out + r * static_cast<size_t>(inputs));
        return Status{};
      },
      [output](Napi::Env env, const int&) { return output->take(env); });
}

// { a, b, out: Float64Arrays, rowsA, rowsB, stride, outStride }
Napi::Value products(const Napi::CallbackInfo& info) {
  const Napi::Object o = object(info[0], "products");
  const auto a = typed<double>(o.Get("a"), "a"), b = typed<double>(o.Get("b"), "b");
  auto out = typed<double>(o.Get("out"), "out");
  const int rowsA = integer(o, "rowsA"), rowsB = integer(o, "rowsB");
  const int stride = integer(o, "stride"), outStride = integer(o, "outStride");
  const auto holds = [](const Napi::TypedArrayOf<double>& array, int rows, int each, int last) {
    return rows < 1 || array.ElementLength() >= static_cast<size_t>(rows - 1) * static_cast<size_t>(each) + last;
  };
  if (rowsA < 0 || rowsB < 0 || stride < 0 || rowsA % 4 != 0 || rowsB % 2 != 0 || stride % 8 != 0 ||
      outStride < rowsB || !holds(a, rowsA, stride, stride) || !holds(b, rowsB, stride, stride) ||
      !holds(out, rowsA, outStride, rowsB))
    throw typedError(info.Env(), {Code::internal, "parvis native call: the sizes of the products do not fit"});
  addProducts({a.Data(), b.Data(), out.Data(), rowsA, rowsB, stride, outStride});
  return info.Env().Undefined();
}

Napi::Value memoryOfMachine(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(freeMemory()));
}

// { device: 'cpu' or 'cuda', model, precision, threads, session? } -> bytes
Napi::Value plan(const Napi::CallbackInfo& info) {
  const Napi::Object o = object(info[0], "options");
  const TransformerModel model = transformerModel(object(o.Get("model"), "model"));
  const Precision type = precision(o.Get("precision"));
  const std::string device = text(o, "device");
  if (device != "cpu" && device != "cuda")
    throw typedError(info.Env(), {Code::internal, "parvis native call: device must be cpu or cuda"});
  SessionOptions options;
  const bool asked = o.Get("session").IsObject();
  if (asked) {
    options = sessionOptions(object(o.Get("session"), "session"));
    if (const Status s = checkSession(model, options); !s.ok()) throw typedError(info.Env(), s);
  }
  const int threads = integer(o, "threads");
  if (threads < 0 || threads > 1024) throw typedError(info.Env(), {Code::invalidOption, "threads must be 0 to 1024."});
  const SessionOptions* const session = asked ? &options : nullptr;
  const MemoryPlan found = device == "cpu" ? planCpu(model, type, threads, session) : planCuda(model, type, session);
  Napi::Object to = Napi::Object::New(info.Env());
  to.Set("weights", static_cast<double>(found.weights));
  to.Set("session", static_cast<double>(found.session));
  return to;
}

// Functions that return promises reject instead of throwing.
template <Napi::Value (*function)(const Napi::CallbackInfo&)>
Napi::Value promise(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&] { return function(info); });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* classes = new Classes;
  classes->engine = Napi::Persistent(EngineHandle::define(env));
  classes->transformer = Napi::Persistent(TransformerHandle::define(env));
  classes->session = Napi::Persistent(SessionHandle::define(env));
  classes->tokenizer = Napi::Persistent(TokenizerHandle::define(env));
  classes->videoTokenizer = Napi::Persistent(VideoTokenizerHandle::define(env));
  classes->videoDecoder = Napi::Persistent(VideoDecoderHandle::define(env));
  classes->videoEncoder = Napi::Persistent(VideoEncoderHandle::define(env));
  classes->cancel = Napi::Persistent(CancelHandle::define(env));
  const char* const names[] = {"Int32Array", "Float32Array", "Uint8Array"};
  for (size_t i = 0; i < 3; i++) classes->arrays[i] = Napi::Persistent(env.Global().Get(names[i]).As<Napi::Function>());
  env.SetInstanceData(classes);
  Napi::Array backends = Napi::Array::New(env);
  backends.Set(0u, "cpu");
  if (cudaCompiled()) backends.Set(1u, "cuda");
  exports.Set("backends", backends);
  Napi::Object build = Napi::Object::New(env);
  build.Set("commit", PARVIS_COMMIT);
  build.Set("compiler", PARVIS_COMPILER);
  build.Set("cuda", PARVIS_NVCC_VERSION);
  exports.Set("build", build);
  exports.Set("cpu", Napi::Function::New(env, cpu, "cpu"));
  exports.Set("cuda", Napi::Function::New(env, promise<cuda>, "cuda"));
  exports.Set("cudaMemory", Napi::Function::New(env, promise<memoryOf>, "cudaMemory"));
  exports.Set("freeMemory", Napi::Function::New(env, memoryOfMachine, "freeMemory"));
  exports.Set("plan", Napi::Function::New(env, plan, "plan"));
  exports.Set("createEngine", Napi::Function::New(env, createEngine, "createEngine"));
  exports.Set("createCancel", Napi::Function::New(env, createCancel, "createCancel"));
  exports.Set("addProducts", Napi::Function::New(env, products, "addProducts"));
  exports.Set("convertFloats", Napi::Function::New(env, promise<convert>, "convertFloats"));
  exports.Set("quantize", Napi::Function::New(env, promise<quantizeRows>, "quantize"));
  exports.Set("dequantize", Napi::Function::New(env, promise<dequantizeRows>, "dequantize"));
  return exports;
}

}  // namespace

NODE_API_MODULE(parvis, init)

}  // namespace parvis::binding
