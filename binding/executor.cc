#include "executor.h"

#include <system_error>

#include "promise.h"

namespace parvis::binding {

Executor::Executor(Napi::Env env) : env_(env) {
  napi_value name = Napi::String::New(env, "parvis");
  const napi_status status =
      napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, onSettle, &back_);
  if (status != napi_ok) throw typedError(env, {Code::internal, "parvis could not create its thread-safe function."});
  napi_unref_threadsafe_function(env, back_);  // an idle engine keeps no process alive
  try {
    thread_ = startThread([this] {
      threadEnd_.begin();
      loop();
    });
  } catch (const std::exception&) {
    napi_release_threadsafe_function(back_, napi_tsfn_abort);
    throw typedError(env, {Code::outOfMemory, threadsRefused("a thread for parvis")});
  }
  napi_add_env_cleanup_hook(env, onCleanup, this);
}

void Executor::onCleanup(void* context) {
  Executor* self = static_cast<Executor*>(context);
  bool retired;
  {
    const std::lock_guard lock(self->mutex_);
    retired = self->retired_;
  }
  self->end();  // drops jobs, and may so drop the core, which retires (deletes) an executor that has ended
  if (retired) delete self;
}

void Executor::retire(std::function<void()> last, std::function<void(Napi::Env)> done) {
  if (ended_) {
    const Napi::Env env(env_);
    last();
    delete this;
    if (done) done(env);
    return;
  }
  if (done) napi_ref_threadsafe_function(env_, back_);  // somebody waits for it
  done_ = std::move(done);
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({nullptr, std::move(last)});
    stop_ = retired_ = true;
  }
  wake_.notify_all();
}

void Executor::end() {
  ended_ = true;
  napi_remove_env_cleanup_hook(env_, onCleanup, this);
  std::deque<Entry> dropped;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    if (running_) running_->store(true);
    dropped.swap(queue_);
  }
  wake_.notify_all();
  if (thread_.joinable()) {
    thread_.join();
    threadEnd_.wait();
  }
  for (auto& job : unsettled_) dropped.push_back({std::move(job), nullptr});
  unsettled_.clear();
  for (auto& e : dropped)
    if (e.work) e.work();
  napi_release_threadsafe_function(back_, napi_tsfn_abort);
  back_ = nullptr;
}

void Executor::halt() {
  if (!ended_) end();
}

void Executor::submit(std::unique_ptr<Job> job) {
  if (pending_++ == 0) napi_ref_threadsafe_function(env_, back_);
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({std::move(job), nullptr});
  }
  wake_.notify_one();
}

void Executor::post(std::function<void()> work) {
  if (ended_) return work();
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back({nullptr, std::move(work)});
  }
  wake_.notify_one();
}

void Executor::loop() {
  for (;;) {
    Entry entry;
    {
      std::unique_lock lock(mutex_);
      running_ = nullptr;
      wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) {
        if (retired_)
          napi_call_threadsafe_function(back_, nullptr, napi_tsfn_nonblocking);  // no job: this thread is done
        return;
      }
      entry = std::move(queue_.front());
      queue_.pop_front();
      running_ = entry.job ? entry.job->cancel : nullptr;
    }
    if (entry.work) {
      entry.work();
      continue;
    }
    entry.job->work();
    if (napi_call_threadsafe_function(back_, entry.job.get(), napi_tsfn_nonblocking) == napi_ok) {
      (void)entry.job.release();
      continue;
    }
    const std::lock_guard lock(mutex_);
    unsettled_.push_back(std::move(entry.job));
  }
}

void Executor::onSettle(napi_env env, napi_value, void* context, void* data) {
  const std::unique_ptr<Job> job(static_cast<Job*>(data));
  if (env == nullptr)
    return;  // the environment is going down: nobody waits for the result, and the executor may be gone
  Executor* self = static_cast<Executor*>(context);
  Napi::HandleScope scope(env);
  if (!job) {
    self->end();
    const std::function<void(Napi::Env)> done = std::move(self->done_);
    delete self;
    if (done) done(env);
    return;
  }
  if (--self->pending_ == 0 && self->back_) napi_unref_threadsafe_function(env, self->back_);
  try {
    job->settle(env);
  } catch (const Napi::Error&) {  // rejecting only fails where JavaScript can no longer run
  }
}

}  // namespace parvis::binding
