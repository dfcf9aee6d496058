#include "thread_pool.h"

#include <chrono>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace galip {
namespace {

constexpr auto kAwake = std::chrono::microseconds(50);

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// Wait awake until `is_done`, for a short time; returns whether it is.
template <typename Condition>
bool wait_awake(const Condition &is_done) {
  const auto end = std::chrono::steady_clock::now() + kAwake;
  do {
    for (int i = 0; i < 32; ++i) {
      if (is_done()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
  } catch (...) {  // the system has no more threads; those that began must not outlive this object
    end();
    throw;
  }
}

ThreadPool::~ThreadPool() { end(); }

void ThreadPool::end() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ends_.store(true);
  }
  loop_begins_.notify_all();
  for (std::thread &worker : workers_) worker.join();
}

void ThreadPool::run_loop(int64_t count, Call call, const void *context) {
  if (workers_.empty() || count <= 1) {
    for (int64_t index = 0; index < count; ++index) call(context, index, 0);
    return;
  }
  call_ = call;
  context_ = context;
  count_ = count;
  done_.store(0);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    left_.store(count);
  }
  if (sleeping_.load() > 0) loop_begins_.notify_all();
  take_indices(0);
  const auto is_done = [this, count] { return done_.load() == count; };
  if (wait_awake(is_done)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  caller_sleeps_.store(true);
  loop_ends_.wait(lock, is_done);
  caller_sleeps_.store(false);
}

void ThreadPool::take_indices(int thread) {
  for (int64_t left = left_.load(); left > 0;) {
    if (!left_.compare_exchange_weak(left, left - 1)) continue;
    const int64_t count = count_;
    call_(context_, count - left, thread);
    if (done_.fetch_add(1) + 1 == count && caller_sleeps_.load()) {
      std::lock_guard<std::mutex> lock(mutex_);
      loop_ends_.notify_one();
    }
    left = left_.load();
  }
}

void ThreadPool::work(int thread) {
  const auto is_needed = [this] { return left_.load() > 0 || ends_.load(); };
  while (!ends_.load()) {
    if (!wait_awake(is_needed)) {
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_.fetch_add(1);
      loop_begins_.wait(lock, is_needed);
      sleeping_.fetch_sub(1);
    }
    take_indices(thread);
  }
}

}  // namespace galip
