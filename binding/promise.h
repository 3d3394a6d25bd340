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
// To throw. Every error of the addon has `parvisCode`, by which lib/machine/native.ts makes it a ParError.
Napi::Error typedError(Napi::Env env, const Status& status);
// What a call that failed inside Node-API was thrown, with a code where it has none: a defect, or memory that
// JavaScript lacks.
Napi::Value typedValue(Napi::Env env, const Napi::Error& error);
// The message where the system grants no threads, "8 threads" for instance.
std::string threadsRefused(const std::string& what);

// A promise that is settled already.
Napi::Value rejected(Napi::Env env, const Napi::Value& error);
Napi::Value resolved(Napi::Env env);
Napi::Value disposed(Napi::Env env);

// The promise that `make` returns; whatever it throws rejects one.
template <class Make>
Napi::Value promised(Napi::Env env, Make&& make) {
  try {
    return make();
  } catch (const Napi::Error& e) {
    return rejected(env, typedValue(env, e));
  } catch (const std::bad_alloc&) {
    return rejected(env, errorValue(env, {Code::outOfMemory, "Out of memory."}));
  } catch (const std::exception& e) {
    return rejected(env, errorValue(env, {Code::internal, e.what()}));
  }
}

// Does `work`; what it throws becomes a Status.
template <class Work>
Status guarded(Work&& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return {Code::outOfMemory, "Out of memory."};
  } catch (const std::exception& e) {
    return {Code::internal, e.what()};
  }
}

template <class Result, class Work, class Resolve>
class PromiseJob : public Job {
 public:
  PromiseJob(Napi::Env env, std::shared_ptr<Core> core, Result result, Work work, Resolve resolve)
      : deferred(Napi::Promise::Deferred::New(env)), core_(std::move(core)), result_(std::move(result)),
        work_(std::move(work)), resolve_(std::move(resolve)) {}
  void work() override {
    status_ = guarded([&] { return cancel->load() ? cancelled() : (*work_)(result_, *cancel); });
    if (!status_.ok()) result_ = Result{};  // nobody will see it
    work_.reset();  // what it holds may be the last share of a session: both are freed here, not on the JavaScript
                    // thread
  }
  void settle(Napi::Env env) override {
    if (!status_.ok()) return reject(env, errorValue(env, status_));
    try {
      deferred.Resolve(resolve_(env, result_));
    } catch (const Napi::Error& e) {  // no memory for the result, for instance
      reject(env, typedValue(env, e));
    }
  }
  void reject(Napi::Env env, const Napi::Value& error) {
    if constexpr (requires { resolve_.drop(env); }) resolve_.drop(env);
    deferred.Reject(error);
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
Napi::Value enqueue(Napi::Env env, const std::shared_ptr<Core>& core, CancelFlag cancel, Result result, Work work,
                    Resolve resolve) {
  auto job = std::make_unique<PromiseJob<Result, Work, Resolve>>(env, core, std::move(result), std::move(work),
                                                                 std::move(resolve));
  if (cancel) job->cancel = std::move(cancel);
  const Napi::Promise promise = job->deferred.Promise();
  if (!core || !core->open()) {
    job->reject(env, errorValue(env, {Code::disposed, "This engine was disposed."}));
    return promise;
  }
  core->executor->submit(std::move(job));
  return promise;
}

// ---- results ------------------------------------------------------------------------------------------------

// A typed array made by JavaScript's own constructor, which throws a RangeError where memory cannot be had. (V8's C++
// constructor ends the process; an array around memory of ours could not be transferred, and is forbidden in Electron.)
template <class T>
Napi::TypedArrayOf<T> newArray(Napi::Env env, size_t count) {
  return env.GetInstanceData<Classes>()
      ->arrays[arrayKind<T>]
      .New({Napi::Number::New(env, static_cast<double>(count))})
      .template As<Napi::TypedArrayOf<T>>();
}

// A typed array that a job fills, so that the result is never in memory twice. Made before the job; JavaScript sees it
// with the promise.
template <class T>
class Output {
 public:
  Output(Napi::Env env, size_t count) : count_(count) {
    Napi::TypedArrayOf<T> array = newArray<T>(env, count);
    data_ = array.Data();
    if (napi_create_reference(env, array, 1, &reference_) != napi_ok) throw Napi::Error::New(env);
  }
  Output(const Output&) = delete;
  T* data() const { return data_; }
  size_t count() const { return count_; }
  // JavaScript thread, once. Where neither is called the environment is going down, which takes its references along.
  Napi::Value take(Napi::Env env) {
    napi_value value = nullptr;
    napi_get_reference_value(env, reference_, &value);
    drop(env);
    return Napi::Value(env, value);
  }
  void drop(Napi::Env env) {
    if (reference_) napi_delete_reference(env, std::exchange(reference_, nullptr));
  }

 private:
  napi_ref reference_ = nullptr;
  T* data_ = nullptr;
  size_t count_;
};

// A promise for an array of `count` values that `fill(data, cancel)` writes.
template <class T, class Fill>
Napi::Value enqueueArray(Napi::Env env, const std::shared_ptr<Core>& core, CancelFlag cancel, size_t count, Fill fill) {
  struct Resolve {
    std::shared_ptr<Output<T>> output;
    Napi::Value operator()(Napi::Env e, int&) { return output->take(e); }
    void drop(Napi::Env e) { output->drop(e); }
  };
  auto output = std::make_shared<Output<T>>(env, count);
  return enqueue(
      env, core, std::move(cancel), 0,
      [output, fill = std::move(fill)](int&, const Cancel& stop) mutable { return fill(output->data(), stop); },
      Resolve{output});
}

}  // namespace parvis::binding
