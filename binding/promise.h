// The one promise-worker template. A method gives two functions: `work` fills a result on the executor thread and
// returns a Status, `resolve` turns the result into a JavaScript value. Statuses become errors here and nowhere else.
#pragma once

#include <new>
#include <optional>
#include <string>
#include <utility>

#include "engine.h"

namespace parvis::binding {

const char* codeName(Code code);
Napi::Value errorValue(Napi::Env env, const Status& status);

template <class Result, class Work, class Resolve>
class PromiseJob : public Job {
 public:
  PromiseJob(Napi::Env env, std::shared_ptr<Core> core, Result result, Work work, Resolve resolve)
      : deferred(Napi::Promise::Deferred::New(env)), core_(std::move(core)), result_(std::move(result)), work_(std::move(work)), resolve_(std::move(resolve)) {}
  void work() override {
    try {
      status_ = cancel->load() ? Status{Code::cancelled, "Cancelled."} : (*work_)(result_, *cancel);
    } catch (const std::bad_alloc&) {
      status_ = {Code::outOfMemory, "Out of memory."};
    } catch (const std::exception& e) {
      status_ = {Code::internal, e.what()};
    }
    if (!status_.ok()) result_ = Result{};  // nobody will see it
    work_.reset();  // what it holds may be the last share of a session: both are freed here, not on the JavaScript thread
  }
  void settle(Napi::Env env) override {
    if (!status_.ok()) deferred.Reject(errorValue(env, status_));
    else deferred.Resolve(resolve_(env, result_));
  }
  Napi::Promise::Deferred deferred;

 private:
  std::shared_ptr<Core> core_;  // the engine lives while a job of its does
  Result result_;
  std::optional<Work> work_;
  Resolve resolve_;
  Status status_;
};

// A promise for work(result, cancel), run after all jobs enqueued before it.
template <class Result, class Work, class Resolve>
Napi::Value enqueue(Napi::Env env, const std::shared_ptr<Core>& core, CancelFlag cancel, Result result, Work work, Resolve resolve) {
  auto job = std::make_unique<PromiseJob<Result, Work, Resolve>>(env, core, std::move(result), std::move(work), std::move(resolve));
  if (cancel) job->cancel = std::move(cancel);
  const Napi::Promise promise = job->deferred.Promise();
  if (!core || core->executor->ended()) {
    job->deferred.Reject(errorValue(env, {Code::disposed, "This engine was disposed."}));
    return promise;
  }
  core->executor->submit(std::move(job));
  return promise;
}

// A rejected promise for a handle that was disposed.
Napi::Value disposed(Napi::Env env);

template <class T>
Napi::Value typedArray(Napi::Env env, const std::vector<T>& from) {
  auto to = Napi::TypedArrayOf<T>::New(env, from.size());
  if (!from.empty()) std::memcpy(to.Data(), from.data(), from.size() * sizeof(T));
  return to;
}

}  // namespace parvis::binding
