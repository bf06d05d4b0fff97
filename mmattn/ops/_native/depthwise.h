// Depthwise convolutions of maps whose channels lie last.
//
// The channels are cut into heads, each with kernels of its own side, and
// those into groups of as many as a cache line holds. Row after row of the map
// is copied, group after group, between zeros, so that no border is special.
// From the last rows, which stay in the caches, some columns at a time are
// convolved in registers. One thread takes a run of rows of the batch.

#pragma once

#include <algorithm>
#include <type_traits>

#include "scratch.h"
#include "simd.h"

namespace mmattn {
namespace {  // other kernels have rows and plans of their own

// Columns of the result that are computed at a time.
constexpr int kColumns = 7;
// Channels of a group.
template <typename T>
constexpr int kLanes = 64 / sizeof(T);

struct Size {
  Index images, rows, columns;
};

struct Group {
  Index channel, count;
  Index side;
  Index taps;  // where its kernels begin
};

// What is convolved, and how it lies in copies of rows.
template <typename T>
struct Plan {
  Size size;
  Index heads, c, C;
  Index reach = 0;  // half the largest kernel
  Index columns;    // of a copied row, with the zeros around it
  Index row;        // values of a copied row
  Index num_taps = 0;
  Buffer<Group> groups;

  Plan(Size size, const Index* sides, Index heads, Index c)
      : size(size), heads(heads), c(c), C(heads * c) {
    for (Index head = 0; head < heads; ++head)
      for (Index first = 0; first < c; first += kLanes<T>) {
        const Index side = sides[head];
        const Index count = std::min<Index>(c - first, kLanes<T>);
        groups.push_back({head * c + first, count, side, num_taps});
        num_taps += side * side * kLanes<T>;
        reach = std::max(reach, side / 2);
      }
    // An odd number keeps groups from meeting in one set of a cache.
    columns = (size.columns + 2 * reach + kColumns - 1) | 1;
    row = columns * kLanes<T> * groups.size();
  }

  // Values of a group in a copied row.
  Index below() const { return columns * kLanes<T>; }

  // `use(weight, tap)`: where each weight lies in (heads, c, s, s), with
  // another s for each head, and where in (groups, s, s, lanes).
  template <typename Use>
  void for_weights(Use use) const {
    Index weight = 0;
    for (const Group& group : groups)
      for (Index lane = 0; lane < group.count; ++lane)
        for (Index tap = 0; tap < group.side * group.side; ++tap)
          use(weight++, group.taps + tap * kLanes<T> + lane);
  }

  Buffer<T> lay_out(const T* weights, bool with_skip, bool flipped) const {
    Buffer<T> taps(num_taps, T(0));
    for_weights([&](Index from, Index to) { taps[to] = weights[from]; });
    for (const Group& group : groups) {
      const Index last = group.side * group.side - 1;
      T* own = taps.data() + group.taps;
      if (with_skip)
        for (Index lane = 0; lane < group.count; ++lane)
          own[last / 2 * kLanes<T> + lane] += 1;
      if (flipped)
        for (Index tap = 0; tap <= last / 2; ++tap)
          std::swap_ranges(own + tap * kLanes<T>, own + (tap + 1) * kLanes<T>,
                           own + (last - tap) * kLanes<T>);
    }
    return taps;
  }
};

// `use(at, laid, lanes)` for each vector of a row: where its pixels, `step`
// apart, have it, where the copy has it, and how much of it there is.
template <typename T, typename Use>
inline void for_row(const Plan<T>& plan, Index step, Use use) {
  // Some columns at a time: neither side jumps from line to line.
  constexpr Index together = 8;
  const Group* groups = plan.groups.data();
  const Index num_groups = plan.groups.size();
  const Index below = plan.below(), columns = plan.size.columns;
  for (Index first = 0; first < columns; first += together) {
    const Index end = std::min(first + together, columns);
    for (Index i = 0; i < num_groups; ++i) {
      const Index channel = groups[i].channel, count = groups[i].count;
      for (Index column = first; column < end; ++column)
#pragma GCC unroll 8
        for (int lane = 0; lane < kLanes<T>; lane += Simd<T>::width)
          use(column * step + channel + lane,
              i * below + column * kLanes<T> + lane, count - lane);
    }
  }
}

// What a thread works on.
template <typename T>
struct Work {
  Buffer<T> last;         // copied rows of the map
  Buffer<T> one, other;   // single rows
  Buffer<const T*> seen;  // by row of a kernel

  explicit Work(const Plan<T>& plan)
      : last((2 * plan.reach + 1) * plan.row, T(0)),
        one(plan.row, T(0)),
        other(plan.row, T(0)),
        seen(2 * plan.reach + 1) {}

  T* copy_of(const Plan<T>& plan, Index row) {
    const Index depth = 2 * plan.reach + 1;
    return last.data() + (row + depth) % depth * plan.row;
  }

  // Copies a row with `make(at, lanes)`, which gives its vectors.
  template <typename Make>
  void fill(const Plan<T>& plan, Index row, Index step, Make make) {
    T* to = copy_of(plan, row);
    if (row < 0 || row >= plan.size.rows) {
      std::fill_n(to, plan.row, T(0));
      return;
    }
    // The zeros on both sides are never written to.
    to += plan.reach * kLanes<T>;
    for_row(plan, step, [=](Index at, Index laid, Index lanes) {
      vector_at(to + laid) = make(at, lanes);
    });
  }

  // What the kernels of a side see of a row, for the first column.
  const T* const* look(const Plan<T>& plan, Index row, Index side) {
    for (Index i = 0; i < side; ++i)
      seen[i] = copy_of(plan, row - side / 2 + i) +
                (plan.reach - side / 2) * kLanes<T>;
    return seen.data();
  }
};

// One call of `use` with the side as a constant if it is a usual one, else 0.
template <typename Use>
inline void with_side(Index side, Use use) {
  switch (side) {
    case 3:
      return use(std::integral_constant<int, 3>{});
    case 5:
      return use(std::integral_constant<int, 5>{});
    case 7:
      return use(std::integral_constant<int, 7>{});
    case 9:
      return use(std::integral_constant<int, 9>{});
    default:
      return use(std::integral_constant<int, 0>{});
  }
}

// Convolves a group of a row. `offset` is where it begins in the rows seen.
template <typename T, int SIDE>
void convolve_group(const T* const* seen, Index offset, Index columns,
                    Index any_side, const T* taps, const T* bias, T* out) {
  constexpr int lanes = kLanes<T>;
  const Index side = SIDE ? SIDE : any_side;
  for (Index column = 0; column < columns; column += kColumns)
#pragma GCC unroll 1
    for (Index lane = 0; lane < lanes; lane += Simd<T>::width) {
      Vector<T> sums[kColumns];
      const Vector<T> start = vector_at(bias + lane);
#pragma GCC unroll 16
      for (int t = 0; t < kColumns; ++t) sums[t] = start;
      const T* tap = taps + lane;
#pragma GCC unroll 1
      for (Index i = 0; i < side; ++i, tap += side * lanes) {
        const T* from = seen[i] + offset + column * lanes + lane;
        asm("" : "+r"(from));  // one register, and constants beside it
#pragma GCC unroll 16
        for (Index j = 0; j < side; ++j) {
          const Vector<T> factor = vector_at(tap + j * lanes);
#pragma GCC unroll 16
          for (int t = 0; t < kColumns; ++t)
            sums[t] += factor * vector_at(from + (j + t) * lanes);
        }
      }
      T* to = out + column * lanes + lane;
#pragma GCC unroll 16
      for (int t = 0; t < kColumns; ++t) vector_at(to + t * lanes) = sums[t];
    }
}

// Value j of part i at j * parts + i, for some pixels of `parts` times `c`
// values; or back. PARTS is the number of parts, or 0 for any.
template <bool BACK, int PARTS, typename T>
void regroup_parts(Index pixels, Index any_parts, Index c,
                   const T* __restrict from, T* __restrict to) {
  const Index parts = PARTS ? PARTS : any_parts;
  for (Index pixel = 0; pixel < pixels; ++pixel) {
    for (Index j = 0; j < c; ++j)
#pragma GCC unroll 8
      for (Index i = 0; i < parts; ++i)
        if constexpr (BACK)
          to[i * c + j] = from[j * parts + i];
        else
          to[j * parts + i] = from[i * c + j];
    from += parts * c;
    to += parts * c;
  }
}

template <bool BACK, typename T>
void regroup(Index pixels, Index parts, Index c, const T* from, T* to) {
  if (parts == 2)
    regroup_parts<BACK, 2>(pixels, parts, c, from, to);
  else if (parts == 4)
    regroup_parts<BACK, 4>(pixels, parts, c, from, to);
  else
    regroup_parts<BACK, 0>(pixels, parts, c, from, to);
}

// `use(thread, image, first row, end, work)` for all rows of a batch.
template <typename T, typename Use>
void for_rows(const Plan<T>& plan, Index threads, Use use) {
  const Index rows = plan.size.rows, all = plan.size.images * rows;
  share(all, threads, [&](Index thread, Index row, Index end) {
    Work<T> work(plan);
    while (row < end) {
      const Index first = row % rows;
      const Index last = std::min(rows, first + end - row);
      use(thread, row / rows, first, last, work);
      row += last - first;
    }
  });
}

// Where groups lie in a laid-out row, beside their channels.
template <typename T>
Buffer<T> lay_out_bias(const Plan<T>& plan, const T* bias) {
  Buffer<T> laid(plan.groups.size() * kLanes<T>, T(0));
  T* to = laid.data();
  for (const Group& group : plan.groups) {
    if (bias) std::copy_n(bias + group.channel, group.count, to);
    to += kLanes<T>;
  }
  return laid;
}

// Convolves all groups of a row, from the copies into `work.one`.
template <typename T>
void convolve_row(const Plan<T>& plan, Index row, const T* taps, const T* bias,
                  Work<T>& work) {
  Index offset = 0;
  for (const Group& group : plan.groups) {
    const T* const* seen = work.look(plan, row, group.side);
    with_side(group.side, [&](auto side) {
      convolve_group<T, side>(seen, offset, plan.size.columns, group.side,
                              taps + group.taps, bias,
                              work.one.data() + offset);
    });
    offset += plan.below();
    bias += kLanes<T>;
  }
}

}  // namespace
}  // namespace mmattn
