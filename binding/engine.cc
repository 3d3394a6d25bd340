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

// ---- promises -----------------------------------------------------------------------------------------------

template <Napi::Value (EngineHandle::*method)(const Napi::CallbackInfo&)>
Napi::Value EngineHandle::promise(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&] { return (this->*method)(info); });
}

template <Napi::Value (TransformerHandle::*method)(const Napi::CallbackInfo&)>
Napi::Value TransformerHandle::promise(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&] { return (this->*method)(info); });
}

template <Napi::Value (SessionHandle::*method)(const Napi::CallbackInfo&)>
Napi::Value SessionHandle::promise(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&] { return (this->*method)(info); });
}

template <Napi::Value (TokenizerHandle::*method)(const Napi::CallbackInfo&)>
Napi::Value TokenizerHandle::promise(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&] { return (this->*method)(info); });
}

template <Napi::Value (VideoTokenizerHandle::*method)(const Napi::CallbackInfo&)>
Napi::Value VideoTokenizerHandle::promise(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&] { return (this->*method)(info); });
}

template <Napi::Value (VideoDecoderHandle::*method)(const Napi::CallbackInfo&)>
Napi::Value VideoDecoderHandle::promise(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&] { return (this->*method)(info); });
}

template <Napi::Value (VideoEncoderHandle::*method)(const Napi::CallbackInfo&)>
Napi::Value VideoEncoderHandle::promise(const Napi::CallbackInfo& info) {
  return promised(info.Env(), [&] { return (this->*method)(info); });
}

// ---- engine -------------------------------------------------------------------------------------------------

Napi::Function EngineHandle::define(Napi::Env env) {
  return DefineClass(
      env, "Engine",
      {InstanceAccessor<&EngineHandle::device>("device"), InstanceAccessor<&EngineHandle::isa>("isa"),
       InstanceAccessor<&EngineHandle::threads>("threads"), InstanceAccessor<&EngineHandle::launches>("launches"),
       InstanceMethod<&EngineHandle::promise<&EngineHandle::loadTransformer>>("loadTransformer"),
       InstanceMethod<&EngineHandle::promise<&EngineHandle::loadTokenizer>>("loadTokenizer"),
       InstanceMethod<&EngineHandle::promise<&EngineHandle::loadVideoTokenizer>>("loadVideoTokenizer"),
       InstanceMethod<&EngineHandle::promise<&EngineHandle::measureCeilings>>("measureCeilings"),
       InstanceMethod<&EngineHandle::promise<&EngineHandle::dispose>>("dispose"),
       InstanceMethod<&EngineHandle::halt>("halt")});
}

// 1 of "cuda:1".
static int cudaIndex(Napi::Env env, const std::string& device) {
  const std::string digits = device.rfind("cuda:", 0) == 0 ? device.substr(5) : "";
  if (digits.empty() || digits.size() > 4 || digits.find_first_not_of("0123456789") != std::string::npos)
    throw typedError(env, {Code::internal, "parvis native call: device must be cpu or cuda:N"});
  return std::stoi(digits);
}

EngineHandle::EngineHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  const Napi::Object options = object(info[0], "options");
  device_ = text(options, "device");
  const int threads = integer(options, "threads");
  if (threads < 0 || threads > 1024) throw typedError(info.Env(), {Code::invalidOption, "threads must be 0 to 1024."});
  const bool cpu = device_ == "cpu";
  const int index = cpu ? 0 : cudaIndex(info.Env(), device_);
  // The executor's thread first: a backend that goes on with as many threads as there are must leave one for it.
  const auto core = std::make_shared<Core>(info.Env());
  core->backend = cpu ? createCpuBackend(threads) : createCudaBackend(index);
  if (!core->backend && cpu)
    throw typedError(info.Env(), {Code::outOfMemory, threadsRefused(std::to_string(threads) + " threads")});
  if (!core->backend)
    throw typedError(
        info.Env(), {Code::deviceUnavailable, "Device " + device_ + " is not available: this build has no CUDA code."});
  core_ = core;
  executor_ = core_->executor->self();
}

Napi::Value EngineHandle::device(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), device_); }

// Asked for each time: a CUDA backend has none before its first job.
Napi::Value EngineHandle::isa(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), core_ ? core_->backend->isa() : "");
}

Napi::Value EngineHandle::launches(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), core_ ? core_->backend->launches() : "");
}

Napi::Value EngineHandle::threads(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), core_ ? core_->backend->threads() : 0);
}

Napi::Value EngineHandle::loadTransformer(const Napi::CallbackInfo& info) {
  if (!core_) return disposed(info.Env());
  return enqueue(
      info.Env(), core_, CancelHandle::from(info[4]), std::shared_ptr<Transformer>(),
      [core = core_.get(), file = checkpointFile(info[0], info[5]), sources = weights(info[1]),
       model = transformerModel(object(info[2], "model")),
       type = precision(info[3])](std::shared_ptr<Transformer>& out, const Cancel& cancel) {
        return core->backend->loadTransformer(file, sources, model, type, cancel, out);
      },
      [core = core_](Napi::Env env, std::shared_ptr<Transformer>& out) {
        return TransformerHandle::wrap(env, core, std::move(out));
      });
}

Napi::Value EngineHandle::loadTokenizer(const Napi::CallbackInfo& info) {
  if (!core_) return disposed(info.Env());
  return enqueue(
      info.Env(), core_, CancelHandle::from(info[4]), std::shared_ptr<Tokenizer>(),
      [core = core_.get(), file = checkpointFile(info[0], info[5]), sources = weights(info[1]),
       model = tokenizerModel(object(info[2], "model")),
       type = precision(info[3])](std::shared_ptr<Tokenizer>& out, const Cancel& cancel) {
        return core->backend->loadTokenizer(file, sources, model, type, cancel, out);
      },
      [core = core_](Napi::Env env, std::shared_ptr<Tokenizer>& out) {
        return TokenizerHandle::wrap(env, core, std::move(out));
      });
}

Napi::Value EngineHandle::loadVideoTokenizer(const Napi::CallbackInfo& info) {
  if (!core_) return disposed(info.Env());
  return enqueue(
      info.Env(), core_, CancelHandle::from(info[4]), std::shared_ptr<VideoTokenizer>(),
      [core = core_.get(), file = checkpointFile(info[0], info[5]), sources = weights(info[1]),
       model = videoTokenizerModel(object(info[2], "model")),
       type = precision(info[3])](std::shared_ptr<VideoTokenizer>& out, const Cancel& cancel) {
        return core->backend->loadVideoTokenizer(file, sources, model, type, cancel, out);
      },
      [core = core_](Napi::Env env, std::shared_ptr<VideoTokenizer>& out) {
        return VideoTokenizerHandle::wrap(env, core, std::move(out));
      });
}

Napi::Value EngineHandle::measureCeilings(const Napi::CallbackInfo& info) {
  if (!core_) return disposed(info.Env());
  return enqueue(
      info.Env(), core_, nullptr, Ceilings{},
      [core = core_.get()](Ceilings& out, const Cancel&) { return core->backend->measureCeilings(out); },
      [](Napi::Env env, const Ceilings& c) -> Napi::Value {
        Napi::Object o = Napi::Object::New(env);
        o.Set("readBytesPerSecond", c.readBytesPerSecond);
        o.Set("float32Flops", c.float32Flops);
        o.Set("bfloat16Flops", c.bfloat16Flops);
        return o;
      });
}

// The last job of an engine. When it settles, all jobs before it have; what they made was let go of, and is freed
// before the backend, behind which the executor's thread ends.
struct LastJob : Job {
  explicit LastJob(std::shared_ptr<Core> core, Napi::Promise::Deferred deferred)
      : core(std::move(core)), deferred(deferred) {}
  void work() override {}
  void settle(Napi::Env) override {
    Executor* const executor = std::exchange(core->executor, nullptr);
    executor->retire([last = std::move(core->backend)]() mutable { last.reset(); },
                     [d = deferred](Napi::Env env) { d.Resolve(env.Undefined()); });
  }
  std::shared_ptr<Core> core;
  Napi::Promise::Deferred deferred;
};

// Resolves when everything enqueued before has run, all memory is free and all threads have ended.
Napi::Value EngineHandle::dispose(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Core> core = std::exchange(core_, nullptr);
  if (!core) return resolved(info.Env());
  const bool open = core->open();
  core->closed = true;
  const std::vector<Holder*> holders(core->holders.begin(), core->holders.end());
  for (Holder* holder : holders) holder->letGo();
  if (!open) return resolved(info.Env());  // halted: the process or its environment is ending
  const auto deferred = Napi::Promise::Deferred::New(info.Env());
  core->executor->submit(std::make_unique<LastJob>(core, deferred));
  return deferred.Promise();
}

Napi::Value EngineHandle::halt(const Napi::CallbackInfo& info) {
  if (executor_ && *executor_) (*executor_)->halt();
  return info.Env().Undefined();
}

// ---- profiles -----------------------------------------------------------------------------------------------

// profile(on) of what is Profiled: an array of { name, shape, ms, bytes, flops }.
template <class T>
static Napi::Value enqueueProfile(const Napi::CallbackInfo& info, const Share<T>& profiled) {
  if (!profiled) return disposed(info.Env());
  return enqueue(
      info.Env(), profiled.core(), nullptr, Profile(),
      [object = profiled.object(), on = info[0].ToBoolean().Value()](Profile& out, const Cancel&) {
        out = object->profile(on);
        return Status{};
      },
      [](Napi::Env env, const Profile& profile) -> Napi::Value {
        Napi::Array records = Napi::Array::New(env, profile.size());
        for (size_t i = 0; i < profile.size(); i++) {
          Napi::Object record = Napi::Object::New(env);
          record.Set("name", profile[i].name);
          record.Set("shape", profile[i].shape);
          record.Set("ms", profile[i].ms);
          record.Set("bytes", profile[i].bytes);
          record.Set("flops", profile[i].flops);
          records.Set(static_cast<uint32_t>(i), record);
        }
        return records;
      });
}

// ---- transformer --------------------------------------------------------------------------------------------

Napi::Function TransformerHandle::define(Napi::Env env) {
  return DefineClass(env, "Transformer",
                     {InstanceAccessor<&TransformerHandle::bytes>("bytes"),
                      InstanceMethod<&TransformerHandle::promise<&TransformerHandle::createSession>>("createSession"),
                      InstanceMethod<&TransformerHandle::dispose>("dispose")});
}

Napi::Value TransformerHandle::wrap(Napi::Env env, std::shared_ptr<Core> core,
                                    std::shared_ptr<Transformer> transformer) {
  const Napi::Object o = env.GetInstanceData<Classes>()->transformer.New({});
  TransformerHandle* handle = Unwrap(o);
  handle->transformer_.hold(std::move(core), std::move(transformer));
  return o;
}

Napi::Value TransformerHandle::bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), transformer_ ? static_cast<double>(transformer_->bytes()) : 0);
}

Napi::Value TransformerHandle::createSession(const Napi::CallbackInfo& info) {
  if (!transformer_) return disposed(info.Env());
  const SessionOptions options = sessionOptions(object(info[0], "options"));
  const size_t tokens = static_cast<size_t>(options.tokens);
  const size_t logits = static_cast<size_t>(options.kept) * transformer_->model().vocabulary;
  return enqueue(
      info.Env(), transformer_.core(), nullptr, std::unique_ptr<Session>(),
      [transformer = transformer_.object(), options](std::unique_ptr<Session>& out, const Cancel&) {
        return transformer->createSession(options, out);
      },
      [core = transformer_.core(), tokens, logits](Napi::Env env, std::unique_ptr<Session>& out) {
        return SessionHandle::wrap(env, core, std::shared_ptr<Session>(std::move(out)), tokens, logits);
      });
}

Napi::Value TransformerHandle::dispose(const Napi::CallbackInfo& info) {
  transformer_.letGo();
  return info.Env().Undefined();
}

// ---- session ------------------------------------------------------------------------------------------------

Napi::Function SessionHandle::define(Napi::Env env) {
  return DefineClass(env, "Session",
                     {InstanceAccessor<&SessionHandle::bytes>("bytes"),
                      InstanceMethod<&SessionHandle::promise<&SessionHandle::enter>>("enter"),
                      InstanceMethod<&SessionHandle::promise<&SessionHandle::leave>>("leave"),
                      InstanceMethod<&SessionHandle::promise<&SessionHandle::step>>("step"),
                      InstanceMethod<&SessionHandle::promise<&SessionHandle::plan>>("plan"),
                      InstanceMethod<&SessionHandle::promise<&SessionHandle::pass>>("pass"),
                      InstanceMethod<&SessionHandle::promise<&SessionHandle::readTokens>>("readTokens"),
                      InstanceMethod<&SessionHandle::promise<&SessionHandle::readLogProbs>>("readLogProbs"),
                      InstanceMethod<&SessionHandle::promise<&SessionHandle::readLogits>>("readLogits"),
                      InstanceMethod<&SessionHandle::promise<&SessionHandle::profile>>("profile"),
                      InstanceMethod<&SessionHandle::promise<&SessionHandle::dispose>>("dispose")});
}

Napi::Value SessionHandle::wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Session> session,
                                size_t tokens, size_t logits) {
  const Napi::Object o = env.GetInstanceData<Classes>()->session.New({});
  SessionHandle* handle = Unwrap(o);
  handle->session_.hold(std::move(core), std::move(session));
  handle->tokens_ = tokens;
  handle->logits_ = logits;
  return o;
}

Napi::Value SessionHandle::bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), session_ ? static_cast<double>(session_->bytes()) : 0);
}

// A seat by its number, which the session checks.
static int seatOf(const Napi::Value& value) {
  if (!value.IsNumber()) throw typedError(value.Env(), {Code::internal, "parvis native call: seat must be a number"});
  return value.As<Napi::Number>().Int32Value();
}

Napi::Value SessionHandle::enter(const Napi::CallbackInfo& info) {
  if (!session_) return disposed(info.Env());
  return enqueue(
      info.Env(), session_.core(), nullptr, 0,
      [session = session_.object(), seat = seatOf(info[0]), who = sequence(object(info[1], "sequence"))](
          int&, const Cancel&) { return session->enter(seat, who); },
      [](Napi::Env env, int&) -> Napi::Value { return env.Undefined(); });
}

Napi::Value SessionHandle::leave(const Napi::CallbackInfo& info) {
  if (!session_) return disposed(info.Env());
  return enqueue(
      info.Env(), session_.core(), nullptr, 0,
      [session = session_.object(), seat = seatOf(info[0])](int&, const Cancel&) { return session->leave(seat); },
      [](Napi::Env env, int&) -> Napi::Value { return env.Undefined(); });
}

Napi::Value SessionHandle::step(const Napi::CallbackInfo& info) {
  if (!session_) return disposed(info.Env());
  return enqueue(
      info.Env(), session_.core(), CancelHandle::from(info[1]), std::vector<int32_t>(),
      [session = session_.object(), t = stepTables(object(info[0], "step"))](std::vector<int32_t>& failed,
                                                                             const Cancel& cancel) {
        const Step step{t.rows.data(),        static_cast<int>(t.rows.size()),
                        t.predictions.data(), static_cast<int>(t.predictions.size()),
                        t.rules.data(),       static_cast<int>(t.rules.size())};
        return session->step(step, cancel, failed);
      },
      [](Napi::Env env, const std::vector<int32_t>& failed) -> Napi::Value {
        const Napi::Array seats = Napi::Array::New(env, failed.size());
        for (uint32_t i = 0; i < failed.size(); i++) seats.Set(i, failed[i]);
        return seats;
      });
}

Napi::Value SessionHandle::plan(const Napi::CallbackInfo& info) {
  if (!session_) return disposed(info.Env());
  return enqueue(
      info.Env(), session_.core(), nullptr, 0,
      [session = session_.object(), seat = seatOf(info[0]), p = sequencePlan(object(info[1], "plan"))](
          int&, const Cancel&) mutable { return session->plan(seat, std::move(p)); },
      [](Napi::Env env, int&) -> Napi::Value { return env.Undefined(); });
}

Napi::Value SessionHandle::pass(const Napi::CallbackInfo& info) {
  if (!session_) return disposed(info.Env());
  return enqueue(
      info.Env(), session_.core(), CancelHandle::from(info[1]), PassResult(),
      [session = session_.object(), parts = passParts(info[0])](PassResult& result, const Cancel& cancel) {
        return session->pass(parts, cancel, result);
      },
      [](Napi::Env env, const PassResult& result) -> Napi::Value {
        Napi::Int32Array numbers = newArray<int32_t>(env, 1 + result.done.size() + result.inPass.size());
        int32_t* to = numbers.Data();
        *to++ = result.rows;
        to = std::copy(result.done.begin(), result.done.end(), to);
        std::copy(result.inPass.begin(), result.inPass.end(), to);
        return numbers;
      });
}

template <class T>
Napi::Value SessionHandle::read(const Napi::CallbackInfo& info, size_t count, Status (Session::*method)(int, T*)) {
  if (!session_) return disposed(info.Env());
  return enqueueArray<T>(info.Env(), session_.core(), nullptr, count,
                         [session = session_.object(), method, seat = seatOf(info[0])](T* out, const Cancel&) {
                           return (session.get()->*method)(seat, out);
                         });
}

Napi::Value SessionHandle::readTokens(const Napi::CallbackInfo& info) {
  return read(info, tokens_, &Session::readTokens);
}

Napi::Value SessionHandle::readLogProbs(const Napi::CallbackInfo& info) {
  return read(info, tokens_, &Session::readLogProbs);
}

Napi::Value SessionHandle::readLogits(const Napi::CallbackInfo& info) {
  return read(info, logits_, &Session::readLogits);
}

Napi::Value SessionHandle::profile(const Napi::CallbackInfo& info) { return enqueueProfile(info, session_); }

// Resolves when its memory is free.
Napi::Value SessionHandle::dispose(const Napi::CallbackInfo& info) {
  const std::shared_ptr<Core> core = session_.core();
  session_.letGo();
  if (!core || !core->open()) return resolved(info.Env());
  return enqueue(
      info.Env(), core, nullptr, 0, [](int&, const Cancel&) { return Status{}; },
      [](Napi::Env env, int&) -> Napi::Value { return env.Undefined(); });
}

// ---- tokenizer ----------------------------------------------------------------------------------------------

Napi::Function TokenizerHandle::define(Napi::Env env) {
  return DefineClass(env, "Tokenizer",
                     {InstanceAccessor<&TokenizerHandle::bytes>("bytes"),
                      InstanceMethod<&TokenizerHandle::promise<&TokenizerHandle::decode>>("decode"),
                      InstanceMethod<&TokenizerHandle::promise<&TokenizerHandle::encode>>("encode"),
                      InstanceMethod<&TokenizerHandle::promise<&TokenizerHandle::profile>>("profile"),
                      InstanceMethod<&TokenizerHandle::dispose>("dispose")});
}

Napi::Value TokenizerHandle::wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Tokenizer> tokenizer) {
  const Napi::Object o = env.GetInstanceData<Classes>()->tokenizer.New({});
  TokenizerHandle* handle = Unwrap(o);
  handle->tokenizer_.hold(std::move(core), std::move(tokenizer));
  return o;
}

Napi::Value TokenizerHandle::bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), tokenizer_ ? static_cast<double>(tokenizer_->bytes()) : 0);
}

Napi::Value TokenizerHandle::decode(const Napi::CallbackInfo& info) {
  if (!tokenizer_) return disposed(info.Env());
  const Napi::Object o = object(info[1], "options");
  const DecodeOptions options{integer(o, "count"), integer(o, "gridHeight"), integer(o, "gridWidth"),
                              integer(o, "outHeight"), integer(o, "outWidth")};
  std::vector<int32_t> tokens = array<int32_t>(info[0], "tokens");
  if (options.count < 1 || options.gridHeight < 1 || options.gridWidth < 1 || options.outHeight < 1 ||
      options.outWidth < 1 ||
      tokens.size() / options.count / options.gridHeight != static_cast<size_t>(options.gridWidth) ||
      tokens.size() != static_cast<size_t>(options.count) * options.gridHeight * options.gridWidth)
    throw typedError(info.Env(), {Code::internal, "parvis native call: tokens must fill the grids"});
  const size_t size = static_cast<size_t>(options.count) * options.outHeight * options.outWidth * 3;
  const CancelFlag cancel = CancelHandle::from(info[2]);
  const auto& tokenizer = tokenizer_.object();
  if (text(o, "format") == "float32")
    return enqueueArray<float>(info.Env(), tokenizer_.core(), cancel, size,
                               [tokenizer, tokens = std::move(tokens), options](float* out, const Cancel& stop) {
                                 return tokenizer->decode(tokens.data(), options, nullptr, out, stop);
                               });
  return enqueueArray<uint8_t>(info.Env(), tokenizer_.core(), cancel, size,
                               [tokenizer, tokens = std::move(tokens), options](uint8_t* out, const Cancel& stop) {
                                 return tokenizer->decode(tokens.data(), options, out, nullptr, stop);
                               });
}

Napi::Value TokenizerHandle::encode(const Napi::CallbackInfo& info) {
  if (!tokenizer_) return disposed(info.Env());
  const Napi::Object o = object(info[1], "options");
  const int count = integer(o, "count"), height = integer(o, "height"), width = integer(o, "width");
  std::vector<float> pixels = array<float>(info[0], "pixels");
  if (count < 1 || height < 1 || width < 1 || pixels.size() != static_cast<size_t>(count) * height * width * 3)
    throw typedError(info.Env(), {Code::internal, "parvis native call: pixels must fill the pictures"});
  const int factor = tokenizer_->model().factor();
  const size_t tokens = static_cast<size_t>(count) * (height / factor) * (width / factor);
  return enqueueArray<int32_t>(info.Env(), tokenizer_.core(), CancelHandle::from(info[2]), tokens,
                               [tokenizer = tokenizer_.object(), pixels = std::move(pixels), count, height, width](
                                   int32_t* out, const Cancel& stop) {
                                 return tokenizer->encode(pixels.data(), count, height, width, out, stop);
                               });
}

Napi::Value TokenizerHandle::profile(const Napi::CallbackInfo& info) { return enqueueProfile(info, tokenizer_); }

Napi::Value TokenizerHandle::dispose(const Napi::CallbackInfo& info) {
  tokenizer_.letGo();
  return info.Env().Undefined();
}

// ---- tokenizer of videos -------------------------------------------------------------------------------------

Napi::Function VideoTokenizerHandle::define(Napi::Env env) {
  return DefineClass(
      env, "VideoTokenizer",
      {InstanceAccessor<&VideoTokenizerHandle::bytes>("bytes"),
       InstanceMethod<&VideoTokenizerHandle::promise<&VideoTokenizerHandle::createDecoder>>("createDecoder"),
       InstanceMethod<&VideoTokenizerHandle::promise<&VideoTokenizerHandle::createEncoder>>("createEncoder"),
       InstanceMethod<&VideoTokenizerHandle::promise<&VideoTokenizerHandle::profile>>("profile"),
       InstanceMethod<&VideoTokenizerHandle::dispose>("dispose")});
}

Napi::Value VideoTokenizerHandle::wrap(Napi::Env env, std::shared_ptr<Core> core,
                                       std::shared_ptr<VideoTokenizer> tokenizer) {
  const Napi::Object o = env.GetInstanceData<Classes>()->videoTokenizer.New({});
  VideoTokenizerHandle* handle = Unwrap(o);
  handle->tokenizer_.hold(std::move(core), std::move(tokenizer));
  return o;
}

Napi::Value VideoTokenizerHandle::bytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), tokenizer_ ? static_cast<double>(tokenizer_->bytes()) : 0);
}

// Rows and columns of tokens, and what follows from them.
static VideoSizes videoSizes(const VideoTokenizerModel& model, int rows, int columns) {
  const size_t cells = static_cast<size_t>(std::max(rows, 0)) * static_cast<size_t>(std::max(columns, 0));
  const size_t factor = static_cast<size_t>(model.factorSpace());
  return {cells, cells * factor * factor * 3, model.factorTime()};
}

Napi::Value VideoTokenizerHandle::createDecoder(const Napi::CallbackInfo& info) {
  if (!tokenizer_) return disposed(info.Env());
  const Napi::Object o = object(info[0], "options");
  const int rows = integer(o, "rows"), columns = integer(o, "columns");
  return enqueue(
      info.Env(), tokenizer_.core(), nullptr, std::unique_ptr<VideoDecoder>(),
      [tokenizer = tokenizer_.object(), rows, columns](std::unique_ptr<VideoDecoder>& out, const Cancel&) {
        return tokenizer->createDecoder(rows, columns, out);
      },
      [core = tokenizer_.core(), sizes = videoSizes(tokenizer_->model(), rows, columns)](
          Napi::Env env, std::unique_ptr<VideoDecoder>& out) {
        return VideoDecoderHandle::wrap(env, core, std::shared_ptr<VideoDecoder>(std::move(out)), sizes);
      });
}

Napi::Value VideoTokenizerHandle::createEncoder(const Napi::CallbackInfo& info) {
  if (!tokenizer_) return disposed(info.Env());
  const Napi::Object o = object(info[0], "options");
  const int rows = integer(o, "rows"), columns = integer(o, "columns");
  return enqueue(
      info.Env(), tokenizer_.core(), nullptr, std::unique_ptr<VideoEncoder>(),
      [tokenizer = tokenizer_.object(), rows, columns](std::unique_ptr<VideoEncoder>& out, const Cancel&) {
        return tokenizer->createEncoder(rows, columns, out);
      },
      [core = tokenizer_.core(), sizes = videoSizes(tokenizer_->model(), rows, columns)](
          Napi::Env env, std::unique_ptr<VideoEncoder>& out) {
        return VideoEncoderHandle::wrap(env, core, std::shared_ptr<VideoEncoder>(std::move(out)), sizes);
      });
}

Napi::Value VideoTokenizerHandle::profile(const Napi::CallbackInfo& info) { return enqueueProfile(info, tokenizer_); }

Napi::Value VideoTokenizerHandle::dispose(const Napi::CallbackInfo& info) {
  tokenizer_.letGo();
  return info.Env().Undefined();
}

Napi::Function VideoDecoderHandle::define(Napi::Env env) {
  return DefineClass(env, "VideoDecoder",
                     {InstanceMethod<&VideoDecoderHandle::promise<&VideoDecoderHandle::decode>>("decode"),
                      InstanceMethod<&VideoDecoderHandle::dispose>("dispose")});
}

Napi::Value VideoDecoderHandle::wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<VideoDecoder> decoder,
                                     const VideoSizes& sizes) {
  const Napi::Object o = env.GetInstanceData<Classes>()->videoDecoder.New({});
  VideoDecoderHandle* handle = Unwrap(o);
  handle->decoder_.hold(std::move(core), std::move(decoder));
  handle->sizes_ = sizes;
  return o;
}

Napi::Value VideoDecoderHandle::decode(const Napi::CallbackInfo& info) {
  if (!decoder_) return disposed(info.Env());
  std::vector<int32_t> tokens = array<int32_t>(info[0], "tokens");
  if (tokens.size() != sizes_.cells)
    throw typedError(info.Env(), {Code::internal, "parvis native call: tokens must fill a latent frame"});
  const bool floats = text(object(info[1], "options"), "format") == "float32";
  const size_t size = sizes_.pixels * static_cast<size_t>(begun_ ? sizes_.factorTime : 1);
  begun_ = true;
  const CancelFlag cancel = CancelHandle::from(info[2]);
  if (floats)
    return enqueueArray<float>(
        info.Env(), decoder_.core(), cancel, size,
        [decoder = decoder_.object(), tokens = std::move(tokens)](float* out, const Cancel& stop) {
          return decoder->decode(tokens.data(), nullptr, out, stop);
        });
  return enqueueArray<uint8_t>(
      info.Env(), decoder_.core(), cancel, size,
      [decoder = decoder_.object(), tokens = std::move(tokens)](uint8_t* out, const Cancel& stop) {
        return decoder->decode(tokens.data(), out, nullptr, stop);
      });
}

Napi::Value VideoDecoderHandle::dispose(const Napi::CallbackInfo& info) {
  decoder_.letGo();
  return info.Env().Undefined();
}

Napi::Function VideoEncoderHandle::define(Napi::Env env) {
  return DefineClass(env, "VideoEncoder",
                     {InstanceMethod<&VideoEncoderHandle::promise<&VideoEncoderHandle::encode>>("encode"),
                      InstanceMethod<&VideoEncoderHandle::dispose>("dispose")});
}

Napi::Value VideoEncoderHandle::wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<VideoEncoder> encoder,
                                     const VideoSizes& sizes) {
  const Napi::Object o = env.GetInstanceData<Classes>()->videoEncoder.New({});
  VideoEncoderHandle* handle = Unwrap(o);
  handle->encoder_.hold(std::move(core), std::move(encoder));
  handle->sizes_ = sizes;
  return o;
}

// Tokens of the latent frame that this frame completes, or an empty array.
Napi::Value VideoEncoderHandle::encode(const Napi::CallbackInfo& info) {
  if (!encoder_) return disposed(info.Env());
  std::vector<float> pixels = array<float>(info[0], "pixels");
  if (pixels.size() != sizes_.pixels)
    throw typedError(info.Env(), {Code::internal, "parvis native call: pixels must fill a frame"});
  const bool completes = frames_++ % sizes_.factorTime == 0;
  return enqueueArray<int32_t>(
      info.Env(), encoder_.core(), CancelHandle::from(info[1]), completes ? sizes_.cells : 0,
      [encoder = encoder_.object(), pixels = std::move(pixels), completes](int32_t* out, const Cancel& stop) {
        bool completed = false;
        Status s = encoder->encode(pixels.data(), out, completed, stop);
        if (s.ok() && completed != completes) s = {Code::internal, "the encoder lost count of its frames"};
        return s;
      });
}

Napi::Value VideoEncoderHandle::dispose(const Napi::CallbackInfo& info) {
  encoder_.letGo();
  return info.Env().Undefined();
}

}  // namespace parvis::binding
