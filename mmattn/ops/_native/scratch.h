// Memory to work in, what becomes of a lack of it, and threads that share.
//
// Kernels are called as functions of C, and work in threads: an exception may
// leave neither.

#pragma once

#include <atomic>
#include <cstddef>
#include <limits>
#include <new>
#include <vector>

#include "simd.h"

namespace mmattn {

// In place of std::bad_alloc, which does not say what was asked for.
struct OutOfMemory {
  Index bytes;
};

// Memory that begins with a cache line, so that no vector lies in two. A
// buffer that is given no value to begin with holds anything.
template <typename T>
struct Lines {
  using value_type = T;
  Lines() = default;
  template <typename Other>
  Lines(const Lines<Other>&) {}
  T* allocate(std::size_t count) {
    const std::size_t bytes = count * sizeof(T);
    void* x = ::operator new(bytes, std::align_val_t{64}, std::nothrow);
    if (!x) throw OutOfMemory{static_cast<Index>(bytes)};
    return static_cast<T*>(x);
  }
  void deallocate(T* x, std::size_t) {
    ::operator delete(x, std::align_val_t{64});
  }
  template <typename Other>
  void construct(Other* x) {
    ::new (static_cast<void*>(x)) Other;
  }
  bool operator==(const Lines&) const { return true; }
  bool operator!=(const Lines&) const { return false; }
};

template <typename T>
using Buffer = std::vector<T, Lines<T>>;

// Runs a kernel. Returns 0, or how many bytes it could not get.
template <typename Run>
inline Index guarded(Run run) noexcept {
  try {
    run();
    return 0;
  } catch (const OutOfMemory& error) {
    return error.bytes;
  } catch (...) {  // of a buffer with more elements than there can be
    return std::numeric_limits<Index>::max();
  }
}

// `use(thread, first, end)`: for each thread its share of `count` tasks.
template <typename Use>
void share(Index count, Index threads, Use use) {
  std::atomic<Index> lacking{0};
#pragma omp parallel for num_threads(threads) schedule(static)
  for (Index thread = 0; thread < threads; ++thread) {
    const Index first = count * thread / threads;
    const Index end = count * (thread + 1) / threads;
    if (first == end) continue;
    // Out of line: inlined into what catches, its loops are slower.
    const auto work = [&]() __attribute__((noinline)) {
      use(thread, first, end);
    };
    const Index bytes = guarded(work);
    if (bytes) lacking = bytes;
  }
  if (lacking) throw OutOfMemory{lacking};
}

}  // namespace mmattn
