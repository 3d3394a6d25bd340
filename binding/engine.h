// Handles that JavaScript holds: engine, transformer, session, tokenizer, cancel. Each owns a share of its engine's
// core; freeing large memory happens on the executor thread, also when the garbage collector finds the handle.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "executor.h"
#include "parvis/backend.h"

namespace parvis::binding {

struct Core {
  Core(Napi::Env env, std::unique_ptr<Backend> made) : backend(std::move(made)), executor(new Executor(env)) {}
  ~Core() { executor->retire([last = std::move(backend)]() mutable { last.reset(); }); }  // joins the backend's threads
  std::shared_ptr<Backend> backend;
  Executor* executor;  // goes by itself, after the core
};

struct Classes {  // constructors, an environment's each
  Napi::FunctionReference engine, transformer, session, tokenizer, cancel;
};

// Shares of native objects whose release may take milliseconds.
template <class T>
void releaseLater(const std::shared_ptr<Core>& core, std::shared_ptr<T>& object) {
  if (!object) return;
  if (core) core->executor->post([o = std::move(object)]() mutable { o.reset(); });
  object.reset();
}

class CancelHandle : public Napi::ObjectWrap<CancelHandle> {
 public:
  explicit CancelHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  static Napi::Function define(Napi::Env env);
  // The flag of an optional argument; null where it is absent.
  static CancelFlag from(const Napi::Value& value);

 private:
  Napi::Value cancel(const Napi::CallbackInfo& info);
  CancelFlag flag_ = std::make_shared<Cancel>(false);
};

class EngineHandle : public Napi::ObjectWrap<EngineHandle> {
 public:
  explicit EngineHandle(const Napi::CallbackInfo& info);
  static Napi::Function define(Napi::Env env);

 private:
  Napi::Value device(const Napi::CallbackInfo& info);
  Napi::Value isa(const Napi::CallbackInfo& info);
  Napi::Value threads(const Napi::CallbackInfo& info);
  Napi::Value loadTransformer(const Napi::CallbackInfo& info);
  Napi::Value loadTokenizer(const Napi::CallbackInfo& info);
  Napi::Value runOperation(const Napi::CallbackInfo& info);
  Napi::Value measureCeilings(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  Napi::Value halt(const Napi::CallbackInfo& info);
  std::string device_;
  std::shared_ptr<Core> core_;
  std::shared_ptr<Executor*> executor_;  // longer than the core
};

class TransformerHandle : public Napi::ObjectWrap<TransformerHandle> {
 public:
  explicit TransformerHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  ~TransformerHandle() override { releaseLater(core_, transformer_); }
  static Napi::Function define(Napi::Env env);
  static Napi::Value wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Transformer> transformer);

 private:
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value createSession(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  std::shared_ptr<Core> core_;
  std::shared_ptr<Transformer> transformer_;
};

class SessionHandle : public Napi::ObjectWrap<SessionHandle> {
 public:
  explicit SessionHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  ~SessionHandle() override { releaseLater(core_, session_); }
  static Napi::Function define(Napi::Env env);
  static Napi::Value wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Session> session, size_t tokens, size_t logits);

 private:
  Napi::Value step(const Napi::CallbackInfo& info);
  Napi::Value readTokens(const Napi::CallbackInfo& info);
  Napi::Value readLogProbs(const Napi::CallbackInfo& info);
  Napi::Value readLogits(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  std::shared_ptr<Core> core_;
  std::shared_ptr<Session> session_;
  template <class T>
  Napi::Value read(Napi::Env env, size_t count, Status (Session::*method)(T*));
  size_t tokens_ = 0, logits_ = 0;
};

class TokenizerHandle : public Napi::ObjectWrap<TokenizerHandle> {
 public:
  explicit TokenizerHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  ~TokenizerHandle() override { releaseLater(core_, tokenizer_); }
  static Napi::Function define(Napi::Env env);
  static Napi::Value wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Tokenizer> tokenizer);

 private:
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value decode(const Napi::CallbackInfo& info);
  Napi::Value encode(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  std::shared_ptr<Core> core_;
  std::shared_ptr<Tokenizer> tokenizer_;
};

}  // namespace parvis::binding
