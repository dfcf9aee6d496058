// Threads that work on one loop at a time.
#ifndef GALIP_THREAD_POOL_H_
#define GALIP_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace galip {

// The caller's thread and `threads` - 1 workers share the iterations of `run`. Between two loops that follow each
// other closely the workers wait awake, for some ten microseconds; then they sleep, since other programs want the
// CPU, too. A loop does not wait for workers that the system does not let run: the others do their part.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Call `task(index, thread)` for each index from 0 to `count` - 1, in any order; thread is from 0 to
  // threads() - 1. Tasks must not throw.
  template <typename Task>
  void run(int64_t count, const Task &task) {
    run_loop(
        count,
        [](const void *context, int64_t index, int thread) { (*static_cast<const Task *>(context))(index, thread); },
        &task);
  }

 private:
  using Call = void (*)(const void *context, int64_t index, int thread);

  void run_loop(int64_t count, Call call, const void *context);
  void work(int thread);
  void take_indices(int thread);
  void end();

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable loop_begins_, loop_ends_;

  // The current loop. Whoever has taken an index may read these until it has counted itself in `done_`.
  Call call_ = nullptr;
  const void *context_ = nullptr;
  int64_t count_ = 0;
  std::atomic<int64_t> left_{0};  // indices that nobody has taken
  std::atomic<int64_t> done_{0};
  std::atomic<int> sleeping_{0};  // workers that wait for `loop_begins_`
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> ends_{false};
};

}  // namespace galip

#endif  // GALIP_THREAD_POOL_H_
