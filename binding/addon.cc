// Table of contents: what JavaScript sees. lib/native.ts types it.
#include "arguments.h"
#include "engine.h"
#include "parvis/cuda.h"

namespace parvis::binding {

namespace {

Napi::Value cpu(const Napi::CallbackInfo& info) {
  const CpuInfo c = cpuInfo();
  Napi::Object o = Napi::Object::New(info.Env());
  o.Set("isa", c.isa);
  o.Set("bfloat16", c.bfloat16);
  o.Set("cores", c.cores);
  return o;
}

Napi::Value cuda(const Napi::CallbackInfo& info) {
  const CudaProbe p = probeCuda();
  Napi::Object o = Napi::Object::New(info.Env());
  o.Set("compiled", p.compiled);
  o.Set("devices", p.devices);
  o.Set("driver", p.driver);
  o.Set("runtime", p.runtime);
  o.Set("reason", p.reason);
  return o;
}

Napi::Value createEngine(const Napi::CallbackInfo& info) { return info.Env().GetInstanceData<Classes>()->engine.New({info[0]}); }

Napi::Value createCancel(const Napi::CallbackInfo& info) { return info.Env().GetInstanceData<Classes>()->cancel.New({}); }

// Jobs without an engine: libuv's threads are the right place for them.
class Conversion : public Napi::AsyncWorker {
 public:
  Conversion(Napi::Env env, std::vector<uint8_t> data, DType from, DType to)
      : AsyncWorker(env), deferred(Napi::Promise::Deferred::New(env)), from_(std::move(data)), fromType_(from), toType_(to) {}
  void Execute() override {
    const size_t count = from_.size() / byteSize(fromType_);
    to_.resize(count * byteSize(toType_));
    convertFloats(from_.data(), fromType_, to_.data(), toType_, count);
  }
  void OnOK() override {
    auto out = Napi::Uint8Array::New(Env(), to_.size());
    if (!to_.empty()) std::memcpy(out.Data(), to_.data(), to_.size());
    deferred.Resolve(out);
  }
  void OnError(const Napi::Error& e) override { deferred.Reject(e.Value()); }
  Napi::Promise::Deferred deferred;

 private:
  std::vector<uint8_t> from_, to_;
  DType fromType_, toType_;
};

Napi::Value convert(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto* worker = new Conversion(env, array<uint8_t>(info[0], "data"), dtype(env, info[1].ToString()), dtype(env, info[2].ToString()));
  const Napi::Promise promise = worker->deferred.Promise();
  worker->Queue();
  return promise;
}

class CeilingsJob : public Napi::AsyncWorker {
 public:
  CeilingsJob(Napi::Env env, int threads) : AsyncWorker(env), deferred(Napi::Promise::Deferred::New(env)), threads_(threads) {}
  void Execute() override {
    if (Status s = measureCeilings(threads_, ceilings_); !s.ok()) SetError(s.message);
  }
  void OnOK() override {
    Napi::Object o = Napi::Object::New(Env());
    o.Set("readBytesPerSecond", ceilings_.readBytesPerSecond);
    o.Set("float32Flops", ceilings_.float32Flops);
    o.Set("bfloat16Flops", ceilings_.bfloat16Flops);
    deferred.Resolve(o);
  }
  void OnError(const Napi::Error& e) override { deferred.Reject(e.Value()); }
  Napi::Promise::Deferred deferred;

 private:
  int threads_;
  Ceilings ceilings_;
};

Napi::Value ceilings(const Napi::CallbackInfo& info) {
  auto* worker = new CeilingsJob(info.Env(), info[0].ToNumber().Int32Value());
  const Napi::Promise promise = worker->deferred.Promise();
  worker->Queue();
  return promise;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* classes = new Classes;
  classes->engine = Napi::Persistent(EngineHandle::define(env));
  classes->transformer = Napi::Persistent(TransformerHandle::define(env));
  classes->session = Napi::Persistent(SessionHandle::define(env));
  classes->tokenizer = Napi::Persistent(TokenizerHandle::define(env));
  classes->cancel = Napi::Persistent(CancelHandle::define(env));
  env.SetInstanceData(classes);
  Napi::Array backends = Napi::Array::New(env);
  backends.Set(0u, "cpu");
  exports.Set("backends", backends);
  exports.Set("cpu", Napi::Function::New(env, cpu, "cpu"));
  exports.Set("cuda", Napi::Function::New(env, cuda, "cuda"));
  exports.Set("createEngine", Napi::Function::New(env, createEngine, "createEngine"));
  exports.Set("createCancel", Napi::Function::New(env, createCancel, "createCancel"));
  exports.Set("convertFloats", Napi::Function::New(env, convert, "convertFloats"));
  exports.Set("measureCeilings", Napi::Function::New(env, ceilings, "measureCeilings"));
  return exports;
}

}  // namespace

NODE_API_MODULE(parvis, init)

}  // namespace parvis::binding
