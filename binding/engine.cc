#include "engine.h"

#include "arguments.h"
#include "parvis/cuda.h"
#include "promise.h"

namespace parvis::binding {

// ---- cancel -------------------------------------------------------------------------------------------------

Napi::Function CancelHandle::define(Napi::Env env) {
  return DefineClass(env, "Cancel", {InstanceMethod<&CancelHandle::cancel>("cancel")});
}

Napi::Value CancelHandle::cancel(const Napi::CallbackInfo& info) {
  flag_->store(true);
  return info.Env().Undefined();
}

CancelFlag CancelHandle::from(const Napi::Value& value) {
  if (!value.IsObject()) return nullptr;
  const Napi::Object o = value.As<Napi::Object>();
  Classes* classes = value.Env().GetInstanceData<Classes>();
  return o.InstanceOf(classes->cancel.Value()) ? Unwrap(o)->flag_ : nullptr;
}

// ---- engine -------------------------------------------------------------------------------------------------

Napi::Function EngineHandle::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {InstanceAccessor<&EngineHandle::device>("device"), InstanceAccessor<&EngineHandle::isa>("isa"), InstanceAccessor<&EngineHandle::threads>("threads"),
                      InstanceMethod<&EngineHandle::loadTransformer>("loadTransformer"),
                      InstanceMethod<&EngineHandle::loadTokenizer>("loadTokenizer"),
                      InstanceMethod<&EngineHandle::runOperation>("runOperation"), InstanceMethod<&EngineHandle::measureCeilings>("measureCeilings"),
                      InstanceMethod<&EngineHandle::dispose>("dispose"), InstanceMethod<&EngineHandle::halt>("halt")});
}

// 1 of "cuda:1".
static int cudaIndex(Napi::Env env, const std::string& device) {
  const std::string digits = device.rfind("cuda:", 0) == 0 ? device.substr(5) : "";
  if (digits.empty() || digits.size() > 4 || digits.find_first_not_of("0123456789") != std::string::npos)
    throw Napi::TypeError::New(env, "parvis native call: device must be cpu or cuda:N");
  return std::stoi(digits);
}

EngineHandle::EngineHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  const Napi::Object options = object(info[0], "options");
  device_ = text(options, "device");
  const int threads = integer(options, "threads");
  if (threads < 0 || threads > 1024) throw Napi::TypeError::New(info.Env(), "threads must be 0..1024");
  std::unique_ptr<Backend> backend;
  if (device_ == "cpu") {
    backend = createCpuBackend(threads);
    if (!backend) throw Napi::Error::New(info.Env(), "The system refused to start " + std::to_string(threads) + " threads.");
  } else {
    backend = createCudaBackend(cudaIndex(info.Env(), device_));
    if (!backend) throw Napi::Error(info.Env(), errorValue(info.Env(), {Code::deviceUnavailable, "Device " + device_ + " is not available: this build has no CUDA code."}));
  }
  core_ = std::make_shared<Core>(info.Env(), std::move(backend));
  executor_ = core_->executor->self();
}

Napi::Value EngineHandle::device(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), device_); }

// Asked for each time: a CUDA backend has none before its first job.
Napi::Value EngineHandle::isa(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), core_ ? core_->backend->isa() : ""); }

Napi::Value EngineHandle::threads(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), core_ ? core_->backend->threads() : 0); }

Napi::Value EngineHandle::loadTransformer(const Napi::CallbackInfo& info) {
  if (!core_) return disposed(info.Env());
  return enqueue(
      info.Env(), core_, CancelHandle::from(info[4]), std::shared_ptr<Transformer>(),
      [core = core_.get(), file = info[0].ToString().Utf8Value(), sources = tensors(info[1]), model = transformerModel(object(info[2], "model")),
       type = precision(info[3])](std::shared_ptr<Transformer>& out, const Cancel& cancel) {
        return core->backend->loadTransformer(file, sources, model, type, cancel, out);
      },
      [core = core_](Napi::Env env, std::shared_ptr<Transformer>& out) { return TransformerHandle::wrap(env, core, std::move(out)); });
}

Napi::Value EngineHandle::loadTokenizer(const Napi::CallbackInfo& info) {
  if (!core_) return disposed(info.Env());
  return enqueue(
      info.Env(), core_, CancelHandle::from(info[4]), std::shared_ptr<Tokenizer>(),
      [core = core_.get(), file = info[0].ToString().Utf8Value(), sources = tensors(info[1]), model = tokenizerModel(object(info[2], "model")),
       type = precision(info[3])](std::shared_ptr<Tokenizer>& out, const Cancel& cancel) {
        return core->backend->loadTokenizer(file, sources, model, type, cancel, out);
      },
      [core = core_](Napi::Env env, std::shared_ptr<Tokenizer>& out) { return TokenizerHandle::wrap(env, core, std::move(out)); });
}

Napi::Value EngineHandle::runOperation(const Napi::CallbackInfo& info) {
  if (!core_) return disposed(info.Env());
  return enqueue(
      info.Env(), core_, CancelHandle::from(info[2]), OperationResult{},
      [core = core_.get(), which = operation(object(info[0], "operation")), run = operationRun(object(info[1], "run"))](OperationResult& out, const Cancel& cancel) {
        return core->backend->runOperation(which, run, cancel, out);
      },
      [](Napi::Env env, OperationResult& out) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o.Set("output", typedArray(env, out.output));
        o.Set("ms", typedArray(env, out.ms));
        return o;
      });
}

Napi::Value EngineHandle::measureCeilings(const Napi::CallbackInfo& info) {
  if (!core_) return disposed(info.Env());
  return enqueue(
      info.Env(), core_, nullptr, Ceilings{}, [core = core_.get()](Ceilings& out, const Cancel&) { return core->backend->measureCeilings(out); },
      [](Napi::Env env, const Ceilings& c) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o.Set("readBytesPerSecond", c.readBytesPerSecond);
        o.Set("float32Flops", c.float32Flops);
        o.Set("bfloat16Flops", c.bfloat16Flops);
        return o;
      });
}

// Resolves when everything enqueued before has run. The core goes when the last handle and job let go of it.
Napi::Value EngineHandle::dispose(const Napi::CallbackInfo& info) {
  if (!core_) {
    auto deferred = Napi::Promise::Deferred::New(info.Env());
    deferred.Resolve(info.Env().Undefined());
    return deferred.Promise();
  }
  const std::shared_ptr<Core> core = std::move(core_);
  core_.reset();
  return enqueue(
      info.Env(), core, nullptr, 0, [](int&, const Cancel&) { return Status{}; }, [](Napi::Env env, int&) -> Napi::Value { return env.Undefined(); });
}

Napi::Value EngineHandle::halt(const Napi::CallbackInfo& info) {
  if (executor_ && *executor_) (*executor_)->halt();
  return info.Env().Undefined();
}

// ---- transformer --------------------------------------------------------------------------------------------

Napi::Function TransformerHandle::define(Napi::Env env) {
  return DefineClass(env, "Transformer",
                     {InstanceAccessor<&TransformerHandle::bytes>("bytes"), InstanceMethod<&TransformerHandle::createSession>("createSession"),
                      InstanceMethod<&TransformerHandle::dispose>("dispose")});
}

Napi::Value TransformerHandle::wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Transformer> transformer) {
  const Napi::Object o = env.GetInstanceData<Classes>()->transformer.New({});
  TransformerHandle* handle = Unwrap(o);
  handle->core_ = std::move(core);
  handle->transformer_ = std::move(transformer);
  return o;
}

Napi::Value TransformerHandle::bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), transformer_ ? static_cast<double>(transformer_->bytes()) : 0);
}

Napi::Value TransformerHandle::createSession(const Napi::CallbackInfo& info) {
  if (!transformer_) return disposed(info.Env());
  SessionOptions options = sessionOptions(object(info[0], "options"));
  const size_t sequences = options.classIds.size(), tokens = sequences * options.tokens,
               logits = sequences * options.keepLogits.size() * transformer_->model().vocabulary;
  return enqueue(
      info.Env(), core_, nullptr, std::unique_ptr<Session>(),
      [transformer = transformer_, options](std::unique_ptr<Session>& out, const Cancel&) { return transformer->createSession(options, out); },
      [core = core_, tokens, logits](Napi::Env env, std::unique_ptr<Session>& out) {
        return SessionHandle::wrap(env, core, std::shared_ptr<Session>(std::move(out)), tokens, logits);
      });
}

Napi::Value TransformerHandle::dispose(const Napi::CallbackInfo& info) {
  releaseLater(core_, transformer_);
  return info.Env().Undefined();
}

// ---- session ------------------------------------------------------------------------------------------------

Napi::Function SessionHandle::define(Napi::Env env) {
  return DefineClass(env, "Session",
                     {InstanceMethod<&SessionHandle::step>("step"), InstanceMethod<&SessionHandle::readTokens>("readTokens"),
                      InstanceMethod<&SessionHandle::readLogProbs>("readLogProbs"), InstanceMethod<&SessionHandle::readLogits>("readLogits"),
                      InstanceMethod<&SessionHandle::dispose>("dispose")});
}

Napi::Value SessionHandle::wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Session> session, size_t tokens, size_t logits) {
  const Napi::Object o = env.GetInstanceData<Classes>()->session.New({});
  SessionHandle* handle = Unwrap(o);
  handle->core_ = std::move(core);
  handle->session_ = std::move(session);
  handle->tokens_ = tokens;
  handle->logits_ = logits;
  return o;
}

Napi::Value SessionHandle::step(const Napi::CallbackInfo& info) {
  if (!session_) return disposed(info.Env());
  const std::vector<int32_t> ints = array<int32_t>(info[0], "rows");
  constexpr size_t stride = sizeof(Row) / sizeof(int32_t);
  if (ints.size() % stride != 0) throw Napi::TypeError::New(info.Env(), "rows must have 7 ints each");
  std::vector<Row> rows(ints.size() / stride);
  std::memcpy(rows.data(), ints.data(), ints.size() * sizeof(int32_t));
  return enqueue(
      info.Env(), core_, CancelHandle::from(info[2]), 0,
      [session = session_, rows = std::move(rows), rule = stepRule(object(info[1], "rule"))](int&, const Cancel& cancel) {
        return session->step(rows.data(), static_cast<int>(rows.size()), rule, cancel);
      },
      [](Napi::Env env, int&) -> Napi::Value { return env.Undefined(); });
}

template <class T>
Napi::Value SessionHandle::read(Napi::Env env, size_t count, Status (Session::*method)(T*)) {
  if (!session_) return disposed(env);
  return enqueue(
      env, core_, nullptr, std::vector<T>(),
      [session = session_, count, method](std::vector<T>& out, const Cancel&) {
        out.resize(count);
        return (session.get()->*method)(out.data());
      },
      [](Napi::Env e, std::vector<T>& out) { return typedArray(e, out); });
}

Napi::Value SessionHandle::readTokens(const Napi::CallbackInfo& info) { return read(info.Env(), tokens_, &Session::readTokens); }

Napi::Value SessionHandle::readLogProbs(const Napi::CallbackInfo& info) { return read(info.Env(), tokens_, &Session::readLogProbs); }

Napi::Value SessionHandle::readLogits(const Napi::CallbackInfo& info) { return read(info.Env(), logits_, &Session::readLogits); }

Napi::Value SessionHandle::dispose(const Napi::CallbackInfo& info) {
  releaseLater(core_, session_);
  return info.Env().Undefined();
}

// ---- tokenizer ----------------------------------------------------------------------------------------------

Napi::Function TokenizerHandle::define(Napi::Env env) {
  return DefineClass(env, "Tokenizer",
                     {InstanceAccessor<&TokenizerHandle::bytes>("bytes"), InstanceMethod<&TokenizerHandle::decode>("decode"),
                      InstanceMethod<&TokenizerHandle::encode>("encode"), InstanceMethod<&TokenizerHandle::dispose>("dispose")});
}

Napi::Value TokenizerHandle::wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Tokenizer> tokenizer) {
  const Napi::Object o = env.GetInstanceData<Classes>()->tokenizer.New({});
  TokenizerHandle* handle = Unwrap(o);
  handle->core_ = std::move(core);
  handle->tokenizer_ = std::move(tokenizer);
  return o;
}

Napi::Value TokenizerHandle::bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), tokenizer_ ? static_cast<double>(tokenizer_->bytes()) : 0);
}

Napi::Value TokenizerHandle::decode(const Napi::CallbackInfo& info) {
  if (!tokenizer_) return disposed(info.Env());
  const Napi::Object o = object(info[1], "options");
  const DecodeOptions options{integer(o, "count"), integer(o, "gridHeight"), integer(o, "gridWidth"), integer(o, "outHeight"), integer(o, "outWidth")};
  std::vector<int32_t> tokens = array<int32_t>(info[0], "tokens");
  if (options.count < 1 || options.gridHeight < 1 || options.gridWidth < 1 || options.outHeight < 1 || options.outWidth < 1 ||
      tokens.size() / options.count / options.gridHeight != static_cast<size_t>(options.gridWidth) ||
      tokens.size() != static_cast<size_t>(options.count) * options.gridHeight * options.gridWidth)
    throw Napi::TypeError::New(info.Env(), "tokens must fill the grids");
  const size_t size = static_cast<size_t>(options.count) * options.outHeight * options.outWidth * 3;
  const CancelFlag cancel = CancelHandle::from(info[2]);
  if (text(o, "format") == "float32")
    return enqueue(
        info.Env(), core_, cancel, std::vector<float>(),
        [tokenizer = tokenizer_, tokens = std::move(tokens), options, size](std::vector<float>& out, const Cancel& stop) {
          out.resize(size);
          return tokenizer->decode(tokens.data(), options, nullptr, out.data(), stop);
        },
        [](Napi::Env env, std::vector<float>& out) { return typedArray(env, out); });
  return enqueue(
      info.Env(), core_, cancel, std::vector<uint8_t>(),
      [tokenizer = tokenizer_, tokens = std::move(tokens), options, size](std::vector<uint8_t>& out, const Cancel& stop) {
        out.resize(size);
        return tokenizer->decode(tokens.data(), options, out.data(), nullptr, stop);
      },
      [](Napi::Env env, std::vector<uint8_t>& out) { return typedArray(env, out); });
}

Napi::Value TokenizerHandle::encode(const Napi::CallbackInfo& info) {
  if (!tokenizer_) return disposed(info.Env());
  const Napi::Object o = object(info[1], "options");
  const int count = integer(o, "count"), height = integer(o, "height"), width = integer(o, "width");
  std::vector<float> pixels = array<float>(info[0], "pixels");
  if (count < 1 || height < 1 || width < 1 || pixels.size() != static_cast<size_t>(count) * height * width * 3)
    throw Napi::TypeError::New(info.Env(), "pixels must fill the pictures");
  const int factor = tokenizer_->model().factor();
  const size_t tokens = static_cast<size_t>(count) * (height / factor) * (width / factor);
  return enqueue(
      info.Env(), core_, CancelHandle::from(info[2]), std::vector<int32_t>(tokens),
      [tokenizer = tokenizer_, pixels = std::move(pixels), count, height, width](std::vector<int32_t>& out, const Cancel& stop) {
        return tokenizer->encode(pixels.data(), count, height, width, out.data(), stop);
      },
      [](Napi::Env env, std::vector<int32_t>& out) { return typedArray(env, out); });
}

Napi::Value TokenizerHandle::dispose(const Napi::CallbackInfo& info) {
  releaseLater(core_, tokenizer_);
  return info.Env().Undefined();
}

}  // namespace parvis::binding
