// Handles that JavaScript holds: engine, transformer, session, tokenizer, cancel. Each owns a share of its engine's
// core until the engine is disposed of, which takes the shares away; freeing large memory happens on the executor
// thread, also when the garbage collector finds the handle.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include "executor.h"
#include "parvis/backend.h"

namespace parvis::binding {

// Something of an engine that must be let go of before the engine can end.
class Holder {
 public:
  virtual void letGo() = 0;

 protected:
  ~Holder() = default;
};

// What the handles of one engine share. Of the JavaScript thread, but for the backend, which jobs use.
struct Core {
  explicit Core(Napi::Env env) : executor(new Executor(env)) {}
  ~Core() {
    if (executor)
      executor->retire([last = std::move(backend)]() mutable { last.reset(); });  // joins the backend's threads
  }
  Core(const Core&) = delete;
  bool open() const { return !closed && executor && !executor->ended(); }
  // Frees `object` on the executor thread, behind the jobs that may use it.
  template <class T>
  void release(std::shared_ptr<T> object) {
    if (executor && object) executor->post([o = std::move(object)]() mutable { o.reset(); });
  }
  std::shared_ptr<Backend> backend;
  Executor* executor;  // goes by itself, after the core
  bool closed = false;
  std::unordered_set<Holder*> holders;
};

// A handle's share of a native object, whose release may take milliseconds: it is freed on the executor thread, when
// the handle is disposed of, collected, or its engine is disposed of.
template <class T>
class Share final : public Holder {
 public:
  Share() = default;
  Share(const Share&) = delete;
  ~Share() { letGo(); }
  void hold(std::shared_ptr<Core> core, std::shared_ptr<T> object) {
    core_ = std::move(core);
    object_ = std::move(object);
    core_->holders.insert(this);
    if (core_->closed) letGo();  // made while its engine was disposed of
  }
  void letGo() override {
    if (!core_) return;
    core_->holders.erase(this);
    core_->release(std::move(object_));
    object_.reset();
    core_.reset();
  }
  explicit operator bool() const { return object_ != nullptr; }
  T* operator->() const { return object_.get(); }
  const std::shared_ptr<T>& object() const { return object_; }
  const std::shared_ptr<Core>& core() const { return core_; }

 private:
  std::shared_ptr<Core> core_;
  std::shared_ptr<T> object_;
};

template <class T>
constexpr size_t arrayKind = std::is_same_v<T, int32_t> ? 0
                             : std::is_same_v<T, float> ? 1
                                                        : 2;

struct Classes {  // constructors, an environment's each
  Napi::FunctionReference engine, transformer, session, tokenizer, videoTokenizer, videoDecoder, videoEncoder, cancel;
  Napi::FunctionReference arrays[3];  // by arrayKind: Int32Array, Float32Array, Uint8Array
};

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
  Napi::Value launches(const Napi::CallbackInfo& info);
  Napi::Value loadTransformer(const Napi::CallbackInfo& info);
  Napi::Value loadTokenizer(const Napi::CallbackInfo& info);
  Napi::Value loadVideoTokenizer(const Napi::CallbackInfo& info);
  Napi::Value measureCeilings(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  Napi::Value halt(const Napi::CallbackInfo& info);
  template <Napi::Value (EngineHandle::*method)(const Napi::CallbackInfo&)>
  Napi::Value promise(const Napi::CallbackInfo& info);
  std::string device_;
  std::shared_ptr<Core> core_;
  std::shared_ptr<Executor*> executor_;  // longer than the core
};

class TransformerHandle : public Napi::ObjectWrap<TransformerHandle> {
 public:
  explicit TransformerHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  static Napi::Function define(Napi::Env env);
  static Napi::Value wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Transformer> transformer);

 private:
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value createSession(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  template <Napi::Value (TransformerHandle::*method)(const Napi::CallbackInfo&)>
  Napi::Value promise(const Napi::CallbackInfo& info);
  Share<Transformer> transformer_;
};

class SessionHandle : public Napi::ObjectWrap<SessionHandle> {
 public:
  explicit SessionHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  static Napi::Function define(Napi::Env env);
  static Napi::Value wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Session> session, size_t tokens,
                          size_t logits);

 private:
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value enter(const Napi::CallbackInfo& info);
  Napi::Value leave(const Napi::CallbackInfo& info);
  Napi::Value step(const Napi::CallbackInfo& info);
  Napi::Value plan(const Napi::CallbackInfo& info);
  Napi::Value pass(const Napi::CallbackInfo& info);
  Napi::Value readTokens(const Napi::CallbackInfo& info);
  Napi::Value readLogProbs(const Napi::CallbackInfo& info);
  Napi::Value readLogits(const Napi::CallbackInfo& info);
  Napi::Value profile(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  template <Napi::Value (SessionHandle::*method)(const Napi::CallbackInfo&)>
  Napi::Value promise(const Napi::CallbackInfo& info);
  Share<Session> session_;
  template <class T>
  Napi::Value read(const Napi::CallbackInfo& info, size_t count, Status (Session::*method)(int, T*));
  size_t tokens_ = 0, logits_ = 0;  // of one seat
};

class TokenizerHandle : public Napi::ObjectWrap<TokenizerHandle> {
 public:
  explicit TokenizerHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  static Napi::Function define(Napi::Env env);
  static Napi::Value wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<Tokenizer> tokenizer);

 private:
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value decode(const Napi::CallbackInfo& info);
  Napi::Value encode(const Napi::CallbackInfo& info);
  Napi::Value profile(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  template <Napi::Value (TokenizerHandle::*method)(const Napi::CallbackInfo&)>
  Napi::Value promise(const Napi::CallbackInfo& info);
  Share<Tokenizer> tokenizer_;
};

class VideoTokenizerHandle : public Napi::ObjectWrap<VideoTokenizerHandle> {
 public:
  explicit VideoTokenizerHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  static Napi::Function define(Napi::Env env);
  static Napi::Value wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<VideoTokenizer> tokenizer);

 private:
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value createDecoder(const Napi::CallbackInfo& info);
  Napi::Value createEncoder(const Napi::CallbackInfo& info);
  Napi::Value profile(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  template <Napi::Value (VideoTokenizerHandle::*method)(const Napi::CallbackInfo&)>
  Napi::Value promise(const Napi::CallbackInfo& info);
  Share<VideoTokenizer> tokenizer_;
};

// Sizes of one latent frame and of what becomes of it.
struct VideoSizes {
  size_t cells = 0, pixels = 0;  // tokens of a latent frame; numbers of a frame
  int factorTime = 1;
};

class VideoDecoderHandle : public Napi::ObjectWrap<VideoDecoderHandle> {
 public:
  explicit VideoDecoderHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  static Napi::Function define(Napi::Env env);
  static Napi::Value wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<VideoDecoder> decoder,
                          const VideoSizes& sizes);

 private:
  Napi::Value decode(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  template <Napi::Value (VideoDecoderHandle::*method)(const Napi::CallbackInfo&)>
  Napi::Value promise(const Napi::CallbackInfo& info);
  Share<VideoDecoder> decoder_;
  VideoSizes sizes_;
  bool begun_ = false;  // a latent frame was given
};

class VideoEncoderHandle : public Napi::ObjectWrap<VideoEncoderHandle> {
 public:
  explicit VideoEncoderHandle(const Napi::CallbackInfo& info) : ObjectWrap(info) {}
  static Napi::Function define(Napi::Env env);
  static Napi::Value wrap(Napi::Env env, std::shared_ptr<Core> core, std::shared_ptr<VideoEncoder> encoder,
                          const VideoSizes& sizes);

 private:
  Napi::Value encode(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  template <Napi::Value (VideoEncoderHandle::*method)(const Napi::CallbackInfo&)>
  Napi::Value promise(const Napi::CallbackInfo& info);
  Share<VideoEncoder> encoder_;
  VideoSizes sizes_;
  int frames_ = 0;  // given so far
};

}  // namespace parvis::binding
